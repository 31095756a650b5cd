//! Who is logged in, and the JWTs that show it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::{
    answer::Refusal,
    clock::{elapsed, seconds},
    options::Account,
    users::{Identity, User, random, refused},
    world::World,
};

/// How long a login waits for its second factor.
const CHALLENGE_TTL: Duration = Duration::from_secs(180);
/// Bounds what callers can make the emulator remember.
const MOST: usize = 65_536;

/// Everybody who can log in, and everybody who is.
pub(super) struct Sessions {
    inner: Mutex<Inner>,
    key: EncodingKey,
}

struct Inner {
    users: Vec<User>,
    /// Sessions by their JWT.
    live: HashMap<String, Session>,
    /// Logins that wait for their second factor: whose, and since when.
    challenges: HashMap<String, (usize, SystemTime)>,
    /// The most sessions that ever lived at once.
    peak: usize,
}

struct Session {
    user: usize,
    expires: SystemTime,
    /// The id of the API token this session belongs to.
    api_token: Option<String>,
    encrypted: bool,
}

/// Who is calling, by which session.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) identity: Identity,
    /// Whether the bearer is an API token with an encrypted payload.
    pub(super) encrypted: bool,
}

/// An API token to be issued.
pub(super) struct NewToken {
    pub(super) id: String,
    pub(super) expires: SystemTime,
    pub(super) encrypted: bool,
}

/// How far a login got.
pub(super) enum Login {
    /// All the way: the JWT.
    Done(String),
    /// To the second factor: the login session.
    Totp(String),
}

impl Sessions {
    /// Nobody logged in.
    pub(super) fn new(accounts: &[Account]) -> Self {
        let users = accounts.iter().enumerate().map(User::new).collect();
        let (live, challenges) = (HashMap::new(), HashMap::new());
        let inner = Mutex::new(Inner { users, live, challenges, peak: 0 });
        Self { inner, key: EncodingKey::from_secret(random().as_bytes()) }
    }

    /// The first step of a login.
    pub(super) fn login(
        &self,
        world: &World,
        (username, password): (&str, &str),
        role: u64,
    ) -> Result<Login, Refusal> {
        let mut inner = self.lock();
        let user = inner.users.iter_mut().find(|user| user.is_called(username));
        let user = user.ok_or_else(|| refused(world.options.refusal))?;
        user.check(&world.options, password, role)?;
        let (index, asked) = (user.identity.index, world.options.mfa && user.identity.mfa);
        if !asked {
            return Ok(Login::Done(self.open(world, &mut inner, index)?));
        }
        inner.check_quota(world, index)?;
        let (now, challenge) = (world.age(), random());
        inner.challenges.retain(|_, (_, at)| elapsed(*at, now) <= CHALLENGE_TTL);
        if inner.challenges.len() >= MOST {
            return Err(Refusal::code("SECURITY", "Too many logins are waiting for a code."));
        }
        inner.challenges.insert(challenge.clone(), (index, now));
        Ok(Login::Totp(challenge))
    }

    /// The second step of a login.
    pub(super) fn respond(
        &self,
        world: &World,
        challenge: &str,
        code: &str,
    ) -> Result<String, Refusal> {
        let mut inner = self.lock();
        let stale = || Refusal::code("TOTP", "The login session is not known.");
        let waiting = inner.challenges.get(challenge).copied();
        let waiting = waiting.filter(|(_, at)| elapsed(*at, world.age()) <= CHALLENGE_TTL);
        let (index, _) = waiting.ok_or_else(stale)?;
        let user = inner.users.get_mut(index).ok_or_else(stale)?;
        user.use_code(code, seconds(world.now()))?;
        inner.challenges.remove(challenge);
        self.open(world, &mut inner, index)
    }

    /// Opens a session without credentials, as sign-up and single sign-on do.
    pub(super) fn open_first(&self, world: &World) -> Result<String, Refusal> {
        self.open(world, &mut self.lock(), 0)
    }

    /// Opens the session of an API token.
    pub(super) fn issue(
        &self,
        world: &World,
        identity: &Identity,
        new: &NewToken,
    ) -> Result<String, Refusal> {
        let mut inner = self.lock();
        if world.options.api_tokens_count {
            inner.check_quota(world, identity.index)?;
        }
        let session = Session {
            user: identity.index,
            expires: new.expires,
            api_token: Some(new.id.clone()),
            encrypted: new.encrypted,
        };
        self.insert(world, &mut inner, session)
    }

