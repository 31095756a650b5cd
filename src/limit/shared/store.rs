//! The Redis that a fleet keeps its quotas in: what is asked there, and whether it answers.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use redis::{FromRedisValue, Script};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    super::decision::Terms,
    PATIENCE,
    lease::{Answer, Order},
};
use crate::{
    config::QuotaStoreError,
    redis::{Link, LinkError, Unavailable},
};

/// How long connecting may take: nobody waits for that.
const CONNECTING: Duration = Duration::from_secs(1);
/// How often members say that they are here; who has not for [`GONE`] is gone.
const BEAT: Duration = Duration::from_secs(1);
const GONE: Duration = Duration::from_secs(4);
/// How often a store that is away is looked for. By then, all that was asked before has ended.
const PROBE: Duration = Duration::from_millis(500);

const MEMBERS: &str = "amove-gateway:limit:members";

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));
static APPEAR: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("appear.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("leave.lua")));

/// Where quotas are shared. While it is away, only the probe asks it.
pub(in crate::limit) struct Store {
    link: Link,
    /// Where it is asked.
    pub(super) runtime: Handle,
    /// What happens to requests while it is away.
    on_error: ArcSwap<QuotaStoreError>,
    /// Names us among the members.
    me: String,
    is_up: AtomicBool,
    /// It has just been found to be away.
    lost: Notify,
    members: AtomicU32,
    /// Why it cannot be asked.
    error: Mutex<Option<Arc<str>>>,
    pub(super) counts: Counts,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    errors: AtomicU64,
    round_trips: AtomicU64,
    pub(super) turned_away: AtomicU64,
}

/// How the store of quotas fares, for operators.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// How many gateways share the quotas, this one included, as far as is known.
    pub members: u32,
    /// Why the store cannot be asked, if it cannot.
    pub error: Option<String>,
    /// Times that it could not be asked.
    pub errors: u64,
    /// Times that it was asked.
    pub round_trips: u64,
    /// Requests that found too many others waiting for it.
    pub turned_away: u64,
}

/// Why the store of quotas cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error(
        "`rate_limit.url` cannot be used: expected redis://HOST:PORT, rediss://HOST:PORT or unix:/path"
    )]
    Url,
    /// There are no roots.
    #[error("`rate_limit.ca_file` cannot be {path}: expected certificates in PEM")]
    Roots {
        /// As it is set.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Store {
    /// Asks nobody yet.
    pub(in crate::limit) fn open(
        url: &SecretString,
        ca_file: Option<&Path>,
        on_error: QuotaStoreError,
        runtime: Handle,
    ) -> Result<Self, OpenError> {
        let unusable = |error| match error {
            LinkError::Url => OpenError::Url,
            LinkError::Roots(source) => {
                OpenError::Roots { path: ca_file.unwrap_or(Path::new("")).to_owned(), source }
            }
        };
        Ok(Self {
            link: Link::open(url, ca_file, "rate_limit.url").map_err(unusable)?,
            runtime,
            on_error: ArcSwap::from_pointee(on_error),
            me: Uuid::now_v7().to_string(),
            is_up: AtomicBool::new(true),
            lost: Notify::new(),
            members: AtomicU32::new(1),
            error: Mutex::default(),
            counts: Counts::default(),
        })
    }

    /// What happens to requests while it is away.
    pub(super) fn on_error(&self) -> QuotaStoreError {
        **self.on_error.load()
    }

    pub(in crate::limit) fn set_on_error(&self, on_error: QuotaStoreError) {
        self.on_error.store(Arc::new(on_error));
    }

    /// Whether it can be asked, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Acquire)
    }

    /// How many share it, ourselves included, as far as is known.
    pub(super) fn members(&self) -> u32 {
        self.members.load(Relaxed)
    }

    pub(in crate::limit) fn status(&self) -> Status {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        Status {
            members: self.members(),
            error: error.as_deref().map(str::to_owned),
            errors: self.counts.errors.load(Relaxed),
            round_trips: self.counts.round_trips.load(Relaxed),
            turned_away: self.counts.turned_away.load(Relaxed),
        }
    }

    /// Carries out `order` on the quota at `key`; nothing if that is not possible now.
    pub(super) async fn take(&self, key: &str, terms: &Terms, order: &Order) -> Option<Answer> {
        let Order { needed, wanted, returned, since } = order;
        let interval = terms.interval.as_nanos().to_string();
        let numbers = [terms.burst.get(), *needed, *wanted, *returned].map(|it| it.to_string());
        let since = since.to_string();
        let [burst, needed, wanted, returned] = numbers.each_ref().map(|it| it.as_bytes());
        let arguments = [interval.as_bytes(), burst, needed, wanted, returned, since.as_bytes()];
        let (taken, ahead, now) = self.run(&TAKE, key, &arguments, PATIENCE).await?;
        Some(Answer { taken, ahead: Duration::from_nanos(ahead), now })
    }

    /// Says again and again that we are here, and looks for a store that is away.
    pub(super) async fn attend(&self) {
        let mut within = CONNECTING;
        loop {
            self.appear(within).await;
            if self.is_up() {
                within = PATIENCE;
                // Either it is time, or there is something to look after.
                let _ = timeout(BEAT, self.lost.notified()).await;
            }
            if !self.is_up() {
                within = CONNECTING;
                sleep(PROBE).await;
            }
        }
    }

    /// Is no member any more.
    pub(super) async fn leave(&self) {
        let _: Option<u32> = self.run(&LEAVE, MEMBERS, &[self.me.as_bytes()], PATIENCE).await;
    }

    async fn appear(&self, within: Duration) {
        let Some(members) = self.call_roll(within).await else { return };
        if self.is_up() {
            self.members.store(members, Relaxed);
            return;
        }
        // It counts as being there when it answers in time, now that there is a connection.
        let Some(members) = self.call_roll(PATIENCE).await else { return };
        // The others may not have found it yet.
        self.members.fetch_max(members, Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if !self.is_up.swap(true, AcqRel) {
            tracing::info!(members, "the store of quotas is back");
        }
    }

    async fn call_roll(&self, within: Duration) -> Option<u32> {
        let gone = GONE.as_millis().to_string();
        let members: u32 =
            self.run(&APPEAR, MEMBERS, &[self.me.as_bytes(), gone.as_bytes()], within).await?;
        Some(members.max(1))
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &str,
        arguments: &[&[u8]],
        within: Duration,
    ) -> Option<T> {
        self.counts.round_trips.fetch_add(1, Relaxed);
        let answer = self.link.run(script, &[key.to_owned()], arguments, within).await;
        answer.map_err(|error| self.lose(&error)).ok()
    }

    fn lose(&self, Unavailable(error): &Unavailable) {
        self.counts.errors.fetch_add(1, Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(error));
        if self.is_up.swap(false, AcqRel) {
            self.lost.notify_one();
            let until_then = match self.on_error() {
                QuotaStoreError::Local => "each gateway gives out its share",
                QuotaStoreError::Allow => "all requests pass",
                QuotaStoreError::Deny => "no request with a quota passes",
            };
            tracing::warn!(%error, until_then, "the store of quotas cannot be used");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("status", &self.status()).finish_non_exhaustive()
    }
}
