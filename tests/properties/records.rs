//! Records: what is written is read as it was, its hash can be computed by anybody, and no change
//! of the files goes unnoticed.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use amove_gateway::{
    audit::{self, Archive, Filter, Outcome, Phase, Record, Replay, Trail},
    clock::Clock,
    config::{self, Durability, OnFailure},
};
use proptest::{prelude::*, sample::Index, test_runner::TestCaseResult};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::corpus::{check, seeds};

/// The values of a line in their order, the last of which is the hash over the others.
const NAMES: [&str; 28] = [
    "seq",
    "phase",
    "id",
    "request_id",
    "time",
    "gateway",
    "caller",
    "identity",
    "method",
    "route",
    "effect",
    "status",
    "upstream_status",
    "code",
    "outcome",
    "duration_us",
    "upstream_us",
    "bytes_in",
    "bytes_out",
    "attempts",
    "replay",
    "rule",
    "legacy",
    "peer",
    "trace_id",
    "lost",
    "prev_hash",
    "hash",
];

/// The first of these days, in microseconds since 1970: 2026-03-01.
const FIRST_DAY: i64 = 1_772_323_200_000_000;
const DAY: i64 = 86_400_000_000;

/// A record that owns its texts.
#[derive(Clone, Debug)]
struct Owned {
    phase: Phase,
    id: u128,
    time: i64,
    texts: [String; 3],
    maybe: [Option<String>; 7],
    numbers: [u64; 4],
    attempts: u32,
    statuses: [Option<u16>; 2],
    outcome: Option<Outcome>,
    replay: Option<Replay>,
    legacy: bool,
    lost: u64,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        let [request_id, method, peer] = self.texts.each_ref().map(String::as_str);
        let maybe = self.maybe.each_ref().map(Option::as_deref);
        let [caller, identity, route, effect, code, rule, trace_id] = maybe;
        let Self { phase, time, attempts, outcome, replay, legacy, lost, .. } = *self;
        let [duration_us, upstream_us, bytes_in, bytes_out] = self.numbers;
        let [status, upstream_status] = self.statuses;
        Record {
            phase,
            id: Uuid::from_u128(self.id),
            request_id,
            time,
            caller,
            identity,
            method,
            route,
            effect,
            status,
            upstream_status,
            code,
            outcome,
            duration_us,
            upstream_us,
            bytes_in,
            bytes_out,
            attempts,
            replay,
            rule,
            legacy,
            peer,
            trace_id,
            lost,
        }
    }

    /// What its line must say, but for its place in the chain.
    fn expected(&self) -> Map<String, Value> {
        let record = self.record();
        let is_gap = record.phase == Phase::Gap;
        let measured = record.phase == Phase::Outcome;
        let measured = |number: u64| if measured { json!(number) } else { Value::Null };
        let about = |text: &str| if is_gap { Value::Null } else { json!(text) };
        let time = jiff::Timestamp::from_microsecond(record.time).expect("a time");
        let expected = json!({
            "phase": record.phase.word(), "id": record.id.to_string(),
            "request_id": about(record.request_id), "time": format!("{time:.6}"),
            "caller": record.caller, "identity": record.identity,
            "method": about(record.method), "route": record.route, "effect": record.effect,
            "status": record.status, "upstream_status": record.upstream_status,
            "code": record.code, "outcome": record.outcome.map(Outcome::word),
            "duration_us": measured(record.duration_us), "upstream_us": measured(record.upstream_us),
            "bytes_in": measured(record.bytes_in), "bytes_out": measured(record.bytes_out),
            "attempts": measured(record.attempts.into()), "replay": record.replay.map(Replay::word),
            "rule": record.rule, "legacy": record.legacy, "peer": about(record.peer),
            "trace_id": record.trace_id,
            "lost": if is_gap { json!(record.lost) } else { Value::Null },
        });
        let Value::Object(expected) = expected else { unreachable!("it is written as an object") };
        expected
    }
}

