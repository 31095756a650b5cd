//! A small auth host, and sessions that use it while time stands still.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::JoinHandle, time::Instant};

use super::{Sessions, State, Status, totp::Totp};
use crate::{
    clock::Clock,
    config::{
        self, BaseUrl, Credentials, Http2, Identity, RefreshAhead, SessionStore, StoreError,
        StoreKind, UserType, secret::Secret,
    },
    upstream::Upstream,
};

pub(super) const USERNAME: &str = "svc@corp.test";
pub(super) const PASSWORD: &str = "correct horse battery staple";
pub(super) const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
pub(super) const API_TOKEN: &str = "configured.api.token";

/// What the host answers instead of what it should.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Status(u16),
    Code(&'static str),
    /// A 499 whose code is in the header only.
    BareCode(&'static str),
    RetryAfter(u32),
    Body(String),
    Hangup,
}

/// The auth host.
pub(super) struct Auth {
    pub(super) script: Mutex<Script>,
    clock: Clock,
    open: watch::Sender<bool>,
}

/// What the host knows, does and has seen.
pub(super) struct Script {
    pub(super) password: String,
    pub(super) mfa: bool,
    pub(super) quoted: bool,
    pub(super) ttl: Duration,
    pub(super) readable: bool,
    pub(super) ahead: SignedDuration,
    pub(super) faults: VecDeque<(&'static str, Fault)>,
    /// For ever, once the others are used up.
    pub(super) down: Option<Fault>,
    pub(super) logins: Vec<Instant>,
    pub(super) codes: Vec<String>,
    pub(super) logouts: Vec<String>,
    pub(super) bodyless_without_length: u32,
    pub(super) reused: u32,
    unspent: HashSet<String>,
    issued: u32,
}

impl Auth {
    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn logins(&self) -> usize {
        self.script().logins.len()
    }

    pub(super) fn fail_next(&self, call: &'static str, fault: Fault) {
        self.script().faults.push_back((call, fault));
    }

    /// Logins get no answer for the time being.
    pub(super) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn release(&self) {
        self.open.send_replace(true);
    }

    async fn start(clock: Clock) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let script = Script {
            password: PASSWORD.to_owned(),
            mfa: false,
            quoted: true,
            ttl: Duration::from_secs(3600),
            readable: true,
            ahead: SignedDuration::ZERO,
            faults: VecDeque::new(),
            down: None,
            logins: Vec::new(),
            codes: Vec::new(),
            logouts: Vec::new(),
            bodyless_without_length: 0,
            reused: 0,
            unspent: HashSet::new(),
            issued: 0,
        };
        let auth =
            Arc::new(Self { script: Mutex::new(script), clock, open: watch::Sender::new(true) });
        let host = Arc::clone(&auth);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let host = Arc::clone(&host);
                let serve = service_fn(move |request| Arc::clone(&host).serve(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        (auth, port)
    }

    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, &'static str> {
        let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let length = request.headers().get(header::CONTENT_LENGTH).cloned();
        let body = request.into_body().collect().await.map_err(|_| "broken")?.to_bytes();
        let fields: Value = serde_json::from_slice(&body).unwrap_or_default();
        if call == "login" {
            self.script().logins.push(Instant::now());
            let mut open = self.open.subscribe();
            let _ = open.wait_for(|open| *open).await;
        }
        if body.is_empty() && length.is_none() {
            self.script().bodyless_without_length += 1;
        }
        let fault = self.fault(&call);
        let spent = self.script().spend(&call, &fields);
        let answer = match (fault, spent) {
            (Some(Fault::Hangup), _) => return Err("hung up"),
            (Some(fault), _) => faulty(&fault),
            (None, false) => faulty(&Fault::Code("TOKEN")),
            (None, true) => self.answer(&call, &fields),
        };
        Ok(self.dated(answer))
    }

    fn fault(&self, call: &str) -> Option<Fault> {
        let mut script = self.script();
        let ordered = script.faults.iter().position(|(on, _)| *on == call);
        match ordered {
            Some(place) => script.faults.remove(place).map(|(_, fault)| fault),
            None => script.down.clone(),
        }
    }

    fn answer(&self, call: &str, fields: &Value) -> Response<Full<Bytes>> {
        let now = self.time();
        let mut script = self.script();
        match call {
            "request_token" => {
                script.issued += 1;
                let token = format!("rt-{:04}-fake", script.issued);
                script.unspent.insert(token.clone());
                let text = if script.quoted { format!("\"{token}\"") } else { token };
                ok(text)
            }
            "login"
                if fields["username"] != USERNAME
                    || fields["password"] != script.password.as_str()
                    || fields["type"] != 4 =>
            {
                faulty(&Fault::Status(401))
            }
            "login" if script.mfa => {
                ok(json!({ "challenge": 1, "jwtToken": null, "session": "opaque" }).to_string())
            }
            "login" => ok(json!({ "challenge": 0, "jwtToken": script.jwt(now) }).to_string()),
            "mfa_respond" => {
                let code = fields["userCode"].as_str().unwrap_or_default().to_owned();
                let totp = Totp::parse(&SecretString::from(SEED)).expect("a seed");
                let right = totp.is_code(&code, now) && !script.codes.contains(&code);
                script.codes.push(code);
                if !right || fields["session"] != "opaque" {
                    return faulty(&Fault::Code("TOTP"));
                }
                ok(json!({ "challenge": 0, "jwtToken": script.jwt(now), "session": "" })
                    .to_string())
            }
            "logout" => {
                let jwt = fields["jwtToken"].as_str().unwrap_or_default().to_owned();
                script.logouts.push(jwt);
                ok(String::new())
            }
            "userinfo" => ok("{}".to_owned()),
            _ => faulty(&Fault::Status(404)),
        }
    }

    fn time(&self) -> Timestamp {
        let ahead = self.script().ahead;
        self.clock.now().checked_add(ahead).expect("a time")
    }

    fn dated(&self, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        let date = httpdate::fmt_http_date(self.time().into());
        response.headers_mut().insert(header::DATE, date.parse().expect("a date"));
        response
    }
}

impl Script {
    fn spend(&mut self, call: &str, fields: &Value) -> bool {
        if call == "request_token" || call == "userinfo" {
            return true;
        }
        let fresh = self.unspent.remove(fields["requestToken"].as_str().unwrap_or_default());
        self.reused += u32::from(!fresh);
        fresh
    }

    fn jwt(&mut self, now: Timestamp) -> String {
        self.issued += 1;
        let exp = now.as_second() + i64::try_from(self.ttl.as_secs()).expect("seconds");
        if self.readable { jwt(exp, self.issued) } else { format!("sealed.{}.fake", self.issued) }
    }
}

/// A token that expires at `exp`.
pub(super) fn jwt(exp: i64, number: u32) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "HS256", "typ": "JWT" }));
    format!("{header}.{}.fake", part(json!({ "exp": exp, "jti": number })))
}

