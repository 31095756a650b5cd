//! The way of records through journal, chain and store, without a gateway.

use std::{fs, ops::ControlFlow, sync::Arc, time::Duration};

use jiff::civil::date;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{
    Archive, Filter, OpenError, PublicKey, ReadError, Record, Scribe,
    journal::Journals,
    ledger::{Error, Ledger},
    record::tests::sample,
    signing::Signer,
    store::Folder,
    verify,
    writer::Work,
};
use crate::{clock::Clock, config::OnFailure};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// A gateway's audit log without its thread.
struct Bench {
    folder: Folder,
    scribe: Arc<Scribe>,
    work: Work,
    ledger: Option<Ledger>,
}

impl Bench {
    /// Opens what is in `folder`, as a process does that starts.
    fn open(folder: &TempDir) -> Self {
        Self::signed(folder, None)
    }

    /// The same while another process has it.
    fn beside(folder: &TempDir) -> Self {
        let other = Self::signed_by(folder, None, None);
        assert!(other.folder.take(Duration::ZERO).is_err(), "somebody else has it");
        other
    }

    fn signed(folder: &TempDir, signer: Option<Signer>) -> Self {
        let ledger = Ledger::open(&Folder::new(folder.path()), &Clock::system(), Duration::ZERO);
        let bench = Self::signed_by(folder, signer, Some(ledger.unwrap()));
        bench.work.journals.adopt(bench.folder.journals().unwrap());
        bench
    }

    fn signed_by(folder: &TempDir, signer: Option<Signer>, ledger: Option<Ledger>) -> Self {
        let (folder, clock) = (Folder::new(folder.path()), Clock::system());
        let last = folder.last_journal().unwrap();
        let (path, deny) = (folder.journal(), OnFailure::Deny);
        let journals = Journals::new(&path, last.as_deref(), deny, None, &clock);
        let scribe = journals.scribe();
        let work = Work {
            folder: folder.clone(),
            journals,
            clock,
            retain: Duration::MAX,
            signer,
            lines: None,
            progress: Arc::default(),
            news: watch::Sender::new(0),
            hurry: true,
            shipped: None,
            patience: None,
        };
        Self { folder, scribe, work, ledger }
    }

    /// Writes a record of that time down.
    fn write(&self, time: i64) {
        self.scribe.leave(&Record { time, ..sample() });
    }

    fn drain(&mut self) -> Result<(), Error> {
        self.work.drain(&mut self.ledger, true)
    }

    /// Ends without doing anything any more.
    fn kill(self) {
        self.work.journals.abandon();
    }

    fn end(mut self) {
        self.work.journals.close();
        self.drain().unwrap();
    }
}

fn archive(folder: &TempDir) -> Archive {
    Archive::open(folder.path(), &Clock::system()).unwrap()
}

fn times(folder: &TempDir) -> Vec<i64> {
    let mut times = Vec::new();
    let days = archive(folder).days().unwrap();
    days.oldest_first(&Filter::default(), |sealed| {
        times.push(sealed.record.time);
        ControlFlow::Continue(())
    })
    .unwrap();
    times
}

fn finding(folder: &TempDir, key: Option<&PublicKey>) -> (u64, String) {
    match verify(&archive(folder), key, None, |_| ()) {
        Err(ReadError::Broken(finding)) => (finding.seq, finding.what),
        verdict => panic!("{verdict:?}"),
    }
}

fn days(folder: &TempDir) -> Vec<String> {
    let days = Folder::new(folder.path()).days().unwrap();
    days.iter().map(|(date, _)| date.to_string()).collect()
}

/// Three records on each of three days, by two processes.
fn three_days() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for days in [&[0][..], &[1, 2]] {
        let mut bench = Bench::open(&folder);
        for day in days {
            (0..3).for_each(|hour| bench.write(day * DAY + hour * HOUR));
            bench.drain().unwrap();
        }
        bench.end();
    }
    folder
}

#[test]
fn the_chain_goes_on_over_days_and_processes() {
    let folder = three_days();

    let verified = verify(&archive(&folder), None, None, |_| ()).unwrap();

    assert_eq!(days(&folder), ["1970-01-01", "1970-01-02", "1970-01-03"]);
    assert_eq!((verified.records, verified.first, verified.head.seq), (9, 1, 9));
    assert_eq!(times(&folder)[..4], [0, HOUR, 2 * HOUR, DAY]);
    assert_eq!(fs::read_dir(folder.path().join("journal")).unwrap().count(), 0);
}

