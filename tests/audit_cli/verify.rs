//! `audit verify`: a log that is whole, and every way in which it can be not.

use std::{fs, path::Path};

use amove_gateway::{
    audit::{self, Archive, ReadError},
    clock::Clock,
};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::Value;

use crate::{
    blocks::Kept,
    log::{Copied, Log},
    process_support::{stderr, stdout},
    traffic::{Busy, audit},
};

const DAYS: [&str; 3] = ["2026-03-01", "2026-03-02", "2026-03-03"];
/// Records of each day.
const RECORDS: u64 = 20;

/// A log of three days that nobody writes any more.
fn three_days(key: Option<&str>) -> Log {
    let mut log = Log::with_key(key);
    for day in DAYS {
        log.write(day, RECORDS);
    }
    log.close();
    log
}

/// The day that a record is of.
fn day_of(seq: u64) -> &'static str {
    DAYS[usize::try_from((seq - 1) / RECORDS).expect("few days")]
}

async fn verdict(folder: &Path, flags: &[&str]) -> (Option<i32>, Value) {
    let output = audit(&[&["verify", "--json"], flags].concat(), folder).await;
    let verdict = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.code() == Some(65) {
        let named = format!("the audit log is broken at record {}: ", verdict["seq"]);
        assert!(stderr(&output).contains(&named), "{}", stderr(&output));
    }
    (output.status.code(), verdict)
}

/// That the log is found to be broken, first at that record.
async fn assert_broken(what: &str, copy: &Copied, flags: &[&str], seq: u64) {
    let (code, verdict) = verdict(copy.folder(), flags).await;
    assert_eq!((code, &verdict["seq"]), (Some(65), &seq.into()), "{what} at {seq}: {verdict}");
    assert_eq!(verdict["ok"], false);
}

/// What somebody does to the records of a day, of which it is about the one at that place.
type Tamper = fn(&mut Vec<Kept>, usize);