fn ok(body: String) -> Response<Full<Bytes>> {
    Response::new(Full::from(body))
}

fn faulty(fault: &Fault) -> Response<Full<Bytes>> {
    let response = Response::builder();
    let response = match fault {
        Fault::Status(status) => response.status(*status).body(Full::default()),
        Fault::Code(code) => {
            let body = json!({ "type": code, "status": 499, "errors": { *code: ["a message"] } });
            response.status(499).header("error-code", *code).body(Full::from(body.to_string()))
        }
        Fault::BareCode(code) => {
            response.status(499).header("Error-Code", *code).body(Full::default())
        }
        Fault::RetryAfter(seconds) => response
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .header(header::RETRY_AFTER, *seconds)
            .body(Full::default()),
        Fault::Body(body) => response.body(Full::from(body.clone())),
        Fault::Hangup => response.body(Full::default()),
    };
    response.expect("a response")
}

/// Sessions, the host they use, and a clock that only the test turns.
pub(super) struct World {
    pub(super) auth: Arc<Auth>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) clock: Clock,
    auth_url: BaseUrl,
    /// While a blocking task runs, tokio's paused clock does not run ahead of the sockets.
    _still: std::sync::mpsc::Sender<Infallible>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(password(PASSWORD)).await
    }

    pub(super) async fn with(credentials: Credentials) -> Self {
        Self::with_identity(identity(credentials)).await
    }

    pub(super) async fn with_identity(identity: Identity) -> Self {
        let (still, stop) = std::sync::mpsc::channel::<Infallible>();
        tokio::task::spawn_blocking(move || stop.recv().is_err());
        let clock = Clock::following(Timestamp::from_second(1_800_000_000).expect("a time"));
        let (auth, port) = Auth::start(clock.clone()).await;
        let config = upstream(port);
        let upstream = Upstream::new(&config).expect("an upstream");
        let store = SessionStore { kind: StoreKind::Memory, on_error: StoreError::Local };
        let sessions = Sessions::new(
            &[identity],
            &store,
            &config.auth_url,
            upstream,
            clock.clone(),
            Handle::current(),
        )
        .expect("a store");
        // Nothing runs before the test waits for the first time.
        sessions.start();
        let auth_url = config.auth_url;
        Self { auth, sessions, clock, auth_url, _still: still }
    }

    /// Other identities come into force; the sessions of before, as requests under way have them.
    pub(super) fn change(&mut self, identities: &[Identity]) -> Arc<Sessions> {
        let upstream = self.sessions.upstream.clone();
        let next = self.sessions.under(identities, &self.auth_url, &upstream);
        next.take_over(&self.sessions);
        std::mem::replace(&mut self.sessions, next)
    }

    pub(super) fn status(&self) -> Status {
        self.sessions.status().remove(0)
    }

    /// Lets time go by, and everything that is due in it happen.
    pub(super) async fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        self.settle().await;
        while Instant::now() < end {
            let step = Duration::from_secs(1).min(end - Instant::now());
            tokio::time::advance(step).await;
            self.settle().await;
        }
    }

    /// Lets time go by until `task` is done.
    pub(super) async fn outcome<T>(&self, task: JoinHandle<T>) -> T {
        while !task.is_finished() {
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        task.await.expect("no panic")
    }

    /// Waits until no login is under way.
    pub(super) async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        until(|| !matches!(self.status().state, State::LoggingIn | State::Renewing)).await;
    }
}

