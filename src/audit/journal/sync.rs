//! Brings journals to the disk itself, for those who want to outlive a power cut: one thread, and
//! one call for all who wait at the moment.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    thread::JoinHandle,
};

use super::{
    group::Group,
    journals::{Journals, lock},
    segment::Segment,
};
use crate::config::OnFailure;

/// The way to the thread.
#[derive(Debug)]
pub(in crate::audit) struct Syncer {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Desk {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
    ended: bool,
}

/// Some records that are written, but not on the disk.
#[derive(Debug)]
struct Job {
    segment: Arc<Segment>,
    /// Bytes of the segment up to there.
    length: u64,
    /// Nothing will follow in this segment.
    is_last: bool,
    group: Arc<Group>,
}

impl Syncer {
    /// A syncer that has no thread yet.
    pub(in crate::audit) fn new() -> Self {
        Self { desk: Arc::default(), thread: Mutex::default() }
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread for us.
    pub(in crate::audit) fn start(
        &self,
        journals: Weak<Journals>,
        on_failure: OnFailure,
    ) -> io::Result<()> {
        let desk = Arc::clone(&self.desk);
        let thread = std::thread::Builder::new().name("audit-sync".into());
        let thread = thread.spawn(move || {
            while let Some(jobs) = desk.take() {
                let Some(journals) = journals.upgrade() else { return };
                sync_or_give_up(&jobs, &journals, on_failure);
                journals.wake_reader();
            }
        })?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    /// What is written in `segment` up to `length` is to be on the disk before `group` goes on.
    pub(super) fn hand_over(
        &self,
        segment: Arc<Segment>,
        length: u64,
        is_last: bool,
        group: Arc<Group>,
    ) {
        lock(&self.desk.state).jobs.push(Job { segment, length, is_last, group });
        self.desk.news.notify_one();
    }

    /// Ends when everything is on the disk. What is handed over later goes there with the next
    /// process.
    pub(super) fn finish(&self) {
        lock(&self.desk.state).ended = true;
        self.desk.news.notify_one();
        if lock(&self.thread).take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that syncs audit records has crashed");
        }
    }
}

impl Desk {
    /// Everything that is to be done now; nothing when it has ended.
    fn take(&self) -> Option<Vec<Job>> {
        let state = lock(&self.state);
        let idle = |state: &mut State| state.jobs.is_empty() && !state.ended;
        let state = self.news.wait_while(state, idle);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        (!state.jobs.is_empty()).then(|| std::mem::take(&mut state.jobs))
    }
}

/// As [`sync`]; whatever happens, those who wait are told.
fn sync_or_give_up(jobs: &[Job], journals: &Journals, on_failure: OnFailure) {
    let synced = catch_unwind(AssertUnwindSafe(|| sync(jobs, journals, on_failure)));
    if synced.is_err() {
        give_up(jobs, journals, on_failure);
    }
}

/// Nobody knows what came of them.
fn give_up(jobs: &[Job], journals: &Journals, on_failure: OnFailure) {
    journals.deaths.note();
    let left = jobs.iter().filter(|job| !job.group.is_resolved());
    left.for_each(|job| settle(job, false, journals, on_failure));
}

fn sync(jobs: &[Job], journals: &Journals, on_failure: OnFailure) {
    // One call for each file, however many wait for it.
    let mut outcomes: HashMap<String, bool> = HashMap::new();
    for job in jobs {
        let segment = &job.segment;
        let synced = *outcomes.entry(segment.name.clone()).or_insert_with(|| {
            let synced =
                if segment.is_spoiled() { Ok(false) } else { segment.sync().map(|()| true) };
            synced.unwrap_or_else(|error| {
                journals.failed(&error);
                false
            })
        });
        settle(job, synced, journals, on_failure);
    }
}

/// Does what follows from whether a job's records are on the disk.
fn settle(job: &Job, synced: bool, journals: &Journals, on_failure: OnFailure) {
    let Job { segment, length, is_last, group } = job;
    let goes_on = synced || on_failure == OnFailure::Allow;
    if synced {
        journals.works();
    }
    if goes_on {
        segment.publish(*length);
    } else {
        // Nobody knows what is on the disk: what was promised to nobody is taken back.
        journals.lose(group.unattended());
        journals.leave_unsaid(group.gap());
        segment.spoil();
    }
    if *is_last || !goes_on {
        segment.close();
    }
    group.resolve(goes_on);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            compact,
            journal::{Frames, Noted},
            record::tests::sample,
        },
        clock::Clock,
    };

    /// What has been handed over, and is not on the disk.
    fn jobs(journals: &Journals) -> Vec<Job> {
        journals.syncer.as_ref().and_then(|syncer| syncer.desk.take()).expect("jobs")
    }

    #[tokio::test]
    async fn whoever_waits_is_told_also_when_the_thread_dies() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, deny) = (folder.path().join("journal"), OnFailure::Deny);
        let syncer = Some(Syncer::new());
        let journals = Journals::new(&path, None, deny, syncer, &Clock::system());
        let scribe = journals.scribe();
        let waits = scribe.note(&sample());
        scribe.leave(&sample());
        let jobs = jobs(&journals);

        give_up(&jobs, &journals, deny);

        assert!(scribe.settle(waits).await.is_err());
        assert_eq!((journals.lost(), journals.deaths.count()), (1, 1));
    }

    #[tokio::test]
    async fn what_may_not_be_on_the_disk_is_taken_back_and_told_until_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, deny) = (folder.path().join("journal"), OnFailure::Deny);
        // Nobody takes what is handed over, so each moment can be looked at.
        let syncer = Some(Syncer::new());
        let journals = Journals::new(&path, None, deny, syncer, &Clock::system());
        let scribe = journals.scribe();
        let waits = scribe.note(&sample());
        scribe.leave(&sample());
        let lost = |journals: &Journals| {
            journals.segments().iter().for_each(|it| it.delete().expect("gone"))
        };

        lost(&journals);
        sync(&jobs(&journals), &journals, deny);
        assert!(scribe.settle(waits).await.is_err());
        assert_eq!((journals.lost(), journals.refuses()), (1, true));

        // That one was lost is lost as well, and told again; until then nothing goes on.
        for _ in 0..2 {
            journals.write_all();
            assert!(journals.refuses());
            lost(&journals);
            sync(&jobs(&journals), &journals, deny);
        }
        journals.write_all();
        sync(&jobs(&journals), &journals, deny);
        assert!(!journals.refuses());
        let mut bytes = Vec::new();
        let segments = journals.segments();
        segments.last().expect("a file").read(0, usize::MAX, &mut bytes).expect("a journal");
        let lost = |noted: Noted<'_>| compact::read(noted.bytes).map(|record| record.lost);
        assert_eq!(Frames::of(&bytes).map(lost).collect::<Vec<_>>(), [Some(1)]);
    }
}