fn records() -> impl Strategy<Value = Owned> {
    let text = || {
        prop_oneof![
            2 => "[a-z]{0,6}",
            1 => "\\PC{0,20}",
            1 => any::<String>(),
            1 => "[\"\\\\\u{0}-\u{1f}\u{7f}\u{2028}\u{fffd}</é😀]{0,40}",
        ]
    };
    let maybe = || prop::option::of(text());
    let route =
        prop::option::of(prop::sample::select(vec!["/api/v1/user/userinfo", "/api/rm", "x"]));
    let effect = prop::option::of(prop::sample::select(vec!["read", "write", "session"]));
    let number = || prop_oneof![Just(0), Just(u64::MAX), 0_u64..1000, any::<u64>()];
    let status = || prop::option::of(any::<u16>());
    let outcome = prop::sample::select(Outcome::WORDS.to_vec()).prop_map(Outcome::of);
    let replay = prop::option::of(prop::sample::select(Replay::WORDS.to_vec()))
        .prop_map(|word| word.and_then(Replay::of));
    let phase =
        prop_oneof![4 => Just(Phase::Outcome), 2 => Just(Phase::Intent), 1 => Just(Phase::Gap)];
    let time = FIRST_DAY..FIRST_DAY + 3 * DAY;
    (
        (phase, any::<u128>(), time, [text(), text(), text()]),
        ([maybe(), maybe(), maybe(), maybe(), maybe()], route, effect),
        ([number(), number(), number(), number()], any::<u32>(), [status(), status()]),
        (outcome, replay, any::<bool>(), number()),
    )
        .prop_map(|((phase, id, time, texts), (maybe, route, effect), numbers, ends)| {
            let [caller, identity, code, rule, trace_id] = maybe;
            let (route, effect) = (route.map(str::to_owned), effect.map(str::to_owned));
            let (numbers, attempts, statuses) = numbers;
            let (outcome, replay, legacy, lost) = ends;
            let is_measured = phase == Phase::Outcome;
            Owned {
                phase,
                id,
                time,
                texts: if phase == Phase::Gap { Default::default() } else { texts },
                maybe: [caller, identity, route, effect, code, rule, trace_id],
                numbers: if is_measured { numbers } else { [0; 4] },
                attempts: if is_measured { attempts } else { 0 },
                statuses,
                outcome,
                replay,
                legacy,
                lost: if phase == Phase::Gap { lost } else { 0 },
            }
        })
}

/// Writes an audit log, and closes it.
fn written(records: &[Owned], key: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config::Audit {
        store: folder.path().to_owned(),
        on_failure: OnFailure::Deny,
        durability: Durability::Batch,
        retain: Duration::from_secs(100 * 365 * 86_400),
        stdout: false,
        signing_key: key.map(Into::into),
        postgres: None,
    };
    let (trail, writer) = Trail::open(&config, &Clock::system()).expect("an audit log");
    let scribe = trail.scribe();
    records.iter().for_each(|record| scribe.leave(&record.record()));
    drop(scribe);
    writer.finish();
    folder
}

/// Its lines, or why they cannot be read.
fn lines(folder: &Path, filter: &Filter) -> Result<Vec<String>, String> {
    let archive = Archive::open(folder, &Clock::system()).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    let days = archive.days().map_err(|error| error.to_string())?;
    let read = days.oldest_first(filter, |sealed| {
        sealed.json_line(&mut lines);
        ControlFlow::Continue(())
    });
    read.map_err(|error| error.to_string())?;
    let lines = String::from_utf8(lines).map_err(|error| error.to_string())?;
    Ok(lines.lines().map(str::to_owned).collect())
}

fn verified(folder: &Path) -> Result<audit::Verified, String> {
    let archive = Archive::open(folder, &Clock::system()).map_err(|error| error.to_string())?;
    audit::verify(&archive, None, None, |_| ()).map_err(|error| error.to_string())
}

fn all() -> Filter {
    Filter { intents: true, ..Filter::default() }
}

#[test]
fn what_is_written_is_read_and_its_hash_can_be_computed_by_anybody() {
    check(24, &prop::collection::vec(records(), 1..60), |records| {
        let folder = written(&records, None);

        let verified = verified(folder.path()).map_err(TestCaseError::fail)?;
        let lines = lines(folder.path(), &all()).map_err(TestCaseError::fail)?;

        prop_assert_eq!(verified.records, records.len() as u64);
        prop_assert_eq!(lines.len(), records.len());
        let mut before = "0".repeat(64);
        for (at, line) in lines.iter().enumerate() {
            let json: Map<String, Value> = serde_json::from_str(line).expect("JSON");
            let values: Vec<_> = NAMES[..27].iter().map(|name| json[*name].clone()).collect();
            let canonical = serde_json::to_string(&values).expect("JSON");
            prop_assert_eq!(json.len(), NAMES.len());
            prop_assert_eq!(&json["seq"], at + 1);
            prop_assert_eq!(&json["prev_hash"], &before[..]);
            before = blake3::hash(canonical.as_bytes()).to_hex().to_string();
            prop_assert_eq!(&json["hash"], &before[..], "{}", canonical);
        }
        prop_assert_eq!(verified.head.to_string(), format!("{}:{before}", records.len()));

        // Each of them is there, as it was meant; days come one after the other.
        let own = ["seq", "gateway", "prev_hash", "hash"];
        let read = lines.iter().map(|line| {
            let mut json: Map<String, Value> = serde_json::from_str(line).expect("JSON");
            own.iter().for_each(|name| drop(json.remove(*name)));
            Value::Object(json).to_string()
        });
        let mut read: Vec<_> = read.collect();
        let expected = records.iter().map(|record| Value::Object(record.expected()).to_string());
        let mut expected: Vec<_> = expected.collect();
        read.sort();
        expected.sort();
        prop_assert_eq!(read, expected);
        Ok(())
    });
}

/// What somebody does to a file.
#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, u8),
    Overwrite(Index, Vec<u8>),
    Move(Index, Index, u8),
    Truncate(Index),
    Grow(Vec<u8>),
}

