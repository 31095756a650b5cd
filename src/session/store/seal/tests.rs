//! What is sealed stays secret, and nothing else is taken for it.

use jiff::Timestamp;
use proptest::{collection, option, prelude::*};
use uuid::Uuid;

use super::*;
use crate::session::{
    login::Fingerprint,
    store::{
        Failure, Note, Retired, Stored,
        testing::{binding, entry, jwt, key, logged},
    },
};

fn sealer() -> Sealer {
    Sealer::new(&key(1), &binding("main"))
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-10_000_000_000_000..100_000_000_000_000_i64)
        .prop_map(|time| Timestamp::from_millisecond(time).expect("a time"))
}

/// Marked, so that it can be found again.
fn token() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| format!("canary{text}"))
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    any::<String>().prop_map(|secret| Fingerprint::of(&[&secret]))
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

prop_compose! {
    fn session()(
        id in uuid(), jwt in token(), issued in time(), expires in option::of(time()),
        second_factor: bool, secrets in fingerprint(),
    ) -> Stored {
        Stored { id, jwt: jwt.into(), issued, expires, second_factor, secrets }
    }
}

prop_compose! {
    fn retired()(id in uuid(), jwt in token(), from in time()) -> Retired {
        Retired { id, jwt: jwt.into(), from }
    }
}

prop_compose! {
    fn note()(
        failure in prop::sample::select(vec![
            Failure::Refused, Failure::Quota, Failure::RequestToken, Failure::Transient,
        ]),
        reason in token(), tried in fingerprint(), until in time(), failures: u32,
    ) -> Note {
        Note { failure, reason: reason.into(), tried, until, failures }
    }
}

prop_compose! {
    fn entries()(
        session in option::of(session()),
        retired in collection::vec(retired(), 0..=MAX_RETIRED),
        note in option::of(note()), denials_paid in option::of(time()),
    ) -> Entry {
        Entry { session, retired, note, denials_paid }
    }
}

/// All of an entry, secrets included.
fn text(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("a text")
}

proptest! {
    #[test]
    fn what_is_sealed_can_be_unsealed_and_read_by_nobody_else(entry in entries()) {
        let sealed = sealer().seal(&entry).expect("sealed");

        let other_key = Sealer::new(&key(2), &binding("main")).unseal(&sealed);
        let other_binding = Sealer::new(&key(1), &binding("mail")).unseal(&sealed);
        let unsealed = sealer().unseal(&sealed).expect("unsealed");

        prop_assert_eq!(text(&unsealed), text(&entry));
        prop_assert_eq!(other_key.err(), Some(Unsealable::Foreign));
        prop_assert_eq!(other_binding.err(), Some(Unsealable::Foreign));
        prop_assert!(!sealed.windows(6).any(|bytes| bytes == b"canary"));
        let told = format!("{:?} {:?} {:?}", sealer(), unsealed.session, unsealed.retired);
        prop_assert!(!told.contains("canary"));
    }

    #[test]
    fn nothing_altered_is_unsealed(entry in entries(), at: prop::sample::Index, bit in 0..8_u32) {
        let mut sealed = sealer().seal(&entry).expect("sealed");
        let at = at.index(sealed.len());

        let truncated = sealer().unseal(&sealed[..at]);
        sealed[at] ^= 1 << bit;
        let flipped = sealer().unseal(&sealed);

        prop_assert!(truncated.is_err());
        prop_assert!(flipped.is_err());
    }

    #[test]
    fn rubbish_is_not_unsealed(rubbish in collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(sealer().unseal(&rubbish).is_err());
    }
}

/// As a gateway of another version may have sealed it.
fn seal_text(text: &str) -> Vec<u8> {
    let mut buffer = text.as_bytes().to_vec();
    let sealer = sealer();
    let cipher = sealer.cipher().expect("a key");
    let (nonce, tag) =
        cipher.seal_in_place_separate_tag(sealer.aad(), &mut buffer).expect("sealed");
    [&[VERSION][..], nonce.as_ref(), &buffer, tag.as_ref()].concat()
}

#[test]
fn fields_of_newer_gateways_are_passed_over() {
    let sealed = seal_text(r#"{"session": null, "note": null, "colour": "blue"}"#);

    assert!(sealer().unseal(&sealed).is_ok());
}

#[test]
fn a_text_that_is_no_entry_is_damaged() {
    for text in ["", "[]", r#"{"session": {"jwt": 7}}"#, r#"{"denials_paid": 9e99}"#] {
        let unsealed = sealer().unseal(&seal_text(text));

        assert_eq!(unsealed.err(), Some(Unsealable::Damaged), "{text}");
    }
}

#[test]
fn of_too_many_retired_sessions_the_newest_are_kept() {
    let retired = |number| Retired {
        id: Uuid::from_u128(number),
        jwt: "t".into(),
        from: Timestamp::UNIX_EPOCH,
    };
    let many = Entry { retired: (0..20).map(retired).collect(), ..Entry::default() };

    let unsealed = sealer().unseal(&sealer().seal(&many).expect("sealed")).expect("unsealed");

    let ids: Vec<_> = unsealed.retired.iter().map(|retired| retired.id.as_u128()).collect();
    assert_eq!(ids, (12..20).collect::<Vec<_>>());
}

#[test]
fn what_is_too_large_is_neither_sealed_nor_unsealed() {
    let huge = "x".repeat(LIMIT);

    assert!(sealer().seal(&entry(&huge)).is_err());
    assert_eq!(sealer().unseal(&vec![VERSION; LIMIT + 1]).err(), Some(Unsealable::Damaged));
}

#[test]
fn what_cannot_be_unsealed_is_told_once() {
    let sealer = sealer();
    let foreign = Sealer::new(&key(2), &binding("main")).seal(&entry("canary")).expect("sealed");

    let log = logged(|| {
        for sealed in [&foreign[..], &foreign, b"rubbish", b"rubbish"] {
            assert_eq!(jwt(&sealer.unseal_or_warn(sealed)), None);
        }
    });

    assert_eq!(log.matches("stored session ignored").count(), 2, "{log}");
    assert!(log.contains("another key") && log.contains("damaged"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}