    /// Who holds `jwt`, if its session lives.
    pub(super) fn holder(&self, world: &World, jwt: &str) -> Option<Holder> {
        let inner = self.lock();
        let session = inner.live.get(jwt).filter(|session| session.expires > world.age())?;
        let identity = inner.users.get(session.user)?.identity.clone();
        Some(Holder { identity, encrypted: session.encrypted })
    }

    /// Ends the session of `jwt`; whether there was one.
    pub(super) fn end(&self, jwt: &str) -> bool {
        self.lock().live.remove(jwt).is_some()
    }

    /// Ends the session of an API token.
    pub(super) fn end_api_token(&self, id: &str) {
        self.lock().live.retain(|_, session| session.api_token.as_deref() != Some(id));
    }

    /// Ends every session.
    pub(super) fn revoke(&self) {
        self.lock().live.clear();
    }

    /// Ends the sessions of a user who is no more.
    pub(super) fn deactivate(&self, user_id: &str) {
        let mut inner = self.lock();
        let user = inner.users.iter_mut().find(|user| user.identity.user_id == user_id);
        let Some(user) = user else { return };
        user.deactivate();
        let index = user.identity.index;
        inner.live.retain(|_, session| session.user != index);
    }

    /// Does something to the user of this index.
    pub(super) fn with_user<T>(
        &self,
        index: usize,
        act: impl FnOnce(&mut User) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut inner = self.lock();
        let user = inner.users.get_mut(index);
        act(user.ok_or_else(|| Refusal::code("NOT_FOUND", "There is no such user."))?)
    }

    /// How many sessions live now, and how many lived at most.
    pub(super) fn count(&self, world: &World) -> (usize, usize) {
        let inner = self.lock();
        (inner.living(world), inner.peak)
    }

    fn open(&self, world: &World, inner: &mut Inner, index: usize) -> Result<String, Refusal> {
        inner.check_quota(world, index)?;
        let expires = world.age() + world.options.token_ttl;
        let session = Session { user: index, expires, api_token: None, encrypted: false };
        self.insert(world, inner, session)
    }

    fn insert(
        &self,
        world: &World,
        inner: &mut Inner,
        session: Session,
    ) -> Result<String, Refusal> {
        let now = world.age();
        inner.live.retain(|_, session| session.expires > now);
        if inner.live.len() >= MOST {
            return Err(Refusal::code("SESSION_MAXOUT", "There are too many sessions."));
        }
        let user = inner.users.get(session.user);
        let user = user.ok_or_else(|| Refusal::code("NOT_FOUND", "There is no such user."))?;
        let jwt = self.sign(world, &user.identity, &session)?;
        inner.live.insert(jwt.clone(), session);
        inner.peak = inner.peak.max(inner.live.len());
        Ok(jwt)
    }

    /// A JWT; each is different, as it names its session.
    fn sign(
        &self,
        world: &World,
        identity: &Identity,
        session: &Session,
    ) -> Result<String, Refusal> {
        let now = seconds(world.now());
        let life = elapsed(world.age(), session.expires).as_secs();
        let claims = json!({
            "sub": identity.user_id,
            "accountId": identity.account_id,
            "role": identity.role,
            "sid": random(),
            "iat": now,
            "exp": now.saturating_add(life),
        });
        let signed = encode(&Header::default(), &claims, &self.key)
            .map_err(|error| Refusal::code("INTERNAL_ERROR", error.to_string()))?;
        match session.encrypted || world.options.opaque_tokens {
            true => Ok(scrambled(&signed)),
            false => Ok(signed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn check_quota(&self, world: &World, index: usize) -> Result<(), Refusal> {
        let (now, options) = (world.age(), &world.options);
        let counted = |session: &&Session| {
            let of_kind = session.api_token.is_none() || options.api_tokens_count;
            session.user == index && session.expires > now && of_kind
        };
        if self.live.values().filter(counted).count() >= options.max_sessions {
            return Err(Refusal::code("SESSION_MAXOUT", "Session limit reached."));
        }
        Ok(())
    }

    fn living(&self, world: &World) -> usize {
        let now = world.age();
        self.live.values().filter(|session| session.expires > now).count()
    }
}

/// A JWT whose payload says nothing any more.
fn scrambled(jwt: &str) -> String {
    let payload = BASE64_URL_SAFE_NO_PAD.encode(blake3::hash(jwt.as_bytes()).as_bytes());
    let mut parts = jwt.split('.');
    let (head, signature) = (parts.next().unwrap_or(""), parts.next_back().unwrap_or(""));
    format!("{head}.{payload}.{signature}")
}