#[test]
fn a_clock_that_is_put_back_begins_no_older_day() {
    let folder = three_days();
    let mut bench = Bench::open(&folder);
    bench.write(HOUR);
    bench.drain().unwrap();
    bench.end();

    assert_eq!(days(&folder).len(), 3);
    assert_eq!(times(&folder).last(), Some(&HOUR));
    verify(&archive(&folder), None, None, |_| ()).unwrap();
    // It is found by its time, although it lies among later ones.
    let filter = Filter { until: Some(2 * HOUR), ..Filter::default() };
    let mut found = 0;
    let days = archive(&folder).days().unwrap();
    days.newest_first(&filter, |_| {
        found += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(found, 3);
}

#[test]
fn old_days_go_by_order_and_are_missed_if_they_go_without_one() {
    let folder = three_days();
    assert_eq!(archive(&folder).prune(date(1970, 1, 2), None).unwrap(), 1);

    let verified = verify(&archive(&folder), None, None, |_| ()).unwrap();
    assert_eq!((verified.first, verified.records), (4, 6));

    let second = Folder::new(folder.path()).day(date(1970, 1, 2));
    fs::remove_file(second).unwrap();
    assert_eq!(finding(&folder, None).0, 1);
    // The last day stays, however old it is.
    assert_eq!(archive(&folder).prune(date(2000, 1, 1), None).unwrap(), 0);
    assert_eq!(times(&folder).len(), 3);
}

#[test]
fn a_journal_that_breaks_off_anywhere_gives_every_whole_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder);
    // Numbers of one length.
    (1..4).for_each(|hour| bench.write(hour * HOUR));
    let journal = bench.folder.journal();
    bench.kill();
    let name = fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&name).unwrap();
    let one = bytes.len() / 3;

    for end in 0..=bytes.len() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("journal")).unwrap();
        let journal = folder.path().join("journal").join(name.file_name().unwrap());
        fs::write(&journal, &bytes[..end]).unwrap();

        let mut bench = Bench::open(&folder);
        bench.drain().unwrap();
        let torn = bench.work.progress.torn.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(torn, (end % one) as u64, "{end}");
        bench.end();
        assert!(!journal.exists());
        assert_eq!(times(&folder).len(), end / one, "{end}");
    }
}

#[test]
fn a_journal_that_was_read_and_not_deleted_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&folder);
    (0..3).for_each(|hour| bench.write(hour * HOUR));
    bench.drain().unwrap();
    bench.write(3 * HOUR);
    // The process is killed: what it had read is in the store, the rest is not.
    bench.kill();

    Bench::open(&folder).end();

    assert_eq!(times(&folder), [0, HOUR, 2 * HOUR, 3 * HOUR]);
    verify(&archive(&folder), None, None, |_| ()).unwrap();
}

#[test]
fn a_successor_writes_beside_its_predecessor_and_the_chain_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = Bench::open(&folder);
    let mut new = Bench::beside(&folder);
    old.write(0);
    new.write(HOUR);
    assert!(matches!(new.drain(), Err(Error::Open(OpenError::Taken(_)))));
    old.drain().unwrap();
    assert_eq!(times(&folder), [0], "each takes its own journals only");

    old.work.journals.close();
    old.drain().unwrap();
    // What comes that late stays in a journal.
    old.write(2 * HOUR);
    old.kill();
    // Who looks now finds what was left behind, and leaves alone what is still written to.
    assert_eq!(times(&folder), [0, 2 * HOUR]);
    new.write(3 * HOUR);
    new.drain().unwrap();
    new.end();

    assert_eq!(times(&folder), [0, 2 * HOUR, HOUR, 3 * HOUR]);
    let verified = verify(&archive(&folder), None, None, |_| ()).unwrap();
    assert_eq!((verified.records, verified.head.seq), (4, 4));
    assert_eq!(fs::read_dir(folder.path().join("journal")).unwrap().count(), 0);
}

