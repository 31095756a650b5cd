//! The auth host: request tokens, logins, second factors, sessions (contract section 4).

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};
use totp_rs::{Builder, Secret};
use uuid::Uuid;

use super::{
    Options, PASSWORD, State, TOTP_SECRET, USER_TYPE, USERNAME, World,
    faults::Malformation,
    http::{Call, Reply},
};

/// How long a request token lives, in seconds.
const REQUEST_TOKEN: u64 = 60;

/// How long the session of a challenge lives, in seconds.
const CHALLENGE: u64 = 180;

/// How long a TOTP step lasts, in seconds.
const STEP: u64 = 30;

/// More request tokens, challenges or API tokens than that at once are not remembered.
const REMEMBERED: usize = 100_000;

/// Who has what.
#[derive(Default)]
pub(super) struct Auth {
    /// Request tokens that were not used yet, and when they expire.
    request_tokens: HashMap<String, u64>,
    spent: HashSet<String>,
    /// Sessions of challenges, and when they expire.
    challenges: HashMap<String, u64>,
    /// Tokens of open sessions, and when they expire.
    sessions: HashMap<String, u64>,
    /// API tokens, by their record's id.
    api_tokens: BTreeMap<String, String>,
    used_steps: HashSet<u64>,
}

impl Auth {
    pub(super) fn revoke_all(&mut self) {
        self.sessions.clear();
        self.api_tokens.clear();
    }

    pub(super) fn forget_expired(&mut self, now: u64) {
        self.sessions.retain(|_, expires| *expires > now);
        self.challenges.retain(|_, expires| *expires > now);
        self.request_tokens.retain(|_, expires| *expires > now);
        self.used_steps.retain(|step| step + 10 > now / STEP);
    }

    pub(super) fn live_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Whether `token` is of an open session.
    pub(super) fn knows(&self, token: &str, now: u64) -> bool {
        self.sessions.get(token).is_some_and(|expires| *expires > now)
    }

    /// Opens the session of an API token.
    pub(super) fn open_api_token(&mut self, id: &str, token: &str, expires: u64) {
        self.sessions.insert(token.to_owned(), expires);
        self.api_tokens.insert(id.to_owned(), token.to_owned());
    }

    /// Ends the session of an API token.
    pub(super) fn close_api_token(&mut self, id: &str) {
        if let Some(token) = self.api_tokens.remove(id) {
            self.sessions.remove(&token);
        }
    }
}

impl State {
    /// Spends the request token in `body`: it works once, for a minute.
    pub(super) fn spend(&mut self, body: &Value, now: u64) -> Result<(), Reply> {
        let token = body["requestToken"].as_str().unwrap_or_default();
        let expires = self.auth.request_tokens.remove(token);
        if self.auth.spent.contains(token) {
            self.book.stats.request_tokens_reused += 1;
        }
        if expires.is_some() && self.auth.spent.len() < REMEMBERED {
            self.auth.spent.insert(token.to_owned());
        }
        match expires {
            Some(expires) if expires > now => Ok(()),
            _ => Err(Reply::code("TOKEN", "The request token is not valid.")),
        }
    }
}

/// Answers a call of the auth host.
pub(super) fn answer(world: &World, call: &Call<'_>) -> Reply {
    let now = world.now();
    let mut state = world.state();
    state.auth.forget_expired(now);
    let path = call.path.to_lowercase();
    let action = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if action == "request_token" {
        return state.mint(&world.options, now);
    }
    let body = call.json();
    if let Err(refused) = state.spend(&body, now) {
        return refused;
    }
    match action {
        "login" => state.log_in(&world.options, &body, now),
        "mfa_respond" => state.respond(&world.options, &body, now),
        "logout" => {
            state.auth.sessions.remove(body["jwtToken"].as_str().unwrap_or_default());
            state.book.stats.logouts += 1;
            Reply::empty(200)
        }
        // Whether the user exists is not revealed, and nobody's password is changed here.
        _ => Reply::empty(200),
    }
}

impl State {
    fn mint(&mut self, options: &Options, now: u64) -> Reply {
        if self.auth.request_tokens.len() >= REMEMBERED {
            return Reply::empty(500);
        }
        let token = format!("rt-{}", Uuid::new_v4().simple());
        self.auth.request_tokens.insert(token.clone(), now + REQUEST_TOKEN);
        self.book.stats.request_tokens_minted += 1;
        string(options, &token)
    }

