//! The table, and how it gets there.

use super::{
    error::{Error, is_forbidden},
    link::Link,
};

/// What makes the table, and changes it from one version to the next; each notes its version.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];

/// Held while it is changed, so that two gateways do not do it at once: "amoveaud".
const LOCK: i64 = 7_020_389_948_438_181_220;

/// Makes sure that the table is there.
pub(super) async fn prepare(link: &mut Link) -> Result<(), Error> {
    let there = version(link).await?;
    let Some(missing) = MIGRATIONS.get(there..).filter(|missing| !missing.is_empty()) else {
        return Ok(());
    };
    match migrate(link).await {
        Err(Error::Postgres(error)) if is_forbidden(&error) && there == 0 => Err(Error::NoTable),
        Err(Error::Postgres(error)) if is_forbidden(&error) => {
            let missing = missing.len();
            tracing::warn!(there, missing, "this role may not bring the audit table up to date");
            Ok(())
        }
        result => result,
    }
}

/// How many of the migrations have been made; all of them, if we may not know.
async fn version(link: &Link) -> Result<usize, Error> {
    let there = "SELECT to_regclass('audit_migrations') IS NOT NULL";
    let row = link.answer(link.client.query_one(there, &[])).await?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let select = "SELECT coalesce(max(version), 0) FROM audit_migrations";
    match link.answer(link.client.query_one(select, &[])).await {
        Ok(row) => Ok(usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(0)),
        Err(Error::Postgres(error)) if is_forbidden(&error) => Ok(MIGRATIONS.len()),
        Err(error) => Err(error),
    }
}

async fn migrate(link: &mut Link) -> Result<(), Error> {
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})");
    let migrated = async {
        link.answer(link.client.batch_execute(&begin)).await?;
        // Somebody else may have done it while we waited.
        let there = version(link).await?;
        for migration in MIGRATIONS.iter().skip(there) {
            link.answer(link.client.batch_execute(migration)).await?;
        }
        link.answer(link.client.batch_execute("COMMIT")).await?;
        Ok(there)
    };
    match migrated.await {
        Ok(there) if there < MIGRATIONS.len() => {
            tracing::info!(version = MIGRATIONS.len(), "audit table of PostgreSQL created");
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = link.answer(link.client.batch_execute("ROLLBACK")).await;
            Err(error)
        }
    }
}