#[test]
fn what_is_left_behind_beside_a_running_process_is_taken_in_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = Bench::open(&folder);
    let new = Bench::beside(&folder);
    new.write(HOUR);
    new.kill();

    old.work.adopt(old.ledger.as_ref());
    old.drain().unwrap();
    old.end();

    assert_eq!(times(&folder), [HOUR]);
}

#[test]
fn a_store_that_takes_nothing_for_a_while_gets_everything_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&folder);
    let day = bench.folder.day(date(1970, 1, 1));
    fs::create_dir(&day).unwrap();
    for hour in 0..3 {
        bench.write(hour * HOUR);
        assert!(bench.drain().is_err());
    }
    fs::remove_dir(&day).unwrap();

    bench.drain().unwrap();

    assert_eq!(times(&folder), [0, HOUR, 2 * HOUR]);
    verify(&archive(&folder), None, None, |_| ()).unwrap();
}

#[test]
fn what_is_stored_is_not_stored_again_though_its_head_cannot_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&folder);
    let blocks = folder.path().join("head.json.new");
    fs::create_dir(&blocks).unwrap();
    bench.write(0);
    assert!(bench.drain().is_err());
    bench.write(HOUR);
    assert!(bench.drain().is_err());
    fs::remove_dir(&blocks).unwrap();

    // Nothing new has to come for the head to be kept.
    bench.drain().unwrap();

    assert_eq!(times(&folder), [0, HOUR]);
    let verified = verify(&archive(&folder), None, None, |_| ()).unwrap();
    assert_eq!((verified.records, bench.folder.head().unwrap().unwrap().1.seq), (2, 2));
}

#[test]
fn a_folder_that_was_taken_away_is_locked_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&folder);
    bench.write(0);
    bench.drain().unwrap();
    fs::remove_dir_all(folder.path()).unwrap();
    bench.write(HOUR);
    bench.drain().unwrap();

    let other = Ledger::open(&bench.folder, &Clock::system(), Duration::ZERO);

    assert!(matches!(other, Err(OpenError::Taken(_))));
    assert_eq!(times(&folder), [HOUR]);
}

#[test]
fn what_is_gone_from_the_store_is_missed_for_ever() {
    let folder = three_days();
    fs::remove_file(Folder::new(folder.path()).day(date(1970, 1, 3))).unwrap();
    assert_eq!(finding(&folder, None), (7, "missing: head.json says that there are 9".into()));

    // A gateway that goes on does not cover it up.
    let mut bench = Bench::open(&folder);
    bench.write(3 * DAY);
    bench.drain().unwrap();
    bench.end();
    assert_eq!(finding(&folder, None).0, 7);
}

fn key() -> (Signer, PublicKey) {
    use rcgen::{KeyPair, PKCS_ED25519};
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let signer = Signer::new(&pair.serialize_der()).unwrap();
    let public = PublicKey::from_pem(&pair.public_key_pem()).unwrap();
    assert_eq!(PublicKey::from_pem(&pair.serialize_pem()), Some(public.clone()));
    (signer, public)
}

#[test]
fn signed_heads_show_a_chain_that_was_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, public) = key();
    let mut bench = Bench::signed(&folder, Some(signer));
    (0..3).for_each(|day| bench.write(day * DAY));
    bench.drain().unwrap();
    bench.write(3 * DAY);
    bench.drain().unwrap();
    bench.end();
    let verified = verify(&archive(&folder), Some(&public), None, |_| ()).unwrap();
    assert_eq!((verified.records, verified.unsigned), (4, Some(0)));
    assert!(verified.signatures > 0);

    assert_eq!(finding(&folder, Some(&key().1)).1, "its head was signed with another key");

    // Who has no key can make a chain, but cannot sign it.
    let forged = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(&forged);
    bench.write(0);
    bench.drain().unwrap();
    bench.end();
    assert_eq!(finding(&forged, Some(&public)), (1, "no head of the chain was signed".into()));
}

#[test]
fn a_head_that_was_noted_elsewhere_is_looked_for() {
    let folder = three_days();
    let head = verify(&archive(&folder), None, None, |_| ()).unwrap().head;
    assert!(verify(&archive(&folder), None, Some(head), |_| ()).is_ok());

    let other = super::Head { hash: [7; 32], ..head };
    let verdict = verify(&archive(&folder), None, Some(other), |_| ());

    assert!(verdict.is_err_and(|error| error.to_string().contains("the expected head")));
}
