//! Sessions that a fleet shares, sealed in a Redis or Valkey.

mod scripts;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::SignedDuration;
use redis::{FromRedisValue, Script};
use secrecy::SecretString;
use tracing::debug;
use uuid::Uuid;

use super::{
    Binding, Entry, Error, LEASE, Left, Look, MEMBER_GONE, Put, Revision, Step, seal::Sealer,
};
use crate::{
    clock::Clock,
    config::SealingKey,
    redis::{Link, LinkError, Unavailable},
};

/// How long an answer may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(2);
/// What nobody has looked at for so long is forgotten.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longer than any TOTP step, on any clock.
const STEP_KEPT: Duration = Duration::from_secs(60 * 60);

/// The Redis, and what seals entries there.
#[derive(Debug)]
pub(in crate::session) struct RedisStore {
    link: Arc<Link>,
    key: SealingKey,
}

/// One identity's place in Redis, as one member of the fleet sees it.
#[derive(Debug)]
pub(in crate::session) struct RedisPlace {
    link: Arc<Link>,
    /// The entry, the lease, the members, and the TOTP steps.
    keys: [String; 4],
    sealer: Sealer,
    clock: Clock,
    /// Names us among the members.
    member: String,
    /// How many milliseconds the clock of Redis is ahead of ours.
    ahead: AtomicI64,
    /// The lease that is out, if one is.
    out: Mutex<Weak<String>>,
}

/// The right to log in: the member that has it, and a word that was never used before.
#[derive(Debug)]
pub(super) struct Lease(Arc<String>);

impl RedisStore {
    pub(super) fn open(
        url: &SecretString,
        ca_file: Option<&Path>,
        key: &SealingKey,
    ) -> Result<Self, LinkError> {
        let link = Link::open(url, ca_file, "session_store.url")?;
        Ok(Self { link: Arc::new(link), key: SealingKey::clone(key) })
    }

    pub(super) fn place(&self, binding: &Binding, clock: &Clock) -> RedisPlace {
        let sealer = Sealer::new(&self.key, binding);
        // The braces keep one identity's keys together in a cluster. Members that cannot read each
        // other's entries would overwrite them in turn, so each sealing key has a session of its
        // own; the TOTP steps are shared even so.
        let id = format!("amove-gateway:{{{}}}", binding.id());
        let key = |what| format!("{id}:{}:{what}", sealer.key_id());
        let keys = [key("session"), key("lease"), key("members"), format!("{id}:step")];
        RedisPlace {
            link: Arc::clone(&self.link),
            keys,
            sealer,
            clock: clock.clone(),
            member: Uuid::now_v7().to_string(),
            ahead: AtomicI64::default(),
            out: Mutex::default(),
        }
    }
}

impl RedisPlace {
    pub(super) async fn look(&self, known: Option<Revision>) -> Result<Look, Error> {
        let known = known.map_or_else(String::new, |Revision(known)| known.to_string());
        let answer: (i64, u64, Vec<u8>, usize) =
            self.run(&scripts::LOOK, &[known.as_bytes()]).await?;
        let (now, revision, sealed, members) = answer;
        self.measure(now);
        let entry = (known != revision.to_string()).then(|| self.unseal(revision, &sealed));
        Ok(Look { revision: Revision(revision), entry, members })
    }

    pub(super) async fn claim(&self) -> Result<Option<(Lease, Entry)>, Error> {
        let lease = Arc::new(format!("{}/{}", self.member, Uuid::now_v7()));
        let none_out = {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            let none_out = out.strong_count() == 0;
            if none_out {
                *out = Arc::downgrade(&lease);
            }
            none_out
        };
        let void = if none_out { "1" } else { "0" };
        let arguments = [lease.as_bytes(), &milliseconds(LEASE), void.as_bytes()];
        let answer: (i64, bool, u64, Vec<u8>) = self.run(&scripts::CLAIM, &arguments).await?;
        let (now, mine, revision, sealed) = answer;
        self.measure(now);
        Ok(mine.then(|| (Lease(lease), self.unseal(revision, &sealed))))
    }

    pub(super) async fn renew(&self, lease: &Lease) -> Result<bool, Error> {
        self.run(&scripts::RENEW, &[lease.0.as_bytes(), &milliseconds(LEASE)]).await
    }

    pub(super) async fn put(&self, lease: Lease, entry: &Entry) -> Result<Put, Error> {
        let sealed = self.sealer.seal(&entry.clone().shifted(self.ahead()))?;
        let answer: (bool, u64) = self.run(&scripts::PUT, &[lease.0.as_bytes(), &sealed]).await?;
        let (done, revision) = answer;
        Ok(if done { Put::Done(Revision(revision)) } else { Put::LeaseLost })
    }

    pub(super) async fn give_back(&self, lease: Lease) {
        let given_back: Result<bool, _> =
            self.run(&scripts::GIVE_BACK, &[lease.0.as_bytes()]).await;
        if let Err(error) = given_back {
            debug!(%error, "lease not given back, it ends by itself");
        }
    }

    pub(super) async fn take_step(&self, end: u64, period: u64) -> Result<Step, Error> {
        let (end, period) = (end.to_string(), period.to_string());
        let arguments = [end.as_bytes(), period.as_bytes(), &milliseconds(STEP_KEPT)];
        let (taken, used_until): (bool, u64) = self.run(&scripts::TAKE_STEP, &arguments).await?;
        Ok(if taken { Step::Taken } else { Step::UsedUntil(used_until) })
    }

    pub(super) async fn leave(&self) -> Result<Left, Error> {
        let answer: (i64, bool, u64, Vec<u8>) = self.run(&scripts::LEAVE, &[]).await?;
        let (now, is_last, seen, sealed) = answer;
        self.measure(now);
        if !is_last {
            return Ok(Left::Others { seen: Duration::from_millis(seen) });
        }
        let entry = if sealed.is_empty() { Entry::default() } else { self.unseal(1, &sealed) };
        Ok(Left::Nobody(Box::new(entry)))
    }

    /// Runs a script: all of it happens at once, or nothing.
    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        arguments: &[&[u8]],
    ) -> Result<T, Error> {
        let (gone, kept) = (milliseconds(MEMBER_GONE), milliseconds(KEPT));
        let common = [self.member.as_bytes(), &gone, &kept];
        let arguments = [&common, arguments].concat();
        let answer = self.link.run(script, &self.keys, &arguments, PATIENCE).await;
        answer.map_err(|Unavailable(what)| Error::Unavailable(what))
    }

    /// The entry by our clock. Of revision 0, there is none.
    fn unseal(&self, revision: u64, sealed: &[u8]) -> Entry {
        if revision == 0 {
            return Entry::default();
        }
        self.sealer.unseal_or_warn(sealed).shifted(-self.ahead())
    }

    fn measure(&self, now: i64) {
        self.ahead.store(now.saturating_sub(self.clock.now().as_millisecond()), Relaxed);
    }

    /// Members whose clocks differ agree by that of Redis.
    fn ahead(&self) -> SignedDuration {
        SignedDuration::from_millis(self.ahead.load(Relaxed))
    }
}

fn milliseconds(duration: Duration) -> Vec<u8> {
    duration.as_millis().to_string().into_bytes()
}