fn harms() -> impl Strategy<Value = Harm> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..16);
    prop_oneof![
        6 => (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        3 => (any::<Index>(), bytes()).prop_map(|(at, bytes)| Harm::Overwrite(at, bytes)),
        2 => (any::<Index>(), any::<Index>(), 1_u8..64).prop_map(|(from, to, by)| Harm::Move(from, to, by)),
        1 => any::<Index>().prop_map(Harm::Truncate),
        1 => bytes().prop_map(Harm::Grow),
    ]
}

fn harm(bytes: &mut Vec<u8>, harm: &Harm) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match harm {
        Harm::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
        Harm::Overwrite(at, new) => {
            let at = at.index(len);
            let end = (at + new.len()).min(len);
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
        Harm::Move(from, to, by) => {
            let (from, to) = (from.index(len), to.index(len));
            let by = usize::from(*by).min(len - from).min(len - to);
            bytes.copy_within(from..from + by, to);
        }
        Harm::Truncate(at) => bytes.truncate(at.index(len)),
        Harm::Grow(new) => bytes.extend_from_slice(new),
    }
}

/// The files below a folder, by their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a folder");
    for file in files(from) {
        let target = to.path().join(file.strip_prefix(from).expect("below it"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(&file, target).expect("a file");
    }
    to
}

/// What is searched for, to see whether all that is there is still found.
fn searches() -> Vec<Filter> {
    let mut searches = vec![all(), Filter::default()];
    for (name, value) in [("caller", "billing"), ("status", "2xx"), ("outcome", "ok")] {
        let mut filter = all();
        filter.set(name, value, jiff::Timestamp::UNIX_EPOCH).expect("a filter");
        searches.push(filter);
    }
    searches
}

#[test]
fn no_change_of_the_files_goes_unnoticed() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key").serialize_pem();
    let mut records = Vec::new();
    for at in 0..90_u8 {
        let is_intent = at % 3 == 1;
        records.push(Owned {
            phase: if is_intent { Phase::Intent } else { Phase::Outcome },
            id: u128::from(at) << 64,
            time: FIRST_DAY + i64::from(at) * DAY / 30,
            texts: [format!("r-{at}"), "POST".to_owned(), "127.0.0.1:7".to_owned()],
            maybe: [
                Some(if at % 2 == 0 { "billing" } else { "media" }.to_owned()),
                Some("main".to_owned()),
                Some("/api/v1/project/insert".to_owned()),
                Some("write".to_owned()),
                None,
                None,
                None,
            ],
            numbers: if is_intent { [0; 4] } else { [5, 4, 3, u64::from(at)] },
            attempts: u32::from(!is_intent),
            statuses: if is_intent { [None; 2] } else { [Some(200 + u16::from(at)), Some(200)] },
            outcome: (!is_intent).then_some(Outcome::Ok),
            replay: None,
            legacy: false,
            lost: 0,
        });
    }
    let log = written(&records, Some(&key));
    let searches = searches();
    let found =
        |folder: &Path| searches.iter().map(|filter| lines(folder, filter)).collect::<Vec<_>>();
    let (whole, expected) = (verified(log.path()), found(log.path()));
    assert_eq!(whole.as_ref().map(|verified| verified.records), Ok(90));
    assert!(expected.iter().all(|lines| lines.as_ref().is_ok_and(|it| it.len() > 10)));

    let harms = prop::collection::vec(harms(), 1..3);
    check(200, &(any::<Index>(), harms), |(file, harms)| {
        let copy = copied(log.path());
        let files = files(copy.path());
        let file = file.get(&files);
        let mut bytes = fs::read(file).expect("a file");
        harms.iter().for_each(|it| harm(&mut bytes, it));
        fs::write(file, &bytes).expect("a file");

        let verified = verified(copy.path());

        // It is noticed, or it means nothing: all that can be asked is answered as before.
        if verified.is_ok() {
            prop_assert_eq!(&verified, &whole, "{:?}", file.file_name());
            prop_assert_eq!(&found(copy.path()), &expected, "{:?}", file.file_name());
        }
        Ok(())
    });
}

/// Files that are no log at all, and are in the place of one.
#[test]
fn whatever_lies_there_is_a_log_or_an_error() {
    let log = written(&[], None);
    let names: Vec<_> = files(log.path())
        .iter()
        .map(|file| file.strip_prefix(log.path()).expect("below it").to_owned())
        .chain(["2026-03-01.sqlite".into(), "journal/0.log".into(), "head.json".into()])
        .collect();
    let junk = |name: &PathBuf, bytes: &[u8]| -> TestCaseResult {
        let copy = copied(log.path());
        let path = copy.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes).expect("a file");
        let _ = (verified(copy.path()), lines(copy.path(), &all()));
        Ok(())
    };
    for (_, seed) in seeds("records") {
        for name in &names {
            junk(name, &seed).expect("no property but that it ends");
        }
    }
    let bytes = prop::collection::vec(any::<u8>(), 0..256);
    check(32, &(prop::sample::select(names), bytes), |(name, bytes)| junk(&name, &bytes));
}
