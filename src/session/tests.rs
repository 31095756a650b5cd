//! Sessions over real sockets, while time stands still.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use jiff::SignedDuration;
use secrecy::ExposeSecret;

use super::{Error, State, Token, testing::*};
use crate::config::{Credentials, Identity, RefreshAhead};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_one_login() {
    let world = World::new().await;

    let tokens = join_all((0..1000).map(|_| world.sessions.token(0))).await;

    assert!(tokens.iter().all(|token| token.as_ref().is_ok_and(|token| token.generation() == 1)));
    assert_eq!(world.auth.logins(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_many_threads_share_one_login_and_one_renewal() {
    let world = World::new().await;
    let all = |stale: Option<Arc<Token>>| {
        join_all((0..1000).map(|_| {
            let (sessions, stale) = (Arc::clone(&world.sessions), stale.clone());
            tokio::spawn(async move {
                match stale {
                    None => sessions.token(0).await,
                    Some(stale) => sessions.renew(0, &stale).await,
                }
            })
        }))
    };

    let first = all(None).await.remove(0).expect("no panic").expect("a token");
    let renewed = all(Some(first)).await;

    let second = |token: &Arc<Token>| token.generation() == 2;
    assert!(renewed.iter().all(|task| task.as_ref().is_ok_and(|t| t.as_ref().is_ok_and(second))));
    assert_eq!(world.auth.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_cancels_nothing() {
    let world = World::new().await;
    world.auth.hold();
    let sessions = Arc::clone(&world.sessions);
    let caller = tokio::spawn(async move { sessions.token(0).await.map(drop) });
    until(|| world.auth.logins() == 1).await;

    caller.abort();
    assert!(caller.await.expect_err("aborted").is_cancelled());
    world.auth.release();

    until(|| world.sessions.current(0).is_some()).await;
    assert_eq!(world.auth.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn late_refusals_of_an_old_token_cause_no_login() {
    let world = World::new().await;
    let old = world.sessions.token(0).await.expect("a token");
    let new = world.sessions.renew(0, &old).await.expect("a token");

    let late = join_all((0..100).map(|_| world.sessions.renew(0, &old))).await;

    assert_eq!((old.generation(), new.generation()), (1, 2));
    assert!(late.iter().all(|token| token.as_ref().is_ok_and(|token| token.generation() == 2)));
    assert_eq!(world.auth.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_refusals_at_once_cause_one_login() {
    let world = World::new().await;
    let dead = world.sessions.token(0).await.expect("a token");

    let renewed = join_all((0..100).map(|_| world.sessions.renew(0, &dead))).await;

    assert!(renewed.iter().all(|token| token.as_ref().is_ok_and(|token| token.generation() == 2)));
    assert_eq!(world.auth.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_tried_once() {
    for fault in [
        Fault::Status(401),
        Fault::Code("AUTH"),
        Fault::Code("INACTIVE_USER"),
        Fault::BareCode("SECURITY"),
        Fault::Body(r#"{"challenge":2,"jwtToken":"","session":"c21z"}"#.to_owned()),
        Fault::Body(r#"{"challenge":1,"jwtToken":"","session":"no secret for it"}"#.to_owned()),
    ] {
        let world = World::new().await;
        world.auth.fail_next("login", fault.clone());

        let first = world.sessions.token(0).await;
        let more = join_all((0..50).map(|_| world.sessions.token(0))).await;
        world.pass(10 * MINUTE).await;
        let later = world.sessions.token(0).await;

        assert!(matches!(first, Err(Error::Refused { .. })), "{fault:?}: {first:?}");
        assert!(more.iter().all(|token| matches!(token, Err(Error::Refused { .. }))));
        assert!(matches!(later, Err(Error::Refused { .. })));
        assert_eq!(world.auth.logins(), 1, "{fault:?}");
        assert_eq!(world.status().state, State::Latched);
        assert!(world.status().failure.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_is_tried_and_the_old_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong\n").expect("a file");
    let world = World::with(credentials(secret_file(&file), None)).await;
    assert!(matches!(world.sessions.token(0).await, Err(Error::Refused { .. })));
    world.pass(MINUTE).await;
    assert!(matches!(world.sessions.token(0).await, Err(Error::Refused { .. })));

    std::fs::write(&file, format!("{PASSWORD}\n")).expect("a file");
    world.pass(3 * SECOND).await;
    let token = world.sessions.token(0).await;

    assert_eq!(token.expect("a token").generation(), 1);
    assert_eq!(world.auth.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_end_the_latch() {
    let world = World::new().await;
    world.auth.fail_next("login", Fault::Status(401));
    assert!(world.sessions.token(0).await.is_err());

    let token = world.sessions.refresh(0).await;

    assert_eq!(token.expect("a token").generation(), 1);
}

#[tokio::test(start_paused = true)]
async fn answers_that_decide_nothing_are_survived_each() {
    let page = "<html>Bad gateway</html>";
    for (call, fault) in [
        ("request_token", Fault::Body(String::new())),
        ("request_token", Fault::Body("null".to_owned())),
        ("request_token", Fault::Body("\"\"".to_owned())),
        ("request_token", Fault::Body(page.to_owned())),
        ("request_token", Fault::Body("x".repeat(100_000))),
        ("request_token", Fault::Status(401)),
        ("request_token", Fault::Hangup),
        ("login", Fault::Body(String::new())),
        ("login", Fault::Body("null".to_owned())),
        ("login", Fault::Body("[]".to_owned())),
        ("login", Fault::Body("{}".to_owned())),
        ("login", Fault::Body(page.to_owned())),
        ("login", Fault::Body(r#"{"challenge":0,"jwtToken":""}"#.to_owned())),
        ("login", Fault::Body(r#"{"challenge":0,"jwtToken":7}"#.to_owned())),
        ("login", Fault::Body(r#"{"challenge":0,"jwtToken":"a\r\nb"}"#.to_owned())),
        ("login", Fault::Body(r#"{"challenge":1,"session":null}"#.to_owned())),
        ("login", Fault::Body(format!(r#"{{"challenge":0,"jwtToken":"{}"}}"#, jwt(1, 1)))),
        ("login", Fault::Body("x".repeat(100_000))),
        ("login", Fault::Status(500)),
        ("login", Fault::Status(404)),
        ("login", Fault::Code("COGNITO")),
        ("login", Fault::Status(499)),
        ("login", Fault::Hangup),
    ] {
        let world = World::new().await;
        world.auth.fail_next(call, fault.clone());

        let failure = world.sessions.token(0).await;
        world.pass(5 * SECOND).await;
        let token = world.sessions.token(0).await;

        let retry_after = failure.as_ref().expect_err("a failure").retry_after();
        assert!(matches!(failure, Err(Error::Unavailable { .. })), "{call} {fault:?}: {failure:?}");
        assert!(retry_after.is_some_and(|pause| pause >= SECOND), "{call} {fault:?}");
        assert!(token.is_ok(), "{call} {fault:?}: {token:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn strings_may_be_quoted_or_bare_and_unused_fields_may_be_anything() {
    let token = jwt(1_900_000_000, 1);
    for answer in [
        format!(r#"{{"challenge":0,"jwtToken":"{token}"}}"#),
        format!(r#"{{"challenge":0,"jwtToken":"{token}","session":null}}"#),
        format!(r#"{{"challenge":0,"jwtToken":"{token}","session":"","more":[1]}}"#),
        format!(r#"{{"challenge":null,"jwtToken":"{token}"}}"#),
        format!(r#"{{"jwtToken":"{token}","session":"x"}}"#),
    ] {
        for request_token in ["\"rt-1\"", "rt-1", " rt-1\r\n", "\u{feff}\"rt-1\"", "\"rt\\u002d1\""]
        {
            let world = World::new().await;
            world.auth.fail_next("request_token", Fault::Body(request_token.to_owned()));
            world.auth.fail_next("login", Fault::Body(answer.clone()));

            let got = world.sessions.token(0).await.expect(&answer);

            assert_eq!(got.jwt().expose_secret(), token);
            assert_eq!(got.bearer(), &format!("Bearer {token}"));
            assert!(got.bearer().is_sensitive());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_has_a_request_token_of_its_own() {
    for quoted in [true, false] {
        let world = World::with(credentials(secret(PASSWORD), Some(SEED))).await;
        world.auth.script().mfa = true;
        world.auth.script().quoted = quoted;
        world.auth.fail_next("mfa_respond", Fault::Code("TOKEN"));
        world.auth.fail_next("login", Fault::BareCode("TOKEN"));

        let token = world.sessions.token(0).await.expect("a token");
        world.sessions.shutdown(MINUTE).await;

        let script = world.auth.script();
        assert!(token.second_factor());
        assert_eq!((script.reused, script.bodyless_without_length), (0, 0));
        assert_eq!(script.logins.len(), 2);
        assert_eq!(script.logouts.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn request_tokens_that_are_never_accepted_are_tried_twice() {
    let world = World::new().await;
    world.auth.fail_next("login", Fault::Code("TOKEN"));
    world.auth.fail_next("login", Fault::Code("TOKEN"));

    let failure = world.sessions.token(0).await;

    assert!(matches!(failure, Err(Error::RequestToken { .. })), "{failure:?}");
    assert_eq!(world.auth.logins(), 2);
    assert_eq!(world.status().state, State::BackingOff);
}

#[tokio::test(start_paused = true)]
async fn too_many_sessions_are_waited_out() {
    let world = World::new().await;
    world.auth.fail_next("login", Fault::Code("SESSION_MAXOUT"));

    let failure = world.sessions.token(0).await;
    let state = world.status().state;
    world.pass(29 * SECOND).await;
    let early = world.auth.logins();
    world.pass(32 * SECOND).await;

    assert!(matches!(failure, Err(Error::SessionLimit { .. })), "{failure:?}");
    assert_eq!((state, early), (State::Quota, 1));
    assert!(world.sessions.token(0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_met_with_few_logins_and_longer_and_longer_pauses() {
    let world = World::new().await;
    world.auth.script().down = Some(Fault::Status(500));
    world
        .auth
        .script()
        .faults
        .extend((0..10_000).map(|_| ("request_token", Fault::Body("\"rt-1\"".to_owned()))));

    for _ in 0..3 * 60 {
        world.pass(MINUTE).await;
        let failures = join_all((0..20).map(|_| world.sessions.token(0))).await;
        assert!(failures.iter().all(Result::is_err));
    }

    let logins = world.auth.script().logins.clone();
    let pauses: Vec<_> = logins.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= SECOND), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 302 * SECOND), "{pauses:?}");
    // 36 at the cap; on average twice as many with full jitter.
    assert!((36..200).contains(&logins.len()), "{} logins in 3 hours", logins.len());
}

#[tokio::test(start_paused = true)]
async fn the_host_is_left_alone_as_long_as_it_asks() {
    let world = World::new().await;
    world.auth.fail_next("login", Fault::RetryAfter(120));

    let failure = world.sessions.token(0).await.expect_err("a failure");
    world.pass(100 * SECOND).await;
    let early = world.sessions.token(0).await.expect_err("a failure");
    world.pass(21 * SECOND).await;

    assert_eq!(failure.retry_after(), Some(120 * SECOND));
    assert_eq!(early.retry_after(), Some(20 * SECOND));
    assert!(world.sessions.token(0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_is_given_up() {
    let world = World::new().await;
    world.auth.hold();
    let sessions = Arc::clone(&world.sessions);
    let caller = tokio::spawn(async move { sessions.token(0).await });
    until(|| world.auth.logins() == 1).await;

    tokio::time::advance(31 * SECOND).await;
    let failure = caller.await.expect("no panic").expect_err("a failure");

    assert!(
        matches!(&failure, Error::Unavailable { reason, .. } if reason.contains("within 30 s"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_expires_and_serves_until_then() {
    let world = World::new().await;
    world.settle().await;

    for _ in 0..5 * 60 {
        world.pass(MINUTE).await;
        assert!(world.sessions.current(0).is_some());
    }

    // Four fifths of an hour each, a little less because of jitter.
    assert!((6..=8).contains(&world.auth.logins()), "{}", world.auth.logins());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_read_serves_for_its_maximum_age() {
    let identity = Identity { max_age: HOUR, ..identity(password(PASSWORD)) };
    let world = World::with_identity(identity).await;
    world.auth.script().readable = false;

    let token = world.sessions.token(0).await.expect("a token");
    world.auth.script().down = Some(Fault::Status(503));
    world.pass(59 * MINUTE).await;
    let within = world.sessions.current(0).is_some();
    world.pass(MINUTE).await;

    assert_eq!(token.expires(), None);
    assert!(within);
    assert!(world.sessions.current(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_failing_renewal_takes_nothing_away_until_expiry() {
    let world = World::new().await;
    let token = world.sessions.token(0).await.expect("a token");
    world.auth.script().down = Some(Fault::Status(503));

    world.pass(59 * MINUTE).await;
    let late = world.sessions.token(0).await.expect("the old token");
    world.pass(MINUTE).await;
    let over = world.sessions.token(0).await;

    assert_eq!(late.generation(), token.generation());
    assert!(matches!(over, Err(Error::Unavailable { .. })), "{over:?}");
    assert!(!world.status().serving);
    assert!(world.sessions.current(0).is_none(), "an expired token is never handed out");

    world.auth.script().down = None;
    world.pass(6 * MINUTE).await;
    assert_eq!(world.sessions.current(0).expect("recovered").generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn refused_renewals_leave_the_old_token_in_force() {
    let world = World::new().await;
    let token = world.sessions.token(0).await.expect("a token");
    world.auth.script().password = "changed meanwhile".to_owned();

    world.pass(55 * MINUTE).await;

    assert_eq!(world.sessions.current(0).expect("the old token").generation(), token.generation());
    assert_eq!((world.status().state, world.status().serving), (State::Latched, true));
    assert_eq!(world.auth.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn expiry_is_told_by_the_hosts_clock() {
    for ahead in [SignedDuration::from_hours(2), SignedDuration::from_hours(-2)] {
        let world = World::new().await;
        world.auth.script().ahead = ahead;

        let token = world.sessions.token(0).await.expect("a token");
        let lifetime = token.expires().expect("readable").duration_since(world.clock.now());
        world.auth.script().down = Some(Fault::Status(503));
        world.pass(58 * MINUTE).await;
        let within = world.sessions.current(0).is_some();
        world.pass(3 * MINUTE).await;

        assert!((lifetime - SignedDuration::from_hours(1)).abs() <= SignedDuration::from_secs(1));
        assert!(within);
        assert!(world.sessions.current(0).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_refuses_every_token_does_not_cause_a_login_each_time() {
    let world = World::new().await;
    let mut token = world.sessions.token(0).await.expect("a token");

    let mut refused = None;
    for _ in 0..100 {
        match world.sessions.renew(0, &token).await {
            Ok(newer) => {
                // The route refuses this one as well.
                world.sessions.doubt(0, &newer);
                token = newer;
            }
            Err(error) => refused = Some(error),
        }
    }

    assert!((3..=8).contains(&world.auth.logins()), "{}", world.auth.logins());
    assert!(refused.expect("a limit").retry_after().is_some_and(|pause| pause <= 15 * SECOND));
    assert!(world.sessions.current(0).is_some());
    world.pass(16 * SECOND).await;
    assert!(world.sessions.renew(0, &token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn no_code_is_used_twice() {
    let world = World::with(credentials(secret(PASSWORD), Some(SEED))).await;
    world.auth.script().mfa = true;
    let first = world.sessions.token(0).await.expect("a token");

    let sessions = Arc::clone(&world.sessions);
    let again = tokio::spawn(async move { sessions.renew(0, &first).await });
    let second = world.outcome(again).await.expect("a token");

    assert_eq!(second.generation(), 2);
    let codes = world.auth.script().codes.clone();
    assert_eq!(codes.len(), 2);
    assert_ne!(codes[0], codes[1]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_code_is_followed_by_one_of_the_next_step_and_then_by_none() {
    for wrong in [1, 2] {
        let world = World::with(credentials(secret(PASSWORD), Some(SEED))).await;
        world.auth.script().mfa = true;
        for _ in 0..wrong {
            world.auth.fail_next("mfa_respond", Fault::Code("TOTP"));
        }
        let sessions = Arc::clone(&world.sessions);
        let caller = tokio::spawn(async move { sessions.token(0).await });

        let outcome = world.outcome(caller).await;

        assert_eq!(outcome.is_ok(), wrong == 1, "{outcome:?}");
        assert_eq!(world.auth.logins(), 2);
        if wrong == 2 {
            assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
            world.pass(10 * MINUTE).await;
            assert!(world.sessions.token(0).await.is_err());
            assert_eq!(world.auth.logins(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn codes_are_made_by_the_hosts_clock() {
    let world = World::with(credentials(secret(PASSWORD), Some(SEED))).await;
    world.auth.script().mfa = true;
    world.auth.script().ahead = SignedDuration::from_mins(7);
    let sessions = Arc::clone(&world.sessions);
    let caller = tokio::spawn(async move { sessions.token(0).await });

    let token = world.outcome(caller).await;

    assert!(token.is_ok(), "{token:?}");
    assert_eq!(world.auth.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_totp_secret_that_makes_no_codes_is_noticed_before_the_password_is_sent() {
    let world = World::with(credentials(secret(PASSWORD), Some("not base32!"))).await;

    let failure = world.sessions.token(0).await;

    assert!(matches!(failure, Err(Error::Refused { .. })), "{failure:?}");
    assert_eq!(world.auth.logins(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_api_token_needs_no_login_and_its_refusal_is_final() {
    let world = World::with(Credentials::ApiToken(secret(API_TOKEN))).await;

    let token = world.sessions.token(0).await.expect("a token");
    let renewed = world.sessions.renew(0, &token).await;
    world.pass(MINUTE).await;
    world.sessions.shutdown(MINUTE).await;

    assert_eq!(token.bearer(), &format!("Bearer {API_TOKEN}"));
    assert!(matches!(renewed, Err(Error::ApiToken { .. })), "{renewed:?}");
    assert!(renewed.expect_err("final").retry_after().is_none());
    assert_eq!(world.auth.logins(), 0);
    assert!(world.auth.script().logouts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_api_token_that_has_expired_is_not_sent_and_a_new_one_is_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, jwt(1_800_000_060, 1)).expect("a file");
    let world = World::with(Credentials::ApiToken(secret_file(&file))).await;
    assert!(world.sessions.token(0).await.is_ok());

    world.pass(MINUTE + SECOND).await;
    let expired = world.sessions.token(0).await;
    std::fs::write(&file, jwt(1_900_000_000, 2)).expect("a file");
    world.pass(20 * SECOND).await;

    assert!(matches!(expired, Err(Error::ApiToken { .. })), "{expired:?}");
    assert_eq!(world.sessions.current(0).expect("the new one").generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_api_token_is_taken_over_once_it_is_proved() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "old.api.token").expect("a file");
    let world = World::with(Credentials::ApiToken(secret_file(&file))).await;
    let old = world.sessions.token(0).await.expect("a token");

    std::fs::write(&file, "new.api.token\n").expect("a file");
    world.pass(3 * SECOND).await;
    let new = world.sessions.token(0).await.expect("a token");
    let late = world.sessions.renew(0, &old).await.expect("a token");

    assert_eq!(new.bearer(), "Bearer new.api.token");
    assert_eq!((new.generation(), late.generation()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_signed_in_at_a_place_that_is_not_configured() {
    let world = World::new().await;

    let failure = world.sessions.token(7).await;

    assert!(matches!(failure, Err(Error::UnknownIdentity(7))), "{failure:?}");
    assert!(world.sessions.current(7).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_logs_out_once_and_ends_everything() {
    let world = World::new().await;
    let token = world.sessions.token(0).await.expect("a token");

    world.sessions.shutdown(MINUTE).await;
    world.sessions.shutdown(MINUTE).await;
    let after = world.sessions.token(0).await;

    assert_eq!(world.auth.script().logouts, [token.jwt().expose_secret()]);
    assert!(matches!(after, Err(Error::BrokenOff { .. })), "{after:?}");
    world.pass(2 * HOUR).await;
    assert_eq!(world.auth.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_under_way_at_shutdown_is_logged_out_too() {
    let world = World::new().await;
    world.auth.hold();
    until(|| world.auth.logins() == 1).await;

    let sessions = Arc::clone(&world.sessions);
    let shutdown = tokio::spawn(async move { sessions.shutdown(MINUTE).await });
    tokio::task::yield_now().await;
    world.auth.release();
    shutdown.await.expect("no panic");

    assert_eq!(world.auth.script().logouts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_session_is_ended_a_little_later() {
    let world = World::new().await;
    let old = world.sessions.token(0).await.expect("a token");

    world.pass(48 * MINUTE).await;
    let new = world.sessions.current(0).expect("a token");
    world.pass(MINUTE).await;

    assert_eq!(new.generation(), 2);
    assert_eq!(world.auth.script().logouts, [old.jwt().expose_secret()]);
    world.sessions.shutdown(MINUTE).await;
    assert_eq!(world.auth.script().logouts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_to_end_a_replaced_session() {
    let world = World::new().await;
    world.sessions.token(0).await.expect("a token");
    world.pass(47 * MINUTE).await;
    while world.auth.logins() < 2 {
        world.pass(SECOND).await;
    }

    let before = tokio::time::Instant::now();
    world.sessions.shutdown(MINUTE).await;

    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(world.auth.script().logouts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_appears_late_is_found_soon() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    let world = World::with(credentials(secret_file(&file), None)).await;
    world.pass(2 * HOUR).await;
    let missing = world.sessions.token(0).await;

    std::fs::write(&file, PASSWORD).expect("a file");
    world.pass(6 * SECOND).await;

    assert!(
        matches!(&missing, Err(Error::Credentials { reason, .. }) if reason.contains("password")),
        "{missing:?}"
    );
    assert!(world.sessions.current(0).is_some());
    assert_eq!(world.auth.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_no_longer_than_it_may() {
    let world = World::new().await;
    world.auth.hold();
    until(|| world.auth.logins() == 1).await;

    let sessions = Arc::clone(&world.sessions);
    let shutdown = tokio::spawn(async move { sessions.shutdown(5 * SECOND).await });
    tokio::task::yield_now().await;
    tokio::time::advance(6 * SECOND).await;

    shutdown.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn without_logout_on_shutdown_the_session_is_left_open() {
    let identity = Identity { logout_on_shutdown: false, ..identity(password(PASSWORD)) };
    let world = World::with_identity(identity).await;
    world.sessions.token(0).await.expect("a token");

    world.sessions.shutdown(MINUTE).await;

    assert!(world.auth.script().logouts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_token_is_fresh_each_time() {
    let world = World::new().await;

    let first = world.sessions.request_token().await.expect("a request token");
    let second = world.sessions.request_token().await.expect("a request token");
    world.auth.fail_next("request_token", Fault::Status(503));
    let failure = world.sessions.request_token().await;

    assert_ne!(first.expose_secret(), second.expose_secret());
    assert!(matches!(failure, Err(Error::NoRequestToken { .. })), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_wanted_earlier_than_a_token_lives_makes_no_loop() {
    let identity =
        Identity { refresh_ahead: RefreshAhead::Before(6 * HOUR), ..identity(password(PASSWORD)) };
    let world = World::with_identity(identity).await;

    world.pass(5 * HOUR).await;

    assert!(world.auth.logins() <= 12, "{}", world.auth.logins());
}

#[tokio::test(start_paused = true)]
async fn what_prints_shows_no_secret() {
    let world = World::with(credentials(secret(PASSWORD), Some(SEED))).await;
    let token = world.sessions.token(0).await.expect("a token");
    let mut printed = format!("{token:?} {:?} {:?}", world.sessions, token.bearer());
    for (call, fault) in [
        ("login", Fault::Body(format!(r#"{{"challenge":"{PASSWORD}"}}"#))),
        ("login", Fault::Body(format!(r#"{{"challenge":0,"jwtToken":["{PASSWORD}"]}}"#))),
        ("request_token", Fault::Body(format!("\"{PASSWORD}"))),
        ("login", Fault::Code("AUTH")),
    ] {
        world.pass(10 * MINUTE).await;
        world.auth.fail_next(call, fault);
        let stale: &Token = &world.sessions.token(0).await.expect("a token");
        let error = world.sessions.renew(0, stale).await.expect_err("a failure");
        printed += &format!("{error} {error:?} {}", super::error::sentence(&error));
        let status = world.sessions.status();
        printed += &format!("{status:?} {}", serde_json::to_string(&status).expect("JSON"));
    }

    for secret in [PASSWORD, SEED, token.jwt().expose_secret(), "rt-0"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
    assert!(printed.contains("AUTH"), "{printed}");
}