    fn log_in(&mut self, options: &Options, body: &Value, now: u64) -> Reply {
        let is_right = body["username"] == USERNAME
            && body["password"] == PASSWORD
            && body["type"] == USER_TYPE;
        if !is_right {
            self.book.stats.failed_logins += 1;
            return Reply::empty(401);
        }
        if let Some(kind) = self.faults.malformed_login() {
            return malformed(kind);
        }
        if self.auth.sessions.len() >= options.max_sessions {
            self.book.stats.failed_logins += 1;
            return Reply::code("SESSION_MAXOUT", "Session limit reached.");
        }
        if options.mfa {
            let session = format!("challenge-{}", Uuid::new_v4().simple());
            self.auth.challenges.insert(session.clone(), now + CHALLENGE);
            return Reply::json(&json!({ "challenge": 1, "jwtToken": null, "session": session }));
        }
        self.open(options, now)
    }

    fn respond(&mut self, options: &Options, body: &Value, now: u64) -> Reply {
        // The session of a challenge is good for one answer.
        let session = body["session"].as_str().unwrap_or_default();
        let is_open = self.auth.challenges.remove(session).is_some();
        let code = body["userCode"].as_str().unwrap_or_default();
        let step = [now, now.saturating_sub(STEP), now + STEP]
            .into_iter()
            .map(|time| time / STEP)
            .find(|step| {
                code_at(*step).as_deref() == Some(code) && !self.auth.used_steps.contains(step)
            });
        match step.filter(|_| is_open) {
            Some(step) => {
                self.auth.used_steps.insert(step);
                self.book.stats.mfa_responses += 1;
                self.open(options, now)
            }
            None => {
                self.book.stats.failed_mfa_responses += 1;
                Reply::code("TOTP", "The code is wrong, was used before, or its session is over.")
            }
        }
    }

    fn open(&mut self, options: &Options, now: u64) -> Reply {
        let expires = now + options.token_ttl.as_secs();
        let token = token(options, now, expires);
        self.auth.sessions.insert(token.clone(), expires);
        let stats = &mut self.book.stats;
        stats.logins += 1;
        stats.peak_sessions = stats.peak_sessions.max(self.auth.sessions.len());
        Reply::json(&json!({ "challenge": 0, "jwtToken": token, "session": null }))
    }
}

/// A token; a JWT that nobody needs to verify, unless it is to be opaque.
pub(super) fn token(options: &Options, now: u64, expires: u64) -> String {
    let id = Uuid::new_v4();
    let claims = json!({
        "sub": super::data::USER_ID,
        "accountId": super::data::ACCOUNT_ID,
        "role": USER_TYPE,
        "sid": id,
        "iat": now,
        "exp": expires,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(b"everybody knows this key");
    let jwt = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key);
    match jwt {
        Ok(jwt) if !options.opaque_tokens => jwt,
        _ => format!("opaque-{}", id.simple()),
    }
}

/// A string, with or without JSON quotes: the contract leaves it open.
pub(super) fn string(options: &Options, text: &str) -> Reply {
    if options.bare_strings {
        Reply::text(200, text.to_owned())
    } else {
        Reply::json(&Value::from(text))
    }
}

fn malformed(kind: Malformation) -> Reply {
    match kind {
        Malformation::Html => Reply::text(200, "<html><body>Please wait.</body></html>"),
        Malformation::Empty => Reply::empty(200),
        Malformation::Broken => Reply::text(200, r#"{"challenge":0,"jwtTo"#),
        Malformation::NoToken => Reply::json(&json!({ "challenge": 0, "jwtToken": "" })),
        Malformation::UnknownChallenge => {
            Reply::json(&json!({ "challenge": 2, "jwtToken": "", "session": "c21zLWZha2U=" }))
        }
    }
}

fn code_at(step: u64) -> Option<String> {
    let secret = Secret::try_from_base32(TOTP_SECRET).ok()?;
    Some(Builder::new().with_secret(secret).build_noncompliant().generate(step * STEP).to_string())
}
