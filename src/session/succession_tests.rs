//! What becomes of sessions when other identities come into force.

use std::{sync::Arc, time::Duration};

use secrecy::ExposeSecret;

use super::{State, testing::*};
use crate::config::{Credentials, Identity, RefreshAhead};

const SECOND: Duration = Duration::from_secs(1);

fn named(name: &str) -> Identity {
    Identity { name: name.into(), ..identity(password(PASSWORD)) }
}

#[tokio::test(start_paused = true)]
async fn who_stays_keeps_its_session_wherever_it_stands() {
    let mut world = World::new().await;
    let token = world.sessions.token(0).await.expect("a token");
    let other_terms = Identity {
        refresh_ahead: RefreshAhead::Share(0.5),
        replay_buffer: 7,
        ..identity(password(PASSWORD))
    };

    let before = world.change(&[named("new"), other_terms]);

    assert_eq!(world.sessions.positions_in(&before), [None, Some(0)]);
    let same = world.sessions.current(1).expect("a token");
    assert!(Arc::ptr_eq(&same, &token));
    let new = world.sessions.token(0).await.expect("a token");
    assert_eq!((new.generation(), world.auth.logins()), (1, 2));
    world.pass(15 * SECOND).await;
    assert!(world.auth.script().logouts.is_empty());
    assert_eq!((world.auth.logins(), world.sessions.status()[1].generation), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_logged_out_once_its_last_requests_have_arrived() {
    let mut world = World::new().await;
    let token = world.sessions.token(0).await.expect("a token");

    let before = world.change(&[named("new")]);
    world.pass(8 * SECOND).await;
    assert!(before.current(0).is_some(), "requests under way go on with it");
    assert!(world.auth.script().logouts.is_empty());
    world.pass(4 * SECOND).await;

    assert!(before.current(0).is_none());
    assert_eq!(world.auth.script().logouts, [token.jwt().expose_secret()]);
    assert_eq!(world.status().state, State::Valid);
    world.sessions.shutdown(SECOND).await;
    assert_eq!(world.auth.script().logouts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_not_forgotten_when_the_gateway_ends() {
    let mut world = World::new().await;
    world.sessions.token(0).await.expect("a token");
    world.change(&[named("new")]);
    world.sessions.token(0).await.expect("a token");

    world.sessions.shutdown(SECOND).await;

    assert_eq!(world.auth.script().logouts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_password_is_proved_while_the_session_serves() {
    let mut world = World::new().await;
    let old = world.sessions.token(0).await.expect("a token");
    world.auth.script().password = "other".to_owned();
    world.auth.hold();

    world.change(&[identity(password("other"))]);
    until(|| world.auth.logins() == 2).await;
    assert!(Arc::ptr_eq(&world.sessions.current(0).expect("a token"), &old));
    world.auth.release();

    until(|| world.status().generation == 2).await;
    world.pass(12 * SECOND).await;
    assert_eq!(world.auth.script().logouts, [old.jwt().expose_secret()]);
    assert_eq!((world.auth.logins(), world.status().state), (2, State::Valid));
}

#[tokio::test(start_paused = true)]
async fn a_password_that_is_just_being_written_is_not_taken_for_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("password");
    std::fs::write(&path, PASSWORD).expect("a file");
    let mut world = World::with(credentials(secret_file(&path), None)).await;
    world.sessions.token(0).await.expect("a token");

    std::fs::write(&path, "corr").expect("half a file");
    world.change(&[identity(credentials(secret_file(&path), None)), named("new")]);
    world.pass(SECOND / 10).await;
    std::fs::write(&path, PASSWORD).expect("a file");
    world.pass(5 * SECOND).await;

    let status = &world.sessions.status()[0];
    assert_eq!((status.counts.logins(), status.state), (1, State::Valid));
}

#[tokio::test(start_paused = true)]
async fn another_api_token_comes_into_force_and_another_kind_is_another_session() {
    let mut world = World::with(Credentials::ApiToken(secret(API_TOKEN))).await;
    world.sessions.token(0).await.expect("a token");

    let before = world.change(&[identity(Credentials::ApiToken(secret("other.api.token")))]);
    assert_eq!(world.sessions.positions_in(&before), [Some(0)]);
    until(|| world.status().generation == 2).await;
    let token = world.sessions.current(0).expect("a token");
    assert_eq!(token.jwt().expose_secret(), "other.api.token");
    let before = world.change(&[identity(password(PASSWORD))]);

    assert_eq!(world.sessions.positions_in(&before), [None]);
    world.sessions.token(0).await.expect("a token");
    world.pass(12 * SECOND).await;
    assert_eq!((world.auth.logins(), world.auth.script().logouts.len()), (1, 0));
}
