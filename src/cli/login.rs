//! `login`: one trial login; never shows the token.

use std::time::Duration;

use clap::Args;
use http::StatusCode;
use jiff::Timestamp;

use super::{Exit, Failure, Global, print, runtime};
use crate::{
    clock::Clock,
    config::{Config, Credentials, Identity, SessionStore, StoreError, StoreKind, UserType},
    session::{self, Sessions, Token},
    upstream::Upstream,
    upstream::userinfo::{self, UserInfo, userinfo},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The identity to log in; without it, the default one
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

/// Logs in, asks who we are, logs out, and tells.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let config = global.load()?.config;
    let identity = match &arguments.identity {
        None => config.identities.first(),
        Some(name) => config.identities.iter().find(|identity| *identity.name == **name),
    };
    let identity = identity.ok_or_else(|| {
        let known: Vec<_> = config.identities.iter().map(|identity| &*identity.name).collect();
        Failure::new(
            Exit::Usage,
            format!("there is no such identity; there are: {}", known.join(", ")),
        )
    })?;
    let report = runtime()?.block_on(trial(&config, identity))?;
    print(report)
}

/// Nobody waits longer for the goodbye of a trial.
const GOODBYE: Duration = Duration::from_secs(10);

/// A login, a look and a logout; returns what to tell about it.
pub(super) async fn trial(config: &Config, identity: &Identity) -> Result<String, Failure> {
    let upstream = Upstream::new(&config.upstream)
        .map_err(|error| Failure::caused(Exit::Config, "there is no way to Amove", &error))?;
    let clock = Clock::system();
    // Sessions are scarce: that of a trial is closed whatever the configuration says.
    let identity = Identity { logout_on_shutdown: true, ..identity.clone() };
    let runtime = tokio::runtime::Handle::current();
    let identities = std::slice::from_ref(&identity);
    // A trial shares its session with nobody, and takes nobody else's.
    let store = SessionStore { kind: StoreKind::Memory, on_error: StoreError::Local };
    let sessions = Sessions::new(
        identities,
        &store,
        &config.upstream.auth_url,
        upstream.clone(),
        clock.clone(),
        runtime,
    )
    .map_err(|error| Failure::caused(Exit::Config, "there is nowhere to keep a session", &error))?;
    sessions.start();

    let token = sessions.token(0).await.map_err(|error| refused(&identity.name, &error))?;
    let user = userinfo(&upstream, token.bearer()).await;
    sessions.shutdown(GOODBYE).await;

    let user = user.map_err(|error| no_user(&identity.name, &error))?;
    Ok(report(&identity, &token, &user, clock.now()))
}

fn refused(identity: &str, error: &session::Error) -> Failure {
    let exit = match error {
        session::Error::Refused { .. } | session::Error::ApiToken { .. } => Exit::Refused,
        session::Error::Credentials { .. } => Exit::Config,
        _ => Exit::Unreachable,
    };
    Failure::caused(exit, &format!("identity `{identity}` cannot log in"), error)
}

fn no_user(identity: &str, error: &userinfo::Error) -> Failure {
    let what = format!("identity `{identity}` is logged in, but user/userinfo fails");
    let exit = match error {
        userinfo::Error::Answered(StatusCode::UNAUTHORIZED) => Exit::Refused,
        userinfo::Error::Answered(_) | userinfo::Error::Unreachable(_) => Exit::Unreachable,
    };
    Failure::caused(exit, &what, error)
}

fn report(identity: &Identity, token: &Token, user: &UserInfo, now: Timestamp) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".into());
    let role = user.user_type.and_then(|number| {
        UserType::ALL.into_iter().find(|it| *it as u8 == number).map(UserType::name)
    });
    let expires = match token.expires() {
        Some(at) => format!("{at} ({} s from now)", at.as_second() - now.as_second()),
        None => "cannot be read from the token".to_owned(),
    };
    let factor = if token.second_factor() { "asked for, and given" } else { "not asked for" };
    let session = match identity.credentials {
        Credentials::Password { .. } => "closed again",
        Credentials::ApiToken(_) => "of an API token: left open",
    };
    let rows = [
        ("identity", identity.name.to_string()),
        ("user", known(&user.username)),
        ("account", known(&user.account_name)),
        ("role", role.unwrap_or("not told").to_owned()),
        ("token expires", expires),
        ("second factor", factor.to_owned()),
        ("session", session.to_owned()),
    ];
    rows.map(|(name, value)| format!("{name:14} {value}\n")).concat()
}