#[rustfmt::skip] // a table reads in columns
const TAMPERS: [(&str, Tamper); 11] = [
    ("nothing was done to them",            |_, _| {}),
    ("a number was edited",                 |them, at| them[at].edit(|it| it.status = Some(204))),
    ("a text was edited",                   |them, at| them[at].edit(|it| it.caller = Some("b"))),
    ("its hash was edited",                 |them, at| them[at].hash = [0; 32]),
    ("what it does not show was edited",    |them, at| them[at].edit(|it| it.lost = 1)),
    ("something was hidden behind it",      |them, at| them[at].bytes.push(0)),
    ("it was cut short",                    |them, at| { them[at].bytes.pop(); }),
    ("it was removed",                      |them, at| drop(them.remove(at))),
    ("it was swapped with the one behind",  |them, at| { let to = (at + 1) % them.len(); them.swap(at, to) }),
    ("another was put in its place",        |them, at| them[at] = them[(at + 7) % them.len()].clone()),
    ("one was inserted",                    |them, at| {
        let mut forged = them[at].clone();
        forged.edit(|it| it.request_id = "forged");
        them.insert(at, forged);
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_gateway_is_whole_while_it_runs_and_afterwards() {
    let mut busy = Busy::after_traffic().await;

    let running = busy.audit(&["verify"]).await;
    busy.gateway.process.signal("TERM");
    assert_eq!(busy.gateway.process.exit_code().await, Some(0));
    let (code, ended) = verdict(&busy.store, &[]).await;

    assert_eq!(running.status.code(), Some(0), "{}", stderr(&running));
    assert!(
        stdout(&running).contains("audit log      whole and unchanged"),
        "{}",
        stdout(&running)
    );
    assert_eq!((code, &ended["ok"], &ended["first"]), (Some(0), &true.into(), &1.into()));
    let head = ended["head"].as_str().expect("a head");
    assert!(stdout(&running).contains(&format!("head           {head}")), "{}", stdout(&running));
    assert_eq!(verdict(&busy.store, &["--expect", head]).await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tampering_is_found_wherever_it_is() {
    let log = three_days(None);
    let (code, clean) = verdict(log.folder(), &[]).await;
    assert_eq!((code, &clean["records"]), (Some(0), &60.into()), "{clean}");

    for (what, tamper) in TAMPERS {
        // The first, one in the middle, and the last but one and the last of a day.
        for seq in [1, 30, 59, 60] {
            let copy = Copied::of(log.folder());
            let place = usize::try_from((seq - 1) % RECORDS).expect("few");
            copy.tamper(day_of(seq), |records| tamper(records, place));
            if what.starts_with("nothing") {
                assert_eq!(verdict(copy.folder(), &[]).await.0, Some(0));
                continue;
            }
            // Who is swapped with the last one from the end comes first.
            let first = if what.contains("swapped") && seq == 60 { 41 } else { seq };
            assert_broken(what, &copy, &[], first).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_blocks_are_missed_and_none_is_added() {
    let log = three_days(None);
    for (what, sql, seq) in [
        ("it was removed", "DELETE FROM blocks", 21),
        ("it was moved on", "UPDATE blocks SET first = first + 1", 21),
        ("it was moved back", "UPDATE blocks SET first = -1", 21),
        ("it was emptied", "UPDATE blocks SET records = x''", 21),
        ("nothing was added", "INSERT INTO blocks VALUES (41, x'')", 41),
        ("the hash before it was added", "INSERT INTO blocks VALUES (41, zeroblob(32))", 41),
        ("it was doubled", "INSERT INTO blocks SELECT 41, records FROM blocks", 41),
        ("it was doubled, far off", "INSERT INTO blocks SELECT 99, records FROM blocks", 41),
    ] {
        let copy = Copied::of(log.folder());
        copy.block(DAYS[1]);
        copy.sql(DAYS[1], sql);
        assert_broken(what, &copy, &[], seq).await;
    }
}

/// Only some of the bytes are tried, unless more time is given.
fn stride() -> usize {
    let stride = std::env::var("AMOVE_GATEWAY_TEST_STRIDE").ok();
    stride.map_or(23, |stride| stride.parse().expect("a number"))
}

#[test]
fn no_changed_byte_of_a_block_goes_unnoticed() {
    let log = three_days(None);
    let copy = Copied::of(log.folder());
    let whole = copy.block(DAYS[1]);
    let one = (whole.len() - 32) / usize::try_from(RECORDS).expect("few");

    // All of the first record, and some of each other.
    let places = (0..32 + one).chain((32 + one..whole.len()).step_by(stride()));
    for at in places {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 1 << (at % 8);
        copy.put(DAYS[1], &spoilt);

        let archive = Archive::open(copy.folder(), &Clock::system()).expect("a log");
        let verdict = audit::verify(&archive, None, None, |_| ());

        let Err(ReadError::Broken(finding)) = verdict else { panic!("byte {at}: {verdict:?}") };
        let record = u64::try_from(at.saturating_sub(32) / one).expect("few");
        assert_eq!(finding.seq, 21 + record, "byte {at}: {finding}");
    }
    copy.put(DAYS[1], &whole);
    let archive = Archive::open(copy.folder(), &Clock::system()).expect("a log");
    assert!(audit::verify(&archive, None, None, |_| ()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hides_an_intent_or_shows_a_closed_one_is_found() {
    let mut log = Log::new();
    log.write(DAYS[0], 5);
    log.act(DAYS[0]);
    log.close();
    assert_eq!(verdict(log.folder(), &[]).await.0, Some(0));

    for (what, sql, seq) in [
        ("an outcome is not told of", "DELETE FROM outcomes", 7),
        ("it is told of another", "UPDATE outcomes SET seq = 1", 7),
        ("one is told of that is not there", "INSERT INTO outcomes VALUES (zeroblob(16), 3)", 1),
    ] {
        let copy = Copied::of(log.folder());
        copy.sql(DAYS[0], sql);
        assert_broken(what, &copy, &[], seq).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_record_that_is_none_is_told_which() {
    let log = three_days(None);
    let copy = Copied::of(log.folder());
    copy.tamper(DAYS[1], |records| records[9].bytes[0] = 7);

    for verb in ["query", "export"] {
        let output = audit(&[verb, "--limit", "40"], copy.folder()).await;
        assert_eq!(output.status.code(), Some(65), "{verb}");
        let told = "the audit log is broken at record 30: it cannot be read";
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    // Who does not come to it is not told.
    let newest = audit(&["query", "--limit", "25"], copy.folder()).await;
    assert_eq!(newest.status.code(), Some(0), "{}", stderr(&newest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_another_version_is_not_taken_for_a_broken_one() {
    let log = three_days(None);
    let copy = Copied::of(log.folder());
    copy.sql(DAYS[2], "PRAGMA user_version = 1");

    for verb in ["query", "export", "verify"] {
        let output = audit(&[verb], copy.folder()).await;
        assert_eq!(output.status.code(), Some(74), "{verb}");
        let told = stderr(&output);
        assert!(told.contains("has version 1") && told.contains("move it elsewhere"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_or_deleted_is_missed() {
    let log = three_days(None);
    let (_, clean) = verdict(log.folder(), &[]).await;
    let head = clean["head"].as_str().expect("a head");

    for first in [41, 50, 60] {
        let copy = Copied::of(log.folder());
        copy.tamper(DAYS[2], |records| records.truncate(first - 41));
        assert_broken("the tail was cut off", &copy, &[], first as u64).await;
    }
    for (day, missed) in [(0, 1), (1, 21), (2, 41)] {
        let copy = Copied::of(log.folder());
        fs::remove_file(copy.file(&format!("{}.sqlite", DAYS[day]))).expect("a file");
        assert_broken("a day was deleted", &copy, &[], missed).await;
    }
    // With everything else made to fit: only who has noted the head knows.
    let copy = Copied::of(log.folder());
    let mut hash = [0; 32];
    copy.tamper(DAYS[2], |records| {
        records.truncate(10);
        hash = records[9].hash;
    });
    copy.sql(DAYS[2], "UPDATE spans SET last = 50; UPDATE chain SET seq = 50");
    copy.open(DAYS[2]).execute("UPDATE chain SET hash = ?", [hash]).expect("a hash");
    let cut = fs::read_to_string(copy.file("head.json")).expect("a file");
    let mut cut: Value = serde_json::from_str(&cut).expect("JSON");
    cut["seq"] = 50.into();
    cut["hash"] = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    fs::write(copy.file("head.json"), cut.to_string()).expect("a file");
    assert_eq!(verdict(copy.folder(), &[]).await.0, Some(0));
    assert_broken("a perfect cut", &copy, &["--expect", head], 51).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_that_is_kept_apart_is_compared() {
    let log = three_days(None);
    let kept = fs::read_to_string(log.folder().join("head.json")).expect("a file");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");

    for (seq, named) in [(1, 1), (30, 30), (60, 60), (61, 61)] {
        let copy = Copied::of(log.folder());
        let mut head = kept.clone();
        head["seq"] = seq.into();
        head["hash"] = "00".repeat(32).into();
        fs::write(copy.file("head.json"), head.to_string()).expect("a file");
        assert_broken("head.json was edited", &copy, &[], named).await;
    }
    for text in ["", "{}"] {
        let copy = Copied::of(log.folder());
        fs::write(copy.file("head.json"), text).expect("a file");
        assert_eq!(verdict(copy.folder(), &[]).await.0, Some(65), "{text:?}");
    }
    let copy = Copied::of(log.folder());
    fs::remove_file(copy.file("head.json")).expect("a file");
    assert_eq!(verdict(copy.folder(), &[]).await.0, Some(65));
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_count_if_they_are_of_the_key() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let log = three_days(Some(&pair.serialize_pem()));
    let folder = tempfile::tempdir().expect("a folder");
    let other = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let file = |name: &str, pem: String| {
        let path = folder.path().join(name);
        fs::write(&path, pem).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let ours = file("ours.pem", pair.public_key_pem());
    let private = file("private.pem", pair.serialize_pem());
    let theirs = file("theirs.pem", other.public_key_pem());

    let (code, signed) = verdict(log.folder(), &["--key", &ours]).await;
    assert_eq!((code, &signed["unsigned"]), (Some(0), &0.into()), "{signed}");
    assert!(signed["signatures"].as_u64() >= Some(3), "{signed}");
    assert_eq!(verdict(log.folder(), &["--key", &private]).await.0, Some(0));
    assert_eq!(verdict(log.folder(), &["--key", &theirs]).await.0, Some(65));
    let copy = Copied::of(log.folder());
    copy.sql(DAYS[1], "UPDATE heads SET signature = zeroblob(64)");
    assert_eq!(verdict(copy.folder(), &[]).await.0, Some(65));
    let told = audit(&["verify"], log.folder()).await;
    assert!(stdout(&told).contains("heads, up to the last record"), "{}", stdout(&told));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_database_has_another_exit_code() {
    let log = three_days(None);
    let copy = Copied::of(log.folder());
    fs::write(copy.file(&format!("{}.sqlite", DAYS[1])), "not a database").expect("a file");

    let (code, _) = verdict(copy.folder(), &[]).await;

    assert_eq!(code, Some(74));
}
