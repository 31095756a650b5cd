//! Identities, and processes, that keep sessions in one file.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use tempfile::TempDir;
use uuid::Uuid;

use super::super::{
    Claim, Entry, Left, OpenError, Put, Retired, Shelf, Step, Store,
    testing::{at, binding, entry, jwt, key, logged, store},
};
use crate::{
    clock::Clock,
    config::{SessionStore, StoreError, StoreKind},
};

const TOKEN: &str = "canary.jwt.of-a-session";

/// A folder, and the file that may be in it.
struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sessions.json");
        Self { folder, path }
    }

    /// As another process opens it.
    fn open(&self) -> Store {
        store(StoreKind::File { path: self.path.clone(), key: key(1) })
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).expect("a file")
    }
}

fn shelf(store: &Store, identity: &str) -> Shelf {
    store.shelf(&binding(identity), &Clock::system())
}

fn retired(jwt: &str) -> Retired {
    Retired { id: Uuid::now_v7(), jwt: jwt.into(), from: at(1_800_000_000) }
}

#[tokio::test]
async fn a_session_outlives_the_process() {
    let place = Place::new();
    place.open().main().write(&entry(TOKEN)).await;

    let found = place.open().main().read().await;

    assert_eq!(jwt(&found), Some(TOKEN));
}

#[tokio::test]
async fn there_is_nothing_before_the_first_login() {
    let place = Place::new();

    let look = place.open().main().look(None).await.expect("an answer");

    assert!(look.entry.is_some_and(|entry| entry.session.is_none()));
    assert_eq!(look.members, 1);
    assert!(!place.path.exists());
}

#[tokio::test]
async fn processes_follow_each_other() {
    let place = Place::new();
    let (old, new) = (place.open().main(), place.open().main());
    old.write(&entry("one")).await;
    let before = new.look(None).await.expect("an answer");

    let same = new.look(Some(before.revision)).await.expect("an answer");
    let (lease, _) = old.claim_mine().await;
    let put = old.put(lease, &entry("two")).await.expect("an answer");
    let other = new.look(Some(before.revision)).await.expect("an answer");

    assert!(same.entry.is_none());
    assert_eq!(other.entry.as_ref().and_then(jwt), Some("two"));
    assert_eq!(put, Put::Done(other.revision));
}

#[tokio::test]
async fn identities_do_not_disturb_each_other() {
    let place = Place::new();
    let store = place.open();
    let shelves: Vec<_> = (0..10).map(|name| shelf(&store, &name.to_string())).collect();

    let tokens: Vec<_> = (0..10).map(|token| entry(&format!("token {token}"))).collect();
    let writes = shelves.iter().zip(&tokens).map(|(shelf, entry)| shelf.write(entry));
    futures_util::future::join_all(writes).await;

    for (shelf, written) in shelves.iter().zip(&tokens) {
        assert_eq!(jwt(&shelf.read().await), jwt(written));
    }
}

#[tokio::test]
async fn one_process_has_the_lease() {
    let place = Place::new();
    let (first, second) = (place.open().main(), place.open().main());
    let (lease, _) = first.claim_mine().await;

    let others = second.claim().await;
    assert!(first.renew(&lease).await.expect("an answer"));
    first.give_back(lease).await;
    second.claim_mine().await;

    assert!(matches!(others, Ok(Claim::Others)));
}

#[tokio::test]
async fn a_lease_ends_with_its_holder() {
    let place = Place::new();
    let (first, second) = (place.open().main(), place.open().main());
    let (lease, _) = first.claim_mine().await;

    drop((first, lease));

    second.claim_mine().await;
}

#[tokio::test]
async fn no_step_is_taken_twice_not_even_after_a_restart() {
    let place = Place::new();
    let (first, second) = (place.open().main(), place.open().main());

    let taken = [
        first.take_step(90, 30).await.ok(),
        second.take_step(90, 30).await.ok(),
        place.open().main().take_step(60, 30).await.ok(),
        second.take_step(120, 30).await.ok(),
    ];

    let expected = [Step::Taken, Step::UsedUntil(90), Step::UsedUntil(90), Step::Taken];
    assert_eq!(taken, expected.map(Some));
}

#[tokio::test]
async fn steps_and_sessions_do_not_overwrite_each_other() {
    let place = Place::new();
    let shelf = place.open().main();

    shelf.take_step(90, 30).await.expect("an answer");
    shelf.write(&entry(TOKEN)).await;
    let taken = shelf.take_step(90, 30).await;

    assert_eq!(taken.ok(), Some(Step::UsedUntil(90)));
    assert_eq!(jwt(&shelf.read().await), Some(TOKEN));
}

