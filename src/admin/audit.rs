//! Answers questions about the audit log.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{StatusCode, header};
use jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::timeout,
};

use super::reply::{self, Refusal};
use crate::{
    audit::{Filter, ReadError, Trail},
    clock::Clock,
    message::Response,
};

/// Questions at once: each reads files on a thread of its own.
const AT_ONCE: usize = 2;

/// What takes longer is broken off.
const PATIENCE: Duration = Duration::from_secs(10);

/// Records in an answer, if nobody says.
const USUAL: usize = 100;
/// Records in an answer, whatever somebody says.
const MOST: usize = 1000;

/// Searches the audit log for operators.
#[derive(Debug)]
pub(super) struct Search {
    trail: Arc<Trail>,
    clock: Clock,
    room: Arc<Semaphore>,
}

/// What is asked for.
#[derive(Debug)]
struct Question {
    filter: Filter,
    limit: usize,
}

/// A search that is under way; it is broken off when this is dropped, since nobody waits for it.
struct Waiting(Arc<AtomicBool>);

impl Search {
    pub(super) fn new(trail: &Arc<Trail>, clock: &Clock) -> Self {
        let (trail, clock) = (Arc::clone(trail), clock.clone());
        Self { trail, clock, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The records that `query` asks for, the newest first, and where the next page begins.
    pub(super) async fn answer(&self, query: &str) -> Result<Response, Refusal> {
        let question = Question::read(query, self.clock.now())?;
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| busy())?;
        let (trail, waiting) = (Arc::clone(&self.trail), Waiting(Arc::default()));
        let stop = Arc::clone(&waiting.0);
        let search = spawn_blocking(move || {
            let _permit = permit;
            question.search(&trail, &stop)
        });
        let Ok(found) = timeout(PATIENCE, search).await else { return Err(too_long()) };
        match found {
            Ok(Ok(body)) => Ok(reply::new(StatusCode::OK, "application/json", body)),
            Ok(Err(error)) => Err(unread(&error)),
            Err(error) => Err(broken(&error)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Question {
    fn read(query: &str, now: Timestamp) -> Result<Self, Refusal> {
        let (mut filter, mut limit, mut names) = (Filter::default(), USUAL, Vec::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if names.contains(&name) {
                return Err(wrong(format!("Each filter is given once, and `{name}` is not.")));
            }
            if name == "limit" {
                let known = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                limit = known.ok_or_else(|| {
                    wrong(format!(
                        "`limit` cannot be {value:?}: expected a number from 1 to {MOST}."
                    ))
                })?;
            } else {
                filter.set(&name, &value, now).map_err(|error| {
                    let expected = error.expected;
                    wrong(match error.name {
                        "filter" => {
                            format!("There is no filter {name:?}: expected {expected}, or limit.")
                        }
                        name => format!("`{name}` cannot be {value:?}: expected {expected}."),
                    })
                })?;
            }
            names.push(name);
        }
        Ok(Self { filter, limit })
    }

    fn search(&self, trail: &Trail, stop: &Arc<AtomicBool>) -> Result<String, ReadError> {
        let mut days = trail.days()?;
        days.stop_when(stop)?;
        let (mut body, mut found, mut last) = (b"{\"records\":[".to_vec(), 0, 0);
        days.newest_first(&self.filter, |sealed| {
            sealed.json_line(&mut body);
            // The end of the line.
            body.pop();
            body.push(b',');
            (found, last) = (found + 1, sealed.seq);
            if found == self.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if found > 0 {
            // The last comma.
            body.pop();
        }
        let next =
            if found == self.limit && last > 1 { last.to_string() } else { "null".to_owned() };
        body.extend_from_slice(format!("],\"next\":{next}}}\n").as_bytes());
        // It is made of texts.
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn wrong(sentence: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, sentence)
}

fn busy() -> Refusal {
    let sentence = "The audit log is being searched for others; try again.";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence).header(header::RETRY_AFTER, "1")
}

fn too_long() -> Refusal {
    let sentence = "The search takes too long: narrow it with `since` and `until`, or use the \
                    verb `audit query`.";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
}

fn unread(error: &ReadError) -> Refusal {
    tracing::error!(error = error.to_string(), "the audit log cannot be searched");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "The audit log cannot be read; see the log.")
}

fn broken(error: &JoinError) -> Refusal {
    tracing::error!(error = error.to_string(), "a search of the audit log has crashed");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "The search has crashed; see the log.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::Writer,
        config::{self, Durability, OnFailure},
    };

    fn search(folder: &std::path::Path) -> (Search, Writer) {
        let config = config::Audit {
            store: folder.to_owned(),
            on_failure: OnFailure::Deny,
            durability: Durability::Batch,
            retain: Duration::from_secs(86_400),
            stdout: false,
            signing_key: None,
            postgres: None,
        };
        let clock = Clock::system();
        let (trail, writer) = Trail::open(&config, &clock).expect("an audit log");
        (Search::new(&trail, &clock), writer)
    }

    #[tokio::test]
    async fn two_questions_at_once_are_enough() {
        let folder = tempfile::tempdir().expect("a folder");
        let (search, writer) = search(folder.path());
        let status = async || search.answer("").await.unwrap_or_else(Response::from).status();

        let under_way = Arc::clone(&search.room).acquire_many_owned(2).await;
        let third = status().await;
        drop(under_way);
        let afterwards = status().await;

        assert_eq!((third.as_u16(), afterwards.as_u16()), (503, 200));
        writer.finish();
    }

    #[test]
    fn a_search_that_nobody_waits_for_is_told_to_stop() {
        let waiting = Waiting(Arc::default());
        let stop = Arc::clone(&waiting.0);

        drop(waiting);

        assert!(stop.load(Relaxed));
    }
}
