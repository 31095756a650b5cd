//! A gateway at work, an emulated Amove behind it, and a client in front of it.
//!
//! [`TestGateway`] alone knows how a gateway is assembled for a test; a test states what differs.

use std::{net::SocketAddr, time::Duration};

use amove_gateway::{
    app::App,
    clock::Clock,
    config::{Listen, load},
    emulator::{self, Emulator, Host, Options, Seen},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use toml_edit::{DocumentMut, Item, TableLike};

/// Nothing that a test waits for takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A route that reads, and whose answer is known.
pub(crate) const USERINFO: &str = "/api/v1/user/userinfo";
/// Answers what was received, head and body. Not in the catalogue: the bearer is wanted.
pub(crate) const ECHO: &str = "/api/v1/emulator/echo";

/// With this among its settings, a gateway guards what it guards by default.
pub(crate) const GUARDED: &str = "policy.guarded = true\n";

/// A gateway and the Amove behind it.
#[derive(Debug)]
pub(crate) struct TestGateway {
    /// The emulated Amove: what it saw, and what is to go wrong.
    pub(crate) amove: Emulator,
    app: App,
    _folder: TempDir,
}

impl TestGateway {
    /// A gateway with one identity that has a second factor; everyone here may call.
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// The same, where `settings` (TOML) say something else.
    pub(crate) async fn with(settings: &str) -> Self {
        Self::before(Options::default(), settings).await
    }

    /// Before an Amove that asks for no second factor: the next login need not wait for the next
    /// TOTP code.
    pub(crate) async fn without_mfa(settings: &str) -> Self {
        Self::before(Options { mfa: false, ..Options::default() }, settings).await
    }

    /// Before an Amove with `options`.
    pub(crate) async fn before(options: Options, settings: &str) -> Self {
        let amove = Emulator::start(options).await.expect("an emulator");
        Self::in_front_of(amove, settings).await
    }

    /// Before an Amove that is there already.
    pub(crate) async fn in_front_of(amove: Emulator, settings: &str) -> Self {
        let text = configuration(&amove, settings);
        let mut config = load::load_str(&text, &[]).expect("a valid configuration").config;
        let folder = tempfile::tempdir().expect("a folder");
        config.audit.store = folder.path().join("audit");
        let app = App::start(&config, Clock::system()).await.expect("a gateway");
        Self { amove, app, _folder: folder }
    }

    /// Where callers reach it.
    pub(crate) fn address(&self) -> SocketAddr {
        match self.app.addresses().first().expect("a listener") {
            Listen::Tcp(address) => *address,
            Listen::Unix(path) => panic!("tests call over TCP, not over {}", path.display()),
        }
    }

    /// Where operators reach it, and then probes.
    pub(crate) fn admin_addresses(&self) -> &[SocketAddr] {
        self.app.admin_addresses()
    }

    /// What operators are answered.
    pub(crate) async fn ask_operator(&self, path: &str) -> Reply {
        self.operate(request("GET", path, &[], "")).await
    }

    /// What operators are answered to an order.
    pub(crate) async fn order(&self, path: &str) -> Reply {
        self.operate(request("POST", path, &[], "")).await
    }

    /// What operators are answered to any request.
    pub(crate) async fn operate(&self, request: Request<Full<Bytes>>) -> Reply {
        let admin = *self.admin_addresses().first().expect("an admin listener");
        Http1::to(admin).await.call(request).await
    }

    /// Calls `path`.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.get_with(path, &[]).await
    }

    /// Calls `path` with header fields.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", path, headers, "").await
    }

    /// Sends a JSON body.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body).await
    }

    /// Sends anything that is well formed, on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.connect().await.call(request(method, path, headers, body)).await
    }

    /// A connection that speaks HTTP/1.1.
    pub(crate) async fn connect(&self) -> Http1 {
        Http1::to(self.address()).await
    }

    /// A connection that speaks HTTP/2 without having asked.
    pub(crate) async fn connect_http2(&self) -> Http2 {
        Http2::to(self.address()).await
    }

    /// A connection on which a test writes what it likes.
    pub(crate) async fn wire(&self) -> Wire {
        Wire(TcpStream::connect(self.address()).await.expect("a connection"))
    }

    /// Sends these very bytes, and returns what comes until the gateway ends the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut wire = self.wire().await;
        wire.write(bytes).await;
        wire.read_to_end().await
    }

    /// What reached Amove's main host so far: logins are not among it.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut seen = self.amove.requests();
        seen.retain(|seen| seen.host == Host::Main);
        seen
    }

    /// The one request that reached Amove's main host.
    pub(crate) fn the_one_seen(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "one request reaches Amove: {seen:#?}");
        seen.remove(0)
    }

    /// Waits until a session is there, and forgets what was needed for it.
    pub(crate) async fn logged_in(self) -> Self {
        until("the gateway is ready", async || self.ask_operator("/readyz").await.status == 200)
            .await;
        self.amove.forget_requests();
        self
    }

    /// Ends as a told gateway does; Amove lives on.
    pub(crate) async fn drain(self) -> Emulator {
        self.app.drain().await;
        self.amove
    }
}