#[tokio::test]
async fn who_leaves_takes_what_is_retired_and_leaves_the_session() {
    let place = Place::new();
    let shelf = place.open().main();
    shelf.write(&Entry { retired: vec![retired("old")], ..entry(TOKEN) }).await;

    let left = shelf.leave().await;
    let again = shelf.leave().await;

    assert!(matches!(left, Ok(Left::Kept { retired }) if retired.len() == 1));
    assert!(matches!(again, Ok(Left::Kept { retired }) if retired.is_empty()));
    assert_eq!(jwt(&shelf.read().await), Some(TOKEN));
}

#[tokio::test]
async fn what_is_damaged_counts_as_empty_and_is_replaced() {
    let place = Place::new();
    let shelf = place.open().main();
    shelf.write(&entry(TOKEN)).await;
    let good = place.text();
    let damaged = [
        String::new(),
        "rubbish".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"version\": 1", "\"version\": 2"),
        good.replace("\"sealed\": \"", "\"sealed\": \"AQ"),
        good.replace("\"sealed\": \"", "\"sealed\": \"!"),
    ];

    for text in damaged {
        fs::write(&place.path, &text).expect("written");
        assert!(shelf.read().await.session.is_none(), "{text}");

        shelf.write(&entry(TOKEN)).await;
        assert_eq!(jwt(&shelf.read().await), Some(TOKEN), "{text}");
    }
}

#[tokio::test]
async fn a_session_sealed_with_another_key_counts_as_empty() {
    let place = Place::new();
    place.open().main().write(&entry(TOKEN)).await;

    let other = store(StoreKind::File { path: place.path.clone(), key: key(2) });

    assert!(other.main().read().await.session.is_none());
}

#[tokio::test]
async fn an_entry_that_was_moved_to_another_identity_counts_as_empty() {
    let place = Place::new();
    let store = place.open();
    store.main().write(&entry(TOKEN)).await;
    let stolen = place.text().replace(&binding("main").id(), &binding("other").id());

    fs::write(&place.path, stolen).expect("written");

    assert!(shelf(&store, "other").read().await.session.is_none());
}

#[tokio::test]
async fn the_file_is_ours_alone() {
    let place = Place::new();
    let shelf = place.open().main();
    shelf.write(&entry(TOKEN)).await;
    let mode = |path: &PathBuf| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o644)).expect("changed");

    shelf.write(&entry(TOKEN)).await;

    for file in fs::read_dir(place.folder.path()).expect("a folder") {
        let path = file.expect("a file").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn nobody_reads_a_secret_in_the_file() {
    let place = Place::new();
    let opened = place.open();
    let shelf = opened.main();
    shelf.write(&Entry { retired: vec![retired(TOKEN)], ..entry(TOKEN) }).await;

    let told = format!("{} {opened:?} {shelf:?} {:?}", place.text(), shelf.read().await);

    assert!(!told.contains("canary"), "{told}");
    assert!(!place.text().contains("svc@corp.test"));
}

#[tokio::test]
async fn what_a_killed_process_left_half_written_is_no_hindrance() {
    let place = Place::new();
    fs::write(place.folder.path().join("sessions.json.new"), "half").expect("written");

    place.open().main().write(&entry(TOKEN)).await;

    assert_eq!(jwt(&place.open().main().read().await), Some(TOKEN));
}

#[test]
fn each_complaint_is_made_once_for_each_content() {
    let place = Place::new();
    let book = super::Book::open(&place.path).expect("a book");
    book.expect("ours");
    let foreign = r#"{"version": 1, "sessions": {"theirs": {"sealed": "AQ"}}}"#;
    let ours = r#"{"version": 1, "sessions": {"ours": {"sealed": "AQ"}, "theirs": {}}}"#;

    let log = logged(|| {
        for text in ["rubbish", "rubbish", "rubble", foreign, foreign, ours] {
            fs::write(&place.path, text).expect("written");
            fs::set_permissions(&place.path, fs::Permissions::from_mode(0o640)).expect("changed");
            book.read().expect("read");
        }
    });

    assert_eq!(log.matches("it is damaged").count(), 2, "{log}");
    assert_eq!(log.matches("of other identities").count(), 1, "{log}");
    assert_eq!(log.matches("open to others").count(), 1, "{log}");
}

#[test]
fn a_path_that_cannot_be_written_is_told_at_once() {
    let place = Place::new();
    let folder = place.folder.path();

    for path in [folder.to_owned(), folder.join("missing/sessions.json")] {
        let kind = StoreKind::File { path: path.clone(), key: key(1) };
        let opened = Store::open(&SessionStore { kind, on_error: StoreError::Local });

        let error = opened.expect_err("it cannot be written");
        assert!(matches!(error, OpenError::File { .. }));
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
