//! A fleet and its Redis.

use jiff::SignedDuration;

use super::super::{
    Claim, Error, Failure, Left, Note, OpenError, Put, Retired, Revision, Shelf, Step, Store,
    testing::{RedisServer, at, binding, entry, jwt, key, store},
};
use crate::{
    clock::Clock,
    config::{SessionStore, StoreError, StoreKind},
    session::login::Fingerprint,
};

const TOKEN: &str = "canary.jwt.of-a-session";

/// A Redis and two members of a fleet, each with a connection of its own.
fn fleet() -> Option<(RedisServer, Shelf, Shelf)> {
    let redis = RedisServer::start()?;
    let (first, second) = (redis.store(key(1)).main(), redis.store(key(1)).main());
    Some((redis, first, second))
}

async fn members(shelf: &Shelf) -> usize {
    shelf.look(None).await.expect("an answer").members
}

#[tokio::test]
async fn a_claim_has_three_answers() {
    let Some((mut redis, first, second)) = fleet() else { return };

    let mine = first.claim().await;
    let others = second.claim().await;
    redis.kill();
    let error = second.claim().await;

    assert!(matches!(mine, Ok(Claim::Mine(..))));
    assert!(matches!(others, Ok(Claim::Others)));
    assert!(matches!(error, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn what_one_member_writes_the_others_see() {
    let Some((_redis, first, second)) = fleet() else { return };
    let before = second.look(None).await.expect("an answer");

    first.write(&entry(TOKEN)).await;
    let after = second.look(Some(before.revision)).await.expect("an answer");

    assert!(before.entry.is_some_and(|entry| entry.session.is_none()));
    assert_eq!(after.entry.as_ref().and_then(jwt), Some(TOKEN));
    assert_eq!(after.members, 2);
}

#[tokio::test]
async fn an_entry_is_shown_again_only_when_it_is_another() {
    let Some((_redis, first, second)) = fleet() else { return };
    let (lease, _) = first.claim_mine().await;
    let Ok(Put::Done(written)) = first.put(lease, &entry("one")).await else { panic!("not put") };

    let same = second.look(Some(written)).await.expect("an answer");
    first.write(&entry("two")).await;
    let other = second.look(Some(written)).await.expect("an answer");

    assert!(same.entry.is_none());
    assert_eq!(other.entry.as_ref().and_then(jwt), Some("two"));
    assert_ne!(other.revision, written);
}

#[tokio::test]
async fn who_claims_sees_the_entry_as_it_stands() {
    let Some((_redis, first, second)) = fleet() else { return };
    first.write(&entry(TOKEN)).await;

    let (_lease, found) = second.claim_mine().await;

    assert_eq!(jwt(&found), Some(TOKEN));
}

#[tokio::test]
async fn a_lease_given_back_is_anybodys() {
    let Some((_redis, first, second)) = fleet() else { return };
    let (lease, _) = first.claim_mine().await;
    assert!(first.renew(&lease).await.expect("an answer"));

    first.give_back(lease).await;

    second.claim_mine().await;
}

#[tokio::test]
async fn the_lease_of_who_is_gone_is_taken_over() {
    let Some((redis, first, second)) = fleet() else { return };
    let (old, _) = first.claim_mine().await;
    redis.age_members();

    let (new, _) = second.claim_mine().await;
    let put = first.put(old, &entry("late")).await;

    assert_eq!(put.ok(), Some(Put::LeaseLost));
    assert!(second.renew(&new).await.expect("an answer"));
    assert!(second.read().await.session.is_none());
}

#[tokio::test]
async fn who_renews_is_not_gone() {
    let Some((redis, first, second)) = fleet() else { return };
    let (lease, _) = first.claim_mine().await;
    redis.age_members();

    assert!(first.renew(&lease).await.expect("an answer"));

    assert!(matches!(second.claim().await, Ok(Claim::Others)));
}

#[tokio::test]
async fn a_lease_that_was_dropped_keeps_only_the_others_away() {
    let Some((_redis, first, second)) = fleet() else { return };
    let (held, _) = first.claim_mine().await;
    let while_held = first.claim().await;

    drop(held);
    let others = second.claim().await;
    let (new, _) = first.claim_mine().await;

    assert!(matches!(while_held, Ok(Claim::Others)));
    assert!(matches!(others, Ok(Claim::Others)));
    assert_eq!(first.put(new, &entry(TOKEN)).await.ok().map(is_done), Some(true));
}

fn is_done(put: Put) -> bool {
    matches!(put, Put::Done(_))
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_can_be_asked_again() {
    let Some((redis, _, _)) = fleet() else { return };
    let store = redis.store(key(1));
    let Store::Redis(store) = &store else { panic!("a Redis") };
    let place = store.place(&binding("main"), &Clock::system());
    let (lease, _) = place.claim().await.expect("an answer").expect("a lease");
    let again = super::Lease(std::sync::Arc::clone(&lease.0));

    let put = place.put(lease, &entry(TOKEN)).await.expect("an answer");
    let once_more = place.put(again, &entry(TOKEN)).await.expect("an answer");

    assert!(is_done(put));
    assert_eq!(put, once_more);
}

#[tokio::test]
async fn only_the_last_takes_the_entry_along() {
    let Some((redis, first, second)) = fleet() else { return };
    first.write(&entry(TOKEN)).await;
    assert_eq!(members(&second).await, 2);
    first.take_step(90, 30).await.expect("an answer");

    let left = [first.leave().await, second.leave().await, second.leave().await];

    let [Ok(Left::Others { seen }), Ok(Left::Nobody(last)), Ok(Left::Nobody(empty))] = left else {
        panic!("{left:?}")
    };
    assert!(seen < super::MEMBER_GONE);
    assert_eq!(jwt(&last), Some(TOKEN));
    assert!(empty.session.is_none());
    assert_eq!(redis.keys(), [redis.key_of(":step")]);
}

#[tokio::test]
async fn who_is_gone_keeps_nobody_from_taking_the_entry_along() {
    let Some((redis, first, second)) = fleet() else { return };
    first.write(&entry(TOKEN)).await;
    redis.age_members();

    let left = second.leave().await;

    assert!(matches!(left, Ok(Left::Nobody(entry)) if jwt(&entry) == Some(TOKEN)));
}

#[tokio::test]
async fn all_members_leaving_at_once_leave_one_entry() {
    let Some(redis) = RedisServer::start() else { return };
    let store = redis.store(key(1));
    let shelves: Vec<_> = std::iter::repeat_with(|| store.main()).take(20).collect();
    shelves[0].write(&entry(TOKEN)).await;
    futures_util::future::join_all(shelves.iter().map(members)).await;

    let left = futures_util::future::join_all(shelves.iter().map(Shelf::leave)).await;

    let nobody = |left: &Result<Left, Error>| matches!(left, Ok(Left::Nobody(entry)) if jwt(entry) == Some(TOKEN));
    assert_eq!(left.iter().filter(|left| nobody(left)).count(), 1);
}

#[tokio::test]
async fn one_of_many_gets_the_lease() {
    let Some(redis) = RedisServer::start() else { return };
    let store = redis.store(key(1));
    let shelves: Vec<_> = std::iter::repeat_with(|| store.main()).take(20).collect();

    let claims = futures_util::future::join_all(shelves.iter().map(Shelf::claim)).await;

    let mine = claims.iter().filter(|claim| matches!(claim, Ok(Claim::Mine(..))));
    assert_eq!(mine.count(), 1);
}

#[tokio::test]
async fn a_redis_that_comes_back_is_used_again() {
    let Some((mut redis, first, second)) = fleet() else { return };
    first.write(&entry("one")).await;
    let before = second.look(None).await.expect("an answer").revision;

    redis.kill();
    let meanwhile = second.look(None).await;
    redis.restart();
    first.write(&entry("two")).await;
    let after = second.look(Some(before)).await.expect("an answer");

    assert!(meanwhile.is_err());
    assert_eq!(after.entry.as_ref().and_then(jwt), Some("two"));
}

#[tokio::test]
async fn a_broken_connection_is_nothing_to_notice() {
    let Some((redis, first, _)) = fleet() else { return };
    first.write(&entry(TOKEN)).await;

    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);

    assert_eq!(jwt(&first.read().await), Some(TOKEN));
}

#[tokio::test]
async fn members_whose_clocks_differ_agree() {
    let Some(redis) = RedisServer::start() else { return };
    let store = redis.store(key(1));
    let (right, wrong) = (Clock::system(), Clock::following(at(1_000_000)));
    let (first, second) =
        (store.shelf(&binding("main"), &right), store.shelf(&binding("main"), &wrong));
    let soon = SignedDuration::from_secs(600);
    let mut written = entry(TOKEN);
    written.denials_paid = Some(right.now() + soon);

    first.write(&written).await;
    let read = second.read().await;
    second.write(&read).await;
    let back = first.read().await;

    let off = |time: Option<jiff::Timestamp>, expected| {
        time.expect("a time").duration_since(expected).abs()
    };
    let noise = SignedDuration::from_secs(5);
    assert!(off(read.denials_paid, wrong.now() + soon) < noise);
    assert!(off(back.denials_paid, right.now() + soon) < noise);
}

#[tokio::test]
async fn a_step_is_taken_once_by_all_members_and_whatever_key_they_seal_with() {
    let Some((redis, first, second)) = fleet() else { return };
    let stranger = redis.store(key(2)).main();

    let taken = [
        first.take_step(90, 30).await.ok(),
        second.take_step(90, 30).await.ok(),
        stranger.take_step(60, 30).await.ok(),
        stranger.take_step(120, 30).await.ok(),
        first.take_step(30, 30).await.ok(),
    ];

    let expected = [
        Step::Taken,
        Step::UsedUntil(90),
        Step::UsedUntil(90),
        Step::Taken,
        // 120 is too far ahead: it was counted by a clock that has since been put right.
        Step::Taken,
    ];
    assert_eq!(taken, expected.map(Some));
}

#[tokio::test]
async fn members_with_another_key_are_another_fleet() {
    let Some((redis, first, _)) = fleet() else { return };
    let stranger = redis.store(key(2)).main();
    first.write(&entry(TOKEN)).await;

    let seen = stranger.look(None).await.expect("an answer");
    stranger.write(&entry("another")).await;

    assert_eq!(seen.members, 1);
    assert!(seen.entry.is_some_and(|entry| entry.session.is_none()));
    assert_eq!(jwt(&first.read().await), Some(TOKEN));
}

#[tokio::test]
async fn what_was_tampered_with_counts_as_empty_and_is_replaced() {
    let Some((redis, first, second)) = fleet() else { return };
    first.write(&entry("one")).await;
    let key = redis.key_of(":session");

    for rubbish in ["", "rubbish", &"x".repeat(300 * 1024)] {
        redis.ask(&["HSET", &key, "sealed", rubbish]);
        assert!(second.read().await.session.is_none(), "{} bytes", rubbish.len());
    }
    second.write(&entry("two")).await;

    assert_eq!(jwt(&first.read().await), Some("two"));
}

#[tokio::test]
async fn tls_takes_its_roots_from_the_ca_file() {
    let Some(redis) = RedisServer::start_with_tls() else { return };
    let open =
        |ca_file| store(StoreKind::Redis { url: redis.tls_url().into(), ca_file, key: key(1) });
    let (known, unknown) = (open(Some(redis.folder().join("ca.pem"))).main(), open(None).main());

    known.write(&entry(TOKEN)).await;
    let error = unknown.look(None).await.expect_err("nobody vouches for it");

    assert_eq!(jwt(&known.read().await), Some(TOKEN));
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn nobody_reads_a_secret_in_redis_or_in_an_error() {
    let Some(redis) = RedisServer::start() else { return };
    redis.ask(&["ACL", "SETUSER", "gateway", "on", ">canary-password", "~*", "+@all"]);
    let url = format!("{}?user=gateway&pass=canary-password", redis.url());
    let wrong = format!("{}?user=gateway&pass=canary-passw0rd", redis.url());
    let open =
        |url: String| store(StoreKind::Redis { url: url.into(), ca_file: None, key: key(1) });
    let (opened, refused) = (open(url), open(wrong));
    let shelf = opened.main();
    let mut written = entry(TOKEN);
    written.retired =
        vec![Retired { id: uuid::Uuid::now_v7(), jwt: TOKEN.into(), from: at(1_800_000_000) }];
    written.note = Some(Note {
        failure: Failure::Refused,
        reason: "canary of a reason".into(),
        tried: Fingerprint::of(&["password"]),
        until: at(1_800_000_000),
        failures: 1,
    });
    shelf.write(&written).await;
    let (_lease, _) = shelf.claim_mine().await;

    let stored: Vec<_> = redis.keys().iter().map(|key| redis.ask(&["DUMP", key])).collect();
    let error = refused.main().look(None).await.expect_err("the password is wrong");

    let entry = redis.ask(&["HGETALL", &redis.key_of(":session")]);
    let told =
        format!("{stored:?} {entry:?} {:?} {opened:?} {shelf:?} {error} {error:?}", redis.keys());
    let bytes: Vec<u8> = stored.into_iter().flat_map(bytes_of).collect();
    for text in [told, String::from_utf8_lossy(&bytes).into_owned()] {
        assert!(!text.contains("canary"), "{text}");
    }
    assert!(error.to_string().contains("session_store.url"), "{error}");
}

fn bytes_of(value: redis::Value) -> Vec<u8> {
    redis::from_redis_value(value).expect("bytes")
}

#[tokio::test]
async fn a_redis_that_hangs_costs_little() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let shelf = store(StoreKind::Redis { url: url.into(), ca_file: None, key: key(1) }).main();
    let started = std::time::Instant::now();

    let look = shelf.look(Some(Revision(7))).await;

    assert!(look.expect_err("it hangs").to_string().contains("does not answer"));
    assert!(started.elapsed().as_secs() < 5);
}

#[tokio::test]
async fn a_redis_that_is_down_is_no_reason_not_to_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("unix:{}/nobody.sock", folder.path().display());

    let shelf = store(StoreKind::Redis { url: url.into(), ca_file: None, key: key(1) }).main();

    assert!(matches!(shelf.claim().await, Err(Error::Unavailable(_))));
}

#[test]
fn settings_that_cannot_work_are_told_at_once() {
    let open = |url: &str, ca_file| {
        let kind = StoreKind::Redis { url: url.into(), ca_file, key: key(1) };
        Store::open(&SessionStore { kind, on_error: StoreError::Local })
    };

    let urls = ["http://:canary@redis.test", "rediss://:canary@redis.test/#insecure", "canary"];
    for url in urls {
        let error = open(url, None).expect_err(url);
        assert!(matches!(error, OpenError::Url));
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
    let missing = open("rediss://redis.test", Some("/missing/ca.pem".into()));
    assert!(missing.expect_err("no file").to_string().contains("/missing/ca.pem"));
}