/// The usual configuration, with `settings` on top.
fn configuration(amove: &Emulator, settings: &str) -> String {
    let usual = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\nworkers = 1\n\
         drain_timeout = \"5s\"\n\
         [upstream]\napi_url = \"{}\"\nauth_url = \"{}\"\n",
        amove.api_url(),
        amove.auth_url(),
    );
    let identity = format!(
        "[identities.main]\nusername = \"{}\"\npassword = \"{}\"\nuser_type = {}\ntotp_secret = \"{}\"\n",
        emulator::USERNAME,
        emulator::PASSWORD,
        emulator::USER_TYPE,
        emulator::TOTP_SECRET,
    );
    let settings: DocumentMut = settings.parse().expect("settings are TOML");
    // Whoever logs in with a token has neither name nor password.
    let has_token =
        settings.get("identities").is_some_and(|it| it.to_string().contains("api_token"));
    let usual = if has_token { usual } else { usual + &identity };
    // What is guarded stands aside, so that every route can be called: see `GUARDED`.
    let usual = usual + "[policy]\ndeny_tags = []\n";
    let mut document: DocumentMut = usual.parse().expect("the usual configuration is TOML");
    lay_over(document.as_table_mut(), settings.as_table());
    if let Some(policy) = document.get_mut("policy").and_then(Item::as_table_like_mut)
        && policy.remove("guarded").is_some()
    {
        policy.remove("deny_tags");
    }
    document.to_string()
}

fn lay_over(below: &mut dyn TableLike, above: &dyn TableLike) {
    for (key, item) in above.iter() {
        match (below.get_mut(key).and_then(Item::as_table_like_mut), item.as_table_like()) {
            (Some(below), Some(above)) => lay_over(below, above),
            _ => drop(below.insert(key, item.clone())),
        }
    }
}

/// Waits for `condition`.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(DEADLINE, waiting).await.is_ok(), "waited in vain: {what}");
}

/// A request that is well formed.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.into();
    // Bodies are JSON unless a test says something else; Amove insists on being told.
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    request.body(Full::new(body)).expect("a well-formed request")
}