/// Waits for a condition while the clock stands still.
pub(super) async fn until(condition: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it never came to pass");
        tokio::task::yield_now().await;
    }
}

pub(super) fn identity(credentials: Credentials) -> Identity {
    Identity {
        name: "main".into(),
        credentials,
        refresh_ahead: RefreshAhead::Share(0.2),
        max_age: Duration::from_secs(12 * 3600),
        replay_buffer: 65_536,
        logout_on_shutdown: true,
    }
}

pub(super) fn password(password: &str) -> Credentials {
    credentials(secret(password), None)
}

pub(super) fn credentials(password: Secret, totp: Option<&str>) -> Credentials {
    Credentials::Password {
        username: USERNAME.to_owned(),
        password,
        user_type: UserType::AccountAdmin,
        totp: totp.map(secret),
    }
}

pub(super) fn secret(value: &str) -> Secret {
    Secret::Inline(SecretString::from(value))
}

pub(super) fn secret_file(path: &Path) -> Secret {
    Secret::File(path.to_owned())
}

fn upstream(port: u16) -> config::Upstream {
    let url = BaseUrl { tls: false, host: "127.0.0.1".into(), port };
    config::Upstream {
        api_url: url.clone(),
        auth_url: url,
        ca_file: None,
        http2: Http2::Never,
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(60),
        total_timeout: None,
        max_connections: 16,
        max_connection_age: None,
        adaptive: false,
        max_waiting: 0,
        max_wait: Duration::ZERO,
        retry_budget: 0.0,
        breaker_failures: 0,
        breaker_cooldown: Duration::from_secs(5),
    }
}
