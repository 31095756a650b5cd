//! `audit verify`: a log that is whole, and every way in which it can be not.

use std::{fs, path::Path};

use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::Value;

use crate::{
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

/// Moves a record to another place.
fn moved(from: u64, to: u64) -> String {
    format!("UPDATE records SET seq = {to} WHERE seq = {from};")
}

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

    for seq in [1, 30, 60] {
        for (what, sql) in [
            ("a column was edited", format!("UPDATE records SET status = 204 WHERE seq = {seq}")),
            ("a text was edited", format!("UPDATE records SET caller = 'b' WHERE seq = {seq}")),
            (
                "its hash was edited",
                format!("UPDATE records SET hash = zeroblob(32) WHERE seq = {seq}"),
            ),
            (
                "what it does not show was edited",
                format!("UPDATE records SET lost = 1 WHERE seq = {seq}"),
            ),
            ("it was removed", format!("DELETE FROM records WHERE seq = {seq}")),
        ] {
            let copy = Copied::of(log.folder());
            copy.sql(day_of(seq), &sql);
            assert_broken(what, &copy, &[], seq).await;
        }
    }
    for seq in [1, 30, 59] {
        let copy = Copied::of(log.folder());
        let swap = [moved(seq, 1000), moved(seq + 1, seq), moved(1000, seq + 1)].concat();
        copy.sql(day_of(seq), &swap);
        assert_broken("two were swapped", &copy, &[], seq).await;
    }
    for seq in [1_u64, 30, 60] {
        let copy = Copied::of(log.folder());
        let mut forge = String::new();
        let last = seq.div_ceil(RECORDS) * RECORDS;
        // Those behind make room, from the last on.
        (seq..=last).rev().for_each(|seq| forge += &moved(seq, seq + 1));
        let source = if seq == last { seq + 1 } else { last };
        forge += "CREATE TEMP TABLE forged AS SELECT * FROM records;";
        forge += &format!("DELETE FROM forged WHERE seq <> {source};");
        forge += &format!("UPDATE forged SET seq = {seq}, request_id = 'forged';");
        forge += "INSERT INTO records SELECT * FROM forged;";
        copy.sql(day_of(seq), &forge);
        assert_broken("one was inserted", &copy, &[], seq).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_or_deleted_is_missed() {
    let log = three_days(None);
    let (_, clean) = verdict(log.folder(), &[]).await;
    let head = clean["head"].as_str().expect("a head");

    for first in [41, 50, 60] {
        let copy = Copied::of(log.folder());
        copy.sql(DAYS[2], &format!("DELETE FROM records WHERE seq >= {first}"));
        assert_broken("the tail was cut off", &copy, &[], first).await;
    }
    for (day, missed) in [(0, 1), (1, 21), (2, 41)] {
        let copy = Copied::of(log.folder());
        fs::remove_file(copy.file(&format!("{}.sqlite", DAYS[day]))).expect("a file");
        assert_broken("a day was deleted", &copy, &[], missed).await;
    }
    // With everything else made to fit: only who has noted the head knows.
    let copy = Copied::of(log.folder());
    copy.sql(
        DAYS[2],
        "DELETE FROM records WHERE seq > 50; UPDATE spans SET last = 50; \
         UPDATE chain SET seq = 50, hash = (SELECT hash FROM records WHERE seq = 50);",
    );
    let cut = fs::read_to_string(copy.file("head.json")).expect("a file");
    let mut cut: Value = serde_json::from_str(&cut).expect("JSON");
    let shorter = rusqlite::Connection::open(copy.file(&format!("{}.sqlite", DAYS[2])));
    let hash: [u8; 32] = shorter
        .and_then(|file| file.query_row("SELECT hash FROM chain", [], |row| row.get(0)))
        .expect("a hash");
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