/// An answer that came whole.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Its header fields.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Reply {
    async fn try_read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (parts, body) = response.into_parts();
        let body = timeout(DEADLINE, body.collect()).await.expect("a body in time")?.to_bytes();
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Reads an answer off the bytes of a connection: the first one there.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            let name: http::HeaderName = name.parse().ok()?;
            headers.append(name, value.parse().ok()?);
        }
        let length = headers.get("content-length").and_then(|it| it.to_str().ok()?.parse().ok());
        let body = bytes.get(end + 4..end + 4 + length.unwrap_or(0_usize))?;
        Some(Self { status, headers, body: Bytes::copy_from_slice(body) })
    }

    /// A header field, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of ASCII"))
    }

    /// The body, read as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The name of the problem that it is, if it is one.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.header("content-type") != Some("application/problem+json") {
            return None;
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["title", "detail", "request_id"] {
            assert!(problem[member].as_str().is_some_and(|it| !it.is_empty()), "{problem}");
        }
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        let kind = problem["type"].as_str().expect("a type");
        Some(kind.strip_prefix("urn:amove-gateway:problem:").expect("our type").to_owned())
    }

    /// Status and problem, for one assertion.
    pub(crate) fn outcome(&self) -> (u16, String) {
        (self.status, self.problem().unwrap_or_else(|| "no problem".into()))
    }
}

/// A connection that speaks HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Http1(http1::SendRequest<Full<Bytes>>, SocketAddr);

impl Http1 {
    /// Opens one.
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        Self(sender, address)
    }

    /// Sends `request` and reads the answer.
    pub(crate) async fn call(&mut self, request: Request<Full<Bytes>>) -> Reply {
        let response = self.open(request).await;
        Reply::try_read(response).await.expect("a body that does not break off")
    }

    /// Sends `request` and reads the answer's head; the body is still to come.
    pub(crate) async fn open(&mut self, mut request: Request<Full<Bytes>>) -> Response<Incoming> {
        let host = self.1.to_string().parse().expect("an address is a header value");
        request.headers_mut().entry("host").or_insert(host);
        self.0.ready().await.expect("a connection that is open");
        let response = timeout(DEADLINE, self.0.send_request(request)).await;
        response.expect("an answer in time").expect("an answer")
    }
}

/// A connection that speaks HTTP/2.
#[derive(Clone, Debug)]
pub(crate) struct Http2(http2::SendRequest<Full<Bytes>>, SocketAddr);

impl Http2 {
    async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.expect("a handshake");
        tokio::spawn(connection);
        Self(sender, address)
    }

    /// Sends `request` and reads the answer.
    pub(crate) async fn call(&mut self, request: Request<Full<Bytes>>) -> Reply {
        self.try_call(request).await.expect("an answer that does not break off")
    }

    /// Sends `request` and reads the answer, if it comes to its end.
    pub(crate) async fn try_call(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> hyper::Result<Reply> {
        let target = format!("http://{}{}", self.1, request.uri());
        *request.uri_mut() = target.parse().expect("a target");
        self.0.ready().await?;
        let response = timeout(DEADLINE, self.0.send_request(request)).await;
        Reply::try_read(response.expect("an answer in time")?).await
    }
}

/// A connection on which anything may be written.
#[derive(Debug)]
pub(crate) struct Wire(TcpStream);

impl Wire {
    /// Writes as much of `bytes` as the gateway takes: it may have ended the connection.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = timeout(DEADLINE, self.0.write_all(bytes)).await;
    }

    /// Reads one whole answer; more may follow.
    pub(crate) async fn read(&mut self) -> Reply {
        let mut bytes = Vec::new();
        let reading = async {
            loop {
                if let Some(reply) = Reply::parse(&bytes) {
                    return reply;
                }
                let read = self.0.read_buf(&mut bytes).await.unwrap_or(0);
                assert!(read > 0, "the answer broke off: {}", String::from_utf8_lossy(&bytes));
            }
        };
        timeout(DEADLINE, reading).await.expect("an answer in time")
    }

    /// Reads until the gateway ends the connection.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset ends it as well.
        let ended = timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await;
        assert!(
            ended.is_ok(),
            "the connection stays open after {}",
            String::from_utf8_lossy(&bytes)
        );
        bytes
    }
}

/// What the configuration knows of the key of a caller.
pub(crate) fn hash_of(key: &str) -> String {
    format!("blake3:{}", blake3::hash(key.as_bytes()).to_hex())
}
