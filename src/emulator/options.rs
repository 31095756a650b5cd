//! How the emulator is to behave, above all where the documentation leaves it open.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{PASSWORD, TOTP_SECRET, USER_TYPE, USERNAME, clock::Clock};

/// What an emulator is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the main host listens.
    pub api_listen: SocketAddr,
    /// Where the auth host listens.
    pub auth_listen: SocketAddr,
    /// How long a session lives.
    pub token_ttl: Duration,
    /// Whether accounts with a TOTP secret are asked for a code.
    pub mfa: bool,
    /// How many sessions an account may hold before `SESSION_MAXOUT`.
    pub max_sessions: usize,
    /// Whether API tokens count as sessions (contract section 13.1).
    pub api_tokens_count: bool,
    /// Serve HTTPS, and write the test CA to `ca.pem` in this directory.
    pub tls_dir: Option<PathBuf>,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// Issue JWTs whose claims cannot be read.
    pub opaque_tokens: bool,
    /// Who can log in.
    pub accounts: Vec<Account>,
    /// Failed logins in a row after which an account is inactive; `None`: any number.
    pub lock_after: Option<u32>,
    /// Whether the account has a subscription.
    pub subscribed: bool,
    /// When a request token is spent (contract section 13.2).
    pub request_token_spent: Spent,
    /// How wrong credentials are refused (contract section 13.5).
    pub refusal: Refused,
    /// How a dead session shows on the main host (contract section 13.4).
    pub dead_session: DeadSession,
    /// How string answers are written (contract section 13.3).
    pub strings: Strings,
    /// How an unused field of a login answer is written (contract section 4.2).
    pub unused: Unused,
    /// How a 499 is written (contract section 13.7).
    pub problems: Problems,
    /// How many requests are remembered.
    pub remember: usize,
    /// What tells the time.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            api_listen: anywhere,
            auth_listen: anywhere,
            token_ttl: Duration::from_secs(3600),
            mfa: true,
            max_sessions: 5,
            api_tokens_count: false,
            tls_dir: None,
            http2: true,
            opaque_tokens: false,
            accounts: vec![Account::default()],
            lock_after: None,
            subscribed: true,
            request_token_spent: Spent::default(),
            refusal: Refused::default(),
            dead_session: DeadSession::default(),
            strings: Strings::default(),
            unused: Unused::default(),
            problems: Problems::default(),
            remember: 4096,
            clock: Clock::system(),
        }
    }
}

/// Somebody who can log in.
#[derive(Clone, Debug)]
pub struct Account {
    /// The name to log in with.
    pub username: String,
    /// The password to log in with.
    pub password: String,
    /// The `UserType` this user really has.
    pub user_type: u8,
    /// The TOTP secret in base32; `None`: this user is never asked for a code.
    pub totp_secret: Option<String>,
    /// Whether this user may log in at all.
    pub active: bool,
    /// Whether this user owns the company's account.
    pub owner: bool,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            username: USERNAME.to_owned(),
            password: PASSWORD.to_owned(),
            user_type: USER_TYPE,
            totp_secret: Some(TOTP_SECRET.to_owned()),
            active: true,
            owner: true,
        }
    }
}

/// When a request token is spent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Spent {
    /// By the first call that uses it.
    #[default]
    ByUse,
    /// By the first call that succeeds with it.
    BySuccess,
}

/// How wrong credentials are refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Refused {
    /// 401.
    #[default]
    Unauthorized,
    /// 499 `AUTH`.
    Auth,
}

/// How a missing, expired or revoked bearer is refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadSession {
    /// 401 and nothing else.
    #[default]
    Plain,
    /// 401 with `WWW-Authenticate`.
    Challenge,
    /// 499 `SESSION`.
    Session,
    /// 499 `TOKEN`.
    Token,
}

/// How a string answer is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Strings {
    /// As JSON.
    #[default]
    Quoted,
    /// As plain text.
    Bare,
    /// As JSON and as plain text in turn.
    Alternate,
}

/// How an unused field of a login answer is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unused {
    /// `null`.
    #[default]
    Null,
    /// Not at all.
    Absent,
    /// `""`.
    Empty,
}

/// How a 499 is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Problems {
    /// As `application/json`, with the three documented members.
    #[default]
    Json,
    /// As `application/problem+json`, with a title.
    ProblemJson,
    /// Without a body: the `error-code` header is all there is.
    Bare,
}
