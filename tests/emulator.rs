//! The emulator behaves like the API it stands in for, asked over real sockets.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use amove_gateway::emulator::{
    Account, Clock, DeadSession, Emulator, Fault, Host, MAILED_TOKEN, Malformed, Options, PASSWORD,
    Problems, Refused, Spent, Strings, TOTP_SECRET, USERNAME, Unused,
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const FOREIGN_USER: &str = "0198a000-0000-7000-8000-000000000302";
const PROJECT: &str = "0198a000-0000-7000-8000-000000000101";

/// An emulator with a clock that only this test turns.
struct Amove {
    emulator: Emulator,
    seconds: Arc<AtomicU64>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the answer is JSON")
    }

    fn code(&self) -> &str {
        self.header("error-code")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl Amove {
    async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn without_mfa() -> Self {
        Self::with(Options { mfa: false, ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        let seconds = Arc::new(AtomicU64::new(1_780_000_000));
        let hands = Arc::clone(&seconds);
        let clock =
            Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(hands.load(Ordering::Relaxed)));
        let emulator = Emulator::start(Options { clock, ..options }).await.expect("it starts");
        Self { emulator, seconds }
    }

    fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    fn address(&self, host: Host) -> String {
        let url = match host {
            Host::Main => self.emulator.api_url(),
            Host::Auth => self.emulator.auth_url(),
        };
        url.split("//").nth(1).expect("a URL has a host").to_owned()
    }

    async fn send(&self, host: Host, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        let tcp = TcpStream::connect(self.address(host)).await.expect("it listens");
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        read(client.send_request(request).await?).await
    }

    async fn call(
        &self,
        (host, bearer): (Host, Option<&str>),
        (method, path): (&str, &str),
        body: Option<Value>,
    ) -> Answer {
        let request = request(bearer, (method, path), body);
        self.send(host, request).await.expect("there is an answer")
    }

    async fn get(&self, bearer: &str, path: &str) -> Answer {
        self.call((Host::Main, Some(bearer)), ("GET", path), None).await
    }

    async fn post(&self, bearer: &str, path: &str, body: Value) -> Answer {
        self.call((Host::Main, Some(bearer)), ("POST", path), Some(body)).await
    }

    async fn request_token(&self) -> String {
        let path = "/api/authentication/request_token";
        let answer = self.call((Host::Auth, None), ("POST", path), None).await;
        answer.body.trim_matches('"').to_owned()
    }

    async fn auth(&self, action: &str, mut body: Value) -> Answer {
        if body.get("requestToken").is_none() {
            body["requestToken"] = self.request_token().await.into();
        }
        let path = format!("/api/authentication/{action}");
        self.call((Host::Auth, None), ("POST", &path), Some(body)).await
    }

    async fn try_login(&self) -> Answer {
        self.auth("login", json!({"username": USERNAME, "password": PASSWORD, "type": 4})).await
    }

    async fn login(&self) -> String {
        let answer = self.try_login().await;
        answer.json()["jwtToken"].as_str().expect("a login without MFA gives a JWT").to_owned()
    }

    fn code(&self) -> String {
        let secret = totp_rs::Secret::try_from_base32(TOTP_SECRET).expect("base32");
        let totp = totp_rs::Builder::new().with_secret(secret).build().expect("a TOTP");
        totp.generate(self.seconds.load(Ordering::Relaxed)).to_string()
    }

    /// Sends `text` as it is, and returns all that comes back until the end.
    async fn raw(&self, host: Host, text: &str) -> std::io::Result<String> {
        let mut tcp = TcpStream::connect(self.address(host)).await?;
        tcp.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

fn request(
    bearer: Option<&str>,
    (method, path): (&str, &str),
    body: Option<Value>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "amove.test");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let body = match body {
        Some(Value::String(form)) => {
            request = request.header("content-type", "application/x-www-form-urlencoded");
            form
        }
        Some(json) => {
            request = request.header("content-type", "application/json");
            json.to_string()
        }
        None => {
            request = request.header("content-length", "0");
            String::new()
        }
    };
    request.body(Full::from(body)).expect("a request")
}

async fn read(response: http::Response<hyper::body::Incoming>) -> hyper::Result<Answer> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

// Logging in

#[tokio::test]
async fn a_login_takes_a_password_and_a_code() {
    let amove = Amove::start().await;

    let first = amove.try_login().await.json();
    assert_eq!((&first["challenge"], &first["jwtToken"]), (&json!(1), &Value::Null));
    let session = first["session"].clone();
    let second =
        amove.auth("mfa_respond", json!({"session": session, "userCode": amove.code()})).await;
    assert_eq!(second.json()["challenge"], 0);

    let jwt = second.json()["jwtToken"].as_str().expect("a JWT").to_owned();
    let info = amove.get(&jwt, "/api/v1/user/userinfo").await;
    assert_eq!((info.status, &info.json()["username"]), (200, &json!(USERNAME)));
    let stats = amove.emulator.stats();
    assert_eq!((stats.logins, stats.mfa_responses, stats.live_sessions), (1, 1, 1));
    assert_eq!(stats.request_tokens_minted, 2);
}

#[tokio::test]
async fn a_jwt_tells_who_holds_it_and_until_when_unless_it_is_opaque() {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let claims = |jwt: &str| -> Option<Value> {
        let payload = BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&payload).ok()
    };
    let amove = Amove::without_mfa().await;

    let claims_of_it = claims(&amove.login().await).expect("claims");

    assert_eq!(claims_of_it["role"], 4);
    assert_eq!(claims_of_it["exp"], 1_780_000_000 + 3600);
    let opaque =
        Amove::with(Options { mfa: false, opaque_tokens: true, ..Options::default() }).await;
    let jwt = opaque.login().await;
    assert_eq!(claims(&jwt), None);
    assert_eq!(opaque.get(&jwt, "/api/v1/user/userinfo").await.status, 200);
}

#[tokio::test]
async fn a_request_token_works_once_and_for_a_minute() {
    let amove = Amove::without_mfa().await;
    let login = |token: &str| json!({"requestToken": token, "username": USERNAME, "password": PASSWORD, "type": 4});

    let (used, old, last) = {
        let used = amove.request_token().await;
        (used, amove.request_token().await, amove.request_token().await)
    };
    assert_eq!(amove.auth("login", login(&used)).await.status, 200);
    let again = amove.auth("login", login(&used)).await;
    amove.pass(60);
    let in_time = amove.auth("login", login(&last)).await;
    amove.pass(1);
    let late = amove.auth("login", login(&old)).await;
    let made_up = amove.auth("login", login("made-up")).await;

    assert_eq!((again.status, again.code()), (499, "TOKEN"));
    assert_eq!(in_time.status, 200);
    assert_eq!((late.status, late.code()), (499, "TOKEN"));
    assert_eq!((made_up.status, made_up.code()), (499, "TOKEN"));
    assert_eq!(amove.emulator.stats().request_tokens_reused, 1);
}

#[tokio::test]
async fn a_failed_attempt_spends_the_request_token_or_not() {
    for (spent, expected) in [(Spent::ByUse, 499), (Spent::BySuccess, 200)] {
        let options = Options { mfa: false, request_token_spent: spent, ..Options::default() };
        let amove = Amove::with(options).await;
        let token = amove.request_token().await;
        let mut body = json!({"requestToken": token, "username": USERNAME, "type": 4});
        body["password"] = "wrong".into();
        assert_eq!(amove.auth("login", body.clone()).await.status, 401);

        body["password"] = PASSWORD.into();

        assert_eq!(amove.auth("login", body).await.status, expected, "{spent:?}");
    }
}

#[tokio::test]
async fn a_code_works_once() {
    let amove = Amove::start().await;
    let respond = async || {
        let session = amove.try_login().await.json()["session"].clone();
        amove.auth("mfa_respond", json!({"session": session, "userCode": amove.code()})).await
    };
    assert_eq!(respond().await.status, 200);

    let again = respond().await;
    amove.pass(30);
    let next = respond().await;

    assert_eq!((again.status, again.code()), (499, "TOTP"));
    assert_eq!(next.status, 200);
}

#[tokio::test]
async fn codes_of_neighbouring_steps_are_accepted_and_no_others() {
    for (late, expected) in [(30, 200), (60, 499)] {
        let amove = Amove::start().await;
        let session = amove.try_login().await.json()["session"].clone();
        let code = amove.code();
        amove.pass(late);

        let answer = amove.auth("mfa_respond", json!({"session": session, "userCode": code})).await;

        assert_eq!(answer.status, expected, "{late} s late");
    }
}

#[tokio::test]
async fn a_login_session_goes_stale() {
    let amove = Amove::start().await;
    let session = amove.try_login().await.json()["session"].clone();
    amove.pass(200);

    let body = json!({"session": session, "userCode": amove.code()});
    let answer = amove.auth("mfa_respond", body).await;

    assert_eq!((answer.status, answer.code()), (499, "TOTP"));
}

#[tokio::test]
async fn wrong_passwords_roles_and_names_look_the_same() {
    let amove = Amove::start().await;
    for (username, password, role) in
        [(USERNAME, "wrong", 4), (USERNAME, PASSWORD, 8), ("nobody@corp.test", PASSWORD, 4)]
    {
        let body = json!({"username": username, "password": password, "type": role});

        let answer = amove.auth("login", body).await;

        assert_eq!((answer.status, answer.body.as_str()), (401, ""));
    }
    assert_eq!(amove.emulator.stats().failed_logins, 3);
}

#[tokio::test]
async fn refused_credentials_may_be_a_499() {
    let amove = Amove::with(Options { refusal: Refused::Auth, ..Options::default() }).await;

    let answer = amove.auth("login", json!({"username": USERNAME, "type": 4})).await;

    assert_eq!((answer.status, answer.code()), (499, "AUTH"));
}

#[tokio::test]
async fn an_account_locks_after_failures_in_a_row() {
    let amove = Amove::with(Options { lock_after: Some(2), ..Options::default() }).await;
    for _ in 0..2 {
        amove.auth("login", json!({"username": USERNAME, "password": "wrong", "type": 4})).await;
    }

    let answer = amove.try_login().await;

    assert_eq!((answer.status, answer.code()), (499, "INACTIVE_USER"));
}

#[tokio::test]
async fn sessions_are_scarce_and_a_logout_frees_one() {
    let options = Options { mfa: false, max_sessions: 2, ..Options::default() };
    let amove = Amove::with(options).await;
    let first = amove.login().await;
    amove.login().await;
    let third = amove.try_login().await;
    assert_eq!((third.status, third.code()), (499, "SESSION_MAXOUT"));

    let logout = amove.auth("logout", json!({"jwtToken": first})).await;

    assert_eq!((logout.status, logout.body.as_str()), (200, ""));
    assert_eq!(amove.get(&first, "/api/v1/user/userinfo").await.status, 401);
    assert_eq!(amove.try_login().await.status, 200);
    let stats = amove.emulator.stats();
    assert_eq!((stats.logouts, stats.live_sessions, stats.peak_sessions), (1, 2, 2));
}

#[tokio::test]
async fn expired_sessions_leave_room() {
    let amove = Amove::with(Options { max_sessions: 1, ..Options::default() }).await;
    let login = async || {
        let session = amove.try_login().await.json()["session"].clone();
        amove.auth("mfa_respond", json!({"session": session, "userCode": amove.code()})).await
    };
    assert_eq!(login().await.status, 200);
    assert_eq!(amove.try_login().await.code(), "SESSION_MAXOUT");

    amove.pass(3600);

    assert_eq!(login().await.status, 200);
}

#[tokio::test]
async fn sessions_expire_and_can_be_revoked() {
    let options = Options { mfa: false, token_ttl: Duration::from_secs(90), ..Options::default() };
    let amove = Amove::with(options).await;
    let (expiring, path) = (amove.login().await, "/api/v1/user/userinfo");
    amove.pass(89);
    assert_eq!(amove.get(&expiring, path).await.status, 200);
    amove.pass(1);
    assert_eq!(amove.get(&expiring, path).await.status, 401);
    let revoked = amove.login().await;
    assert_eq!(amove.get(&revoked, path).await.status, 200);

    amove.emulator.revoke_sessions();

    assert_eq!(amove.get(&revoked, path).await.status, 401);
    assert_eq!(amove.emulator.stats().live_sessions, 0);
}

#[tokio::test]
async fn a_dead_session_shows_in_the_way_that_was_chosen() {
    let expected = [
        (DeadSession::Plain, 401, "", ""),
        (DeadSession::Challenge, 401, "", "Bearer error=\"invalid_token\""),
        (DeadSession::Session, 499, "SESSION", ""),
        (DeadSession::Token, 499, "TOKEN", ""),
    ];
    for (how, status, code, challenge) in expected {
        let amove = Amove::with(Options { dead_session: how, ..Options::default() }).await;

        let answer = amove.get("made-up", "/api/v1/user/userinfo").await;

        assert_eq!(
            (answer.status, answer.code(), answer.header("www-authenticate")),
            (status, code, challenge)
        );
    }
}

#[tokio::test]
async fn unused_fields_of_a_login_are_written_as_chosen() {
    for (unused, expected) in [
        (Unused::Null, Some(Value::Null)),
        (Unused::Empty, Some("".into())),
        (Unused::Absent, None),
    ] {
        let amove = Amove::with(Options { unused, ..Options::default() }).await;

        assert_eq!(amove.try_login().await.json().get("jwtToken"), expected.as_ref());
    }
}

#[tokio::test]
async fn strings_come_quoted_bare_or_in_turns() {
    for (strings, expected) in [
        (Strings::Quoted, [true, true]),
        (Strings::Bare, [false, false]),
        (Strings::Alternate, [true, false]),
    ] {
        let amove = Amove::with(Options { strings, ..Options::default() }).await;
        let mut quoted = Vec::new();
        for _ in 0..2 {
            let path = "/api/authentication/request_token";
            let answer = amove.call((Host::Auth, None), ("POST", path), None).await;
            assert_eq!(answer.header("content-type").contains("json"), answer.body.contains('"'));
            quoted.push(answer.body.contains('"'));
        }
        assert_eq!(quoted, expected);
    }
}

// The two hosts

#[tokio::test]
async fn each_host_knows_its_own_paths_only() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    let token = "/api/authentication/request_token";
    let on_main = amove.call((Host::Main, None), ("POST", token), None).await;
    let userinfo = "/api/v1/user/userinfo";
    let on_auth = amove.call((Host::Auth, Some(&jwt)), ("GET", userinfo), None).await;

    assert_eq!((on_main.status, on_auth.status), (404, 404));
}

#[tokio::test]
async fn paths_are_read_the_way_asp_net_reads_them() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    for (method, path, expected) in [
        ("GET", "/API/V1/User/UserInfo/", 200),
        ("GET", "/api/user/userinfo", 200),
        ("GET", "/api/v2/user/userinfo", 404),
        ("GET", "/api/v1/user/nothing", 404),
        ("DELETE", "/api/v1/user/userinfo", 405),
    ] {
        let answer = amove.call((Host::Main, Some(&jwt)), (method, path), None).await;
        assert_eq!(answer.status, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn a_post_says_how_long_it_is_and_what_it_is_written_in() {
    let amove = Amove::without_mfa().await;
    let unmeasured = "POST /api/authentication/request_token HTTP/1.1\r\nHost: a\r\n\
                      Connection: close\r\n\r\n";
    assert!(amove.raw(Host::Auth, unmeasured).await.expect("read").starts_with("HTTP/1.1 411"));

    let jwt = amove.login().await;
    let bare = request(Some(&jwt), ("POST", "/api/v1/project/insert"), None);
    let answer = amove.send(Host::Main, bare).await.expect("an answer");

    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn a_bearer_where_none_belongs_is_counted() {
    let amove = Amove::without_mfa().await;

    let path = "/api/authentication/request_token";
    let answer = amove.call((Host::Auth, Some("x")), ("POST", path), None).await;

    assert_eq!((answer.status, amove.emulator.stats().stray_bearers), (200, 1));
}

// Things that are kept

#[tokio::test]
async fn projects_are_inserted_listed_changed_and_deleted() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let names = async |query: &str| {
        let list = amove.get(&jwt, &format!("/api/v1/project/get_all?{query}")).await.json();
        let rows = list["data"].as_array().expect("rows").clone();
        rows.iter().map(|row| row["name"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };

    let project = json!({"name": "Trailer", "description": "30 s", "active": true, "odd": 1});
    let inserted = amove.post(&jwt, "/api/v1/project/insert", project).await.json();
    assert_eq!((&inserted["name"], inserted.get("odd")), (&json!("Trailer"), None));
    assert_eq!(names("name=TRAIL").await, ["Trailer"]);

    let changed = json!({"id": inserted["id"], "name": "Teaser"});
    let path = "/api/v1/project/update";
    amove.call((Host::Main, Some(&jwt)), ("PUT", path), Some(changed)).await;
    assert_eq!(names("").await, ["Archive 2025", "Grading", "Rushes", "Teaser"]);

    let path = format!("/api/v1/project/delete?id={}", inserted["id"].as_str().expect("an id"));
    let deleted = amove.call((Host::Main, Some(&jwt)), ("DELETE", &path), None).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (200, ""));
    assert_eq!(names("").await, ["Archive 2025", "Grading", "Rushes"]);
    assert_eq!(names("deleted=true").await, ["Teaser"]);
    let again = amove.call((Host::Main, Some(&jwt)), ("DELETE", &path), None).await;
    assert_eq!((again.status, again.code()), (499, "NOT_FOUND"));

    let effects = amove.emulator.stats().side_effects;
    assert_eq!(effects.get("POST /api/v1/project/insert"), Some(&1));
    assert_eq!(effects.get("DELETE /api/v1/project/delete"), Some(&1));
}

#[tokio::test]
async fn lists_come_in_pages_and_in_order() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    let path = "/api/v1/project/get_all?page=2&pagesize=2&sortfield=Name&descending=true";
    let list = amove.get(&jwt, path).await.json();

    assert_eq!(list["total"], 3);
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["data"][0]["name"], "Archive 2025");
    let sort = json!([{"field": "Name", "descending": true}]);
    assert_eq!(list["options"], json!({"pageSize": 2, "page": 2, "sort": sort}));
    let wrong = amove.get(&jwt, "/api/v1/project/get_all?page=none").await;
    assert_eq!((wrong.status, wrong.code()), (499, "DEFAULT"));
}

#[tokio::test]
async fn names_that_must_be_unique_are() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    let answer = amove.post(&jwt, "/api/v1/project/insert", json!({"name": "Rushes"})).await;

    assert_eq!((answer.status, answer.code()), (499, "DUPLICATE"));
    let problem = answer.json();
    assert_eq!((&problem["type"], &problem["status"]), (&json!("DUPLICATE"), &json!(499)));
    assert!(problem["errors"]["DUPLICATE"][0].is_string());
}

#[tokio::test]
async fn links_are_made_once_and_show_what_they_lead_to() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let link = json!([{"userId": FOREIGN_USER, "projectId": PROJECT, "permissionType": 1}]);
    let path = "/api/v1/permission/users_project_permission";
    for _ in 0..2 {
        assert_eq!(amove.post(&jwt, path, link.clone()).await.status, 200);
    }

    let list = format!("/api/v1/permission/get_users_assigned_to_project?projectId={PROJECT}");
    let list = amove.get(&jwt, &list).await.json();

    let names: Vec<_> = [0, 1].map(|at| list["data"][at]["user"]["username"].clone()).into();
    assert_eq!(
        (&list["total"], names),
        (&json!(2), vec!["ada@corp.test".into(), "ben@corp.test".into()])
    );
    let details = amove.get(&jwt, "/api/v1/project/get_all_with_details?name=Rushes").await.json();
    assert_eq!(details["data"][0]["users"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn credentials_are_masked_except_where_amove_shows_them() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    let masked = amove.get(&jwt, "/api/v1/cloudaccount/get_all").await;
    let drives = amove.get(&jwt, "/api/v1/sharedclouddrive/get_all").await;
    let shown = amove.get(&jwt, "/api/v1/cloudaccount/get_amove_storage").await;
    let decrypted = amove.get(&jwt, "/api/v1/sharedclouddrive/get_shared_cloud_drive").await;

    assert!(!masked.body.contains("fake-secret") && !drives.body.contains("fake-secret"));
    assert!(shown.body.contains("fake-secret-1") && decrypted.body.contains("fake-secret-2"));
    assert_eq!(masked.json()["options"]["pageSize"], 0);
}

#[tokio::test]
async fn what_others_share_is_for_some_roles() {
    for (role, expected) in [(4, false), (16, true)] {
        let account = Account { user_type: role, ..Account::default() };
        let options = Options { mfa: false, accounts: vec![account], ..Options::default() };
        let amove = Amove::with(options).await;
        let body = json!({"username": USERNAME, "password": PASSWORD, "type": role});
        let login = amove.auth("login", body).await.json();
        let jwt = login["jwtToken"].as_str().expect("a JWT");

        let accounts = amove.get(jwt, "/api/v1/cloudaccount/get_all").await;

        assert_eq!(accounts.body.contains("Shared by Ben"), expected, "role {role}");
    }
}

#[tokio::test]
async fn an_api_token_is_a_bearer_until_it_is_deleted() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let new = json!({"title": "ci", "isEncrypted": true, "encryptionKey": "k",
        "expirationDate": "2027-06-30T00:00:00Z"});

    let inserted = amove.post(&jwt, "/api/v1/apitoken/insert", new).await.json();
    let token = inserted["token"].as_str().expect("a token").to_owned();
    let id = inserted["id"].as_str().expect("an id");

    let list = amove.get(&token, "/api/v1/apitoken/get_all").await.json();
    assert_eq!(list[0]["token"], token);
    let keys = amove.get(&token, "/api/v1/cloudaccount/get_amove_storage").await;
    assert!(keys.status == 200 && !keys.body.contains("fake-secret"));
    let path = format!("/api/v1/apitoken/delete?id={id}");
    amove.call((Host::Main, Some(&jwt)), ("DELETE", &path), None).await;
    assert_eq!(amove.get(&token, "/api/v1/user/userinfo").await.status, 401);
}

#[tokio::test]
async fn real_4xx_come_where_the_documentation_has_them() {
    let amove = Amove::with(Options { mfa: false, subscribed: false, ..Options::default() }).await;
    let jwt = amove.login().await;
    let foreign = "0198a000-0000-7000-8000-000000000";
    for (method, path, body, expected) in [
        ("PUT", "fastr/manage_share".to_owned(), json!({"id": format!("{foreign}602")}), 400),
        ("POST", "fastrLicense/activate".to_owned(), json!({"licenseKey": "none"}), 400),
        ("GET", "fastrLicense/info/FAKE-0002-FOREIGN".to_owned(), Value::Null, 403),
        ("GET", "fastrLicense/info/none".to_owned(), Value::Null, 404),
        ("POST", "fastrsettings/insert_for_user".to_owned(), json!({}), 400),
        ("PUT", "fastrsettings/update".to_owned(), json!({"id": format!("{foreign}802")}), 403),
        ("DELETE", format!("fastrsettings/delete?id={foreign}802"), Value::Null, 403),
        ("DELETE", format!("transferhistory/delete?id={foreign}a02"), Value::Null, 403),
        ("POST", "user/resend_user_email".to_owned(), json!({"username": "x"}), 400),
        ("POST", "usergroup/import_users".to_owned(), json!([]), 402),
        ("POST", "desktop/dropbox_authorization_callback".to_owned(), json!({"state": "x"}), 400),
        ("POST", "desktop/onedrive_authorization_callback".to_owned(), json!({"error": "x"}), 401),
    ] {
        let path = format!("/api/v1/{path}");
        let body = (!body.is_null()).then_some(body);
        let answer = amove.call((Host::Main, Some(&jwt)), (method, &path), body).await;
        assert_eq!((answer.status, answer.code()), (expected, ""), "{method} {path}");
    }
    let body = json!({"requestToken": amove.request_token().await, "token": "none"});
    let path = "/api/v1/desktop/confirm_signup";
    assert_eq!(amove.call((Host::Main, None), ("POST", path), Some(body)).await.status, 404);
}

#[tokio::test]
async fn roles_decide_what_works() {
    let account = Account { user_type: 64, ..Account::default() };
    let options = Options { mfa: false, accounts: vec![account], ..Options::default() };
    let amove = Amove::with(options).await;
    let body = json!({"username": USERNAME, "password": PASSWORD, "type": 64});
    let login = amove.auth("login", body).await.json();
    let jwt = login["jwtToken"].as_str().expect("a JWT");

    let sync = amove.get(jwt, "/api/v1/sync/get_all").await;
    let settings = amove.get(jwt, "/api/v1/fastrsettings/get_all/x").await;

    assert_eq!((sync.status, sync.code()), (499, "ACCESS"));
    assert_eq!(settings.status, 403);
}

#[tokio::test]
async fn secrets_of_consent_are_bound_to_the_caller() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let path = "/api/v1/desktop/generate_box_authorization_url";
    let url = amove.post(&jwt, path, json!({})).await.json();
    let state = url.as_str().and_then(|url| url.split("state=").nth(1)).expect("a state");

    let path = "/api/v1/desktop/box_authorization_callback";
    let good = amove.post(&jwt, path, json!({"code": "c", "state": state})).await;
    let bad = amove.post(&jwt, path, json!({"code": "c", "state": "forged"})).await;

    assert_eq!((good.status, &good.json()["cloudType"]), (200, &json!(256)));
    assert_eq!((bad.status, bad.code()), (499, "SECURITY"));
}

// The whole table

struct Row {
    host: Host,
    method: String,
    path: String,
    auth: String,
    response: String,
}

fn table() -> Vec<Row> {
    let rows = csv::Reader::from_path("src/amove/routes.csv").expect("the table").into_records();
    let rows = rows.map(|row| row.expect("a row")).map(|row| {
        let cell = |at: usize| row.get(at).unwrap_or("").to_owned();
        let host = if cell(0) == "auth" { Host::Auth } else { Host::Main };
        Row { host, method: cell(1), path: cell(2), auth: cell(3), response: cell(6) }
    });
    rows.collect()
}

/// The seeded thing that a route is about.
fn id(name: &str) -> &'static str {
    match name.split('/').next().unwrap_or("") {
        _ if name == "transfer/cancel_transfer" => "0198a000-0000-7000-8000-000000000902",
        _ if name == "transfer/retry_transfer" => "0198a000-0000-7000-8000-000000000903",
        _ if name == "project/unassign_sharedclouddrive" => "0198a000-0000-7000-8000-000000000d02",
        _ if name == "usergroup/unassign_user" => "0198a000-0000-7000-8000-000000000d03",
        "project" => PROJECT,
        "usergroup" => "0198a000-0000-7000-8000-000000000201",
        "user" => "0198a000-0000-7000-8000-000000000301",
        "cloudaccount" | "desktop" => "0198a000-0000-7000-8000-000000000401",
        "sharedclouddrive" => "0198a000-0000-7000-8000-000000000501",
        "fastr" => "0198a000-0000-7000-8000-000000000601",
        "fastrLicense" => "0198a000-0000-7000-8000-000000000701",
        "fastrsettings" => "0198a000-0000-7000-8000-000000000801",
        "transfer" => "0198a000-0000-7000-8000-000000000901",
        "transferhistory" => "0198a000-0000-7000-8000-000000000a01",
        "sync" => "0198a000-0000-7000-8000-000000000b01",
        "storage" => "0198a000-0000-7000-8000-000000000c01",
        _ => "",
    }
}

/// Does what has to be done before, and answers the id of what came of it.
async fn prepare(amove: &Amove, jwt: &str, row: &Row, name: &str) -> Value {
    if name.starts_with("permission/") && ["PUT", "DELETE"].contains(&row.method.as_str()) {
        amove.post(jwt, &row.path, links()).await;
        let list = match name.split_once('/').map_or("", |(_, action)| action) {
            "users_project_permission" => "get_users_assigned_to_project",
            "users_sharedclouddrive_permision" => "get_users_assigned_to_sharedclouddrive",
            "usergroups_project_permission" => "get_usergroups_assigned_to_project",
            _ => "get_usergroups_assigned_to_sharedclouddrive",
        };
        let list = amove.get(jwt, &format!("/api/v1/permission/{list}")).await.json();
        return list["data"][0]["id"].clone();
    }
    if name == "apitoken/delete" {
        let new = json!({"expirationDate": "2027-01-01T00:00:00Z"});
        return amove.post(jwt, "/api/v1/apitoken/insert", new).await.json()["id"].clone();
    }
    for setting in ["accountlogsetting", "okta", "saml", "entraId"] {
        if name.ends_with(setting) && !name.contains("setup_") {
            let (page, _) = name.split_once('/').expect("a resource");
            let path = format!("/api/v1/{page}/setup_{setting}");
            return amove.post(jwt, &path, json!({"active": true})).await.json()["id"].clone();
        }
    }
    id(name).into()
}

fn links() -> Value {
    json!([{"userId": FOREIGN_USER, "projectId": PROJECT,
        "userGroupId": "0198a000-0000-7000-8000-000000000201",
        "sharedCloudDriveId": "0198a000-0000-7000-8000-000000000501", "permissionType": 1}])
}

/// A body with which the call succeeds: everything that any route needs.
async fn body(amove: &Amove, jwt: &str, name: &str, id: Value) -> Value {
    if name.starts_with("permission/") || name.contains("/assign_") || name.contains("/import_") {
        let mut links = links();
        links[0]["id"] = id;
        links[0]["username"] = "ida@corp.test".into();
        return links;
    }
    if name == "sso/saml_acs" {
        return "SAMLResponse=signed+and+sealed&RelayState=e30%3D".into();
    }
    let state = match name.strip_suffix("_authorization_callback") {
        Some(provider) => {
            let provider = provider.replace("desktop/", "/api/v1/desktop/generate_");
            let url = amove.post(jwt, &format!("{provider}_authorization_url"), json!({})).await;
            url.body.trim_matches('"').split("state=").nth(1).unwrap_or("").to_owned()
        }
        None => String::new(),
    };
    let (mfa, username) = match name {
        "authentication/mfa_respond" => (amove.try_login().await.json(), USERNAME),
        "user/resend_user_email" => (Value::Null, "new@corp.test"),
        "user/insert_user" => (Value::Null, "ida@corp.test"),
        _ => (Value::Null, USERNAME),
    };
    let bucket = if name.contains("create_bucket") { "fresh" } else { "footage" };
    let email = if name == "desktop/signup" { "ida@corp.test" } else { "new@corp.test" };
    json!({
        "requestToken": amove.request_token().await, "session": mfa["session"],
        "userCode": amove.code(), "jwtToken": jwt, "resetToken": MAILED_TOKEN,
        "token": MAILED_TOKEN, "idToken": "g", "username": username, "email": email,
        "password": PASSWORD, "currentPassword": PASSWORD, "type": 4, "enabled": true,
        "id": id, "name": "Fresh", "title": "t", "expirationDate": "2027-01-01T00:00:00Z",
        "cloudAccountId": self::id("cloudaccount"), "bucketName": bucket, "state": state,
        "storageName": "footage", "key": "a", "regionName": "Dublin", "storageTier": 2,
        "userId": FOREIGN_USER, "licenseKey": "FAKE-0001-LICENCE", "machineId": "m",
        "callbackUrl": "https://app.corp.test", "authorizationCode": "c", "subscriptionType": 1,
    })
}

#[track_caller]
fn check_kind(row: &Row, answer: &Answer) {
    let route = format!("{} {}: {} {}", row.method, row.path, answer.status, answer.body);
    if row.response == "redirect" {
        assert_eq!((answer.status, answer.body.as_str()), (302, ""), "{route}");
        assert!(answer.header("location").contains("?jwt="), "{route}");
        return;
    }
    assert_eq!(answer.status, 200, "{route}");
    let value = || serde_json::from_str::<Value>(&answer.body).expect(&route);
    let fits = match row.response.as_str() {
        "none" => answer.body.is_empty() && answer.header("content-type").is_empty(),
        "string" => value().is_string(),
        "json object" | "websocket" => value().is_object(),
        "json array" => value().is_array(),
        "json scalar" => value().is_boolean() || value().is_number(),
        "paginated" => value()["data"].is_array() && value()["total"].is_u64(),
        _ => false,
    };
    assert!(fits, "{route}");
}

#[tokio::test]
async fn every_route_of_the_table_answers_with_its_kind() {
    let mut routes = 0;
    for row in table() {
        let name = row.path.replace("/api/v1/", "").replace("/api/", "");
        let mfa = name == "authentication/mfa_respond";
        let amove = Amove::with(Options { mfa, ..Options::default() }).await;
        let jwt = if mfa { String::new() } else { amove.login().await };
        let id = prepare(&amove, &jwt, &row, &name).await;
        let path = row.path.replace("{licenseKey}", "FAKE-0001-LICENCE");
        let path = path.replace("{licenseId}", self::id("fastrLicense"));
        let path = path.replace("{userId}", FOREIGN_USER);
        let path = path.replace("{cloudAccountId}", self::id("cloudaccount"));
        let body = body(&amove, &jwt, &name, id.clone()).await;
        let in_query = ["GET", "DELETE"].contains(&row.method.as_str());
        let (account, id) = (self::id("cloudaccount"), id.as_str().unwrap_or(""));
        let bucket = body.get("bucketName").and_then(Value::as_str).unwrap_or("");
        let bucket = format!("cloudAccountId={account}&bucketName={bucket}");
        let path = match name.as_str() {
            "cloudaccount/idrive_create_bucket" => format!("{path}?{bucket}"),
            _ if name.contains("bucket") && in_query => format!("{path}?{bucket}"),
            _ if in_query => format!("{path}?id={id}&token={MAILED_TOKEN}&authorizationCode=c"),
            _ => path,
        };
        let bearer = (row.auth == "bearer").then_some(jwt.as_str());
        let target = (row.method.as_str(), path.as_str());
        let body = (!in_query).then_some(body);

        if row.auth == "bearer" {
            let stranger = amove.call((row.host, None), target, body.clone()).await;
            assert_eq!(stranger.status, 401, "{target:?}");
        }
        if row.auth == "request_token" {
            let mut spent = body.clone().expect("a body");
            spent["requestToken"] = "spent".into();
            let spent = amove.call((row.host, None), target, Some(spent)).await;
            assert_eq!((spent.status, spent.code()), (499, "TOKEN"), "{target:?}");
        }
        check_kind(&row, &amove.call((row.host, bearer), target, body).await);
        assert_eq!(amove.emulator.stats().stray_bearers, 0, "{target:?}");
        routes += 1;
    }
    assert_eq!(routes, 174);
}

#[tokio::test]
async fn every_main_route_is_there_without_its_version() {
    let amove = Amove::start().await;
    for row in table().iter().filter(|row| row.host == Host::Main) {
        let path = row.path.replace("/api/v1/", "/api/");

        let versioned = amove.call((Host::Main, None), (&row.method, &row.path), None).await;
        let alias = amove.call((Host::Main, None), (&row.method, &path), None).await;

        assert_eq!(alias.status, versioned.status, "{path}");
        assert_ne!(alias.status, 404, "{path}");
    }
}

// What goes wrong

const USERINFO: &str = "/api/v1/user/userinfo";

#[tokio::test]
async fn good_bearers_are_refused_as_often_as_ordered() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    amove.emulator.inject(Fault::unauthorized(2));
    amove.request_token().await;

    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(amove.get(&jwt, USERINFO).await.status);
    }
    assert_eq!(answers, [401, 401, 200]);
    amove.emulator.inject(Fault::DeadSession { how: DeadSession::Session, count: 1 });
    assert_eq!(amove.get(&jwt, USERINFO).await.code(), "SESSION");
}

#[tokio::test]
async fn the_extra_routes_and_the_hub_refuse_bearers_like_all_others() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    for path in ["/api/v1/emulator/sink", "/api/rm/negotiate"] {
        amove.emulator.inject(Fault::unauthorized(1));

        assert_eq!(amove.post(&jwt, path, json!({})).await.status, 401, "{path}");
        assert_eq!(amove.post(&jwt, path, json!({})).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_body_may_be_too_large() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    let large = json!({"name": "x".repeat(5 * 1024 * 1024)});
    let answer = amove.post(&jwt, "/api/v1/project/insert", large).await;

    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_499_has_no_reason_phrase() {
    let amove = Amove::start().await;
    amove.emulator.inject(Fault::code("SYNC", 1));

    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = amove.raw(Host::Main, text).await.expect("an answer");

    assert!(answer.starts_with("HTTP/1.1 499 \r\n"), "{answer}");
}

#[tokio::test]
async fn a_deleted_user_is_out() {
    let second = Account { username: "two@corp.test".to_owned(), ..Account::default() };
    let accounts = vec![Account::default(), second];
    let amove = Amove::with(Options { mfa: false, accounts, ..Options::default() }).await;
    let jwt = amove.login().await;
    let body = json!({"username": "two@corp.test", "password": PASSWORD, "type": 4});
    let other = amove.auth("login", body.clone()).await.json();
    let other = other["jwtToken"].as_str().expect("a JWT");
    let id = amove.get(other, USERINFO).await.json()["userId"].clone();

    let path = format!("/api/v1/user/delete_user?id={}", id.as_str().expect("an id"));
    amove.call((Host::Main, Some(&jwt)), ("DELETE", &path), None).await;

    assert_eq!(amove.get(other, USERINFO).await.status, 401);
    assert_eq!(amove.auth("login", body).await.code(), "INACTIVE_USER");
    assert_eq!(amove.get(&jwt, USERINFO).await.status, 200);
}

#[tokio::test]
async fn the_second_factor_can_be_replaced_and_turned_off() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let path = "/api/v1/user/generate_mfa_token";
    let seed = amove.call((Host::Main, Some(&jwt)), ("POST", path), None).await.json();
    let secret = totp_rs::Secret::try_from_base32(seed.as_str().expect("a seed")).expect("base32");
    let totp = totp_rs::Builder::new().with_secret(secret).build().expect("a TOTP");
    let code = totp.generate(amove.seconds.load(Ordering::Relaxed)).to_string();
    let set = async |enabled: bool, code: &str| {
        let body = json!({"enabled": enabled, "userCode": code});
        amove.post(&jwt, "/api/v1/user/set_mfa", body).await.status
    };

    assert_eq!(set(true, "000000").await, 499);
    assert_eq!(set(true, &code).await, 200);
    amove.pass(30);
    assert_eq!(set(false, &amove.code()).await, 499, "the former seed is gone");
    let code = totp.generate(amove.seconds.load(Ordering::Relaxed)).to_string();
    assert_eq!(set(false, &code).await, 200);
    assert_eq!(amove.get(&jwt, USERINFO).await.json()["mfa"], false);
}

#[tokio::test]
async fn a_code_can_be_ordered_for_one_host_or_one_route() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    amove.emulator.inject(Fault::Code {
        code: "COGNITO".to_owned(),
        count: 1,
        host: Some(Host::Auth),
        route: Some("authentication/login".to_owned()),
    });
    amove.emulator.inject(Fault::code("PENDING", 1));

    assert_eq!(amove.get(&jwt, USERINFO).await.code(), "PENDING");
    assert_eq!(amove.get(&jwt, USERINFO).await.status, 200);
    assert_eq!(amove.try_login().await.code(), "COGNITO");
    assert_eq!(amove.try_login().await.status, 200);
}

#[tokio::test]
async fn every_code_of_the_list_can_be_answered() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let codes = csv::Reader::from_path("src/amove/error-codes.csv").expect("the table");
    for row in codes.into_records() {
        let row = row.expect("a row");
        let code = row.get(0).unwrap_or("").replace('*', "NOVEL_CODE");

        let path = format!("/api/v1/emulator/fail?code={code}");
        let answer = amove.post(&jwt, &path, json!({})).await;

        assert_eq!((answer.status, answer.code()), (499, code.as_str()));
        assert_eq!(answer.json()["type"], code.as_str());
    }
}

#[tokio::test]
async fn problems_are_written_as_chosen() {
    for (problems, content_type, title) in [
        (Problems::Json, "application/json; charset=utf-8", false),
        (Problems::ProblemJson, "application/problem+json; charset=utf-8", true),
        (Problems::Bare, "", false),
    ] {
        let amove = Amove::with(Options { problems, ..Options::default() }).await;
        amove.emulator.inject(Fault::code("TOKEN", 1));

        let answer = amove.try_login().await;

        assert_eq!((answer.code(), answer.header("content-type")), ("TOKEN", content_type));
        assert_eq!(answer.body.contains("title"), title);
        assert_eq!(answer.body.is_empty(), problems == Problems::Bare);
    }
}

#[tokio::test]
async fn a_status_can_be_ordered_as_a_load_balancer_gives_it() {
    let amove = Amove::start().await;
    amove.emulator.inject(Fault::Status {
        status: 503,
        body: "<html>busy</html>".to_owned(),
        retry_after: Some(20),
        count: 1,
        host: None,
        route: None,
    });
    amove.emulator.inject(Fault::status(500, 1));

    let busy = amove.get("x", USERINFO).await;
    let crash = amove.get("x", USERINFO).await;

    assert_eq!((busy.status, busy.header("retry-after")), (503, "20"));
    assert_eq!(
        (busy.header("content-type"), busy.body.as_str()),
        ("text/html", "<html>busy</html>")
    );
    assert_eq!((crash.status, crash.body.as_str()), (500, ""));
}

#[tokio::test]
async fn a_connection_is_reset_before_or_after_the_call_takes_effect() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let insert = |name: &str| {
        request(Some(&jwt), ("POST", "/api/v1/project/insert"), Some(json!({"name": name})))
    };
    let effects =
        || amove.emulator.stats().side_effects.get("POST /api/v1/project/insert").copied();

    amove.emulator.inject(Fault::reset(1));
    assert!(amove.send(Host::Main, insert("One")).await.is_err());
    assert_eq!(effects(), None);
    amove.emulator.inject(Fault::Reset { count: 1, acted: true, host: None, route: None });
    assert!(amove.send(Host::Main, insert("Two")).await.is_err());
    assert_eq!(effects(), Some(1));

    assert!(amove.send(Host::Main, insert("Three")).await.is_ok());
}

#[tokio::test]
async fn a_reset_is_a_reset_and_no_orderly_end() {
    let amove = Amove::start().await;
    amove.emulator.inject(Fault::reset(1));

    let answer =
        amove.raw(Host::Main, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;

    assert_eq!(answer.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn an_answer_breaks_off_half_way() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    amove.emulator.inject(Fault::truncate(1));

    let text = format!(
        "GET {USERINFO} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {jwt}\r\nConnection: close\r\n\r\n"
    );
    let answer = amove.raw(Host::Main, &text).await.expect("an answer");

    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
    assert!(head.starts_with("HTTP/1.1 200") && !body.is_empty());
    assert_eq!(body.len(), length / 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_drips() {
    let amove = Amove::start().await;
    amove.emulator.inject(Fault::Drip { ms: 100, count: 1, host: None, route: None });
    let begin = tokio::time::Instant::now();

    let token = amove.request_token().await;

    let bytes = u32::try_from(token.len() + 2).expect("it is short");
    assert!(begin.elapsed() >= Duration::from_millis(100) * bytes, "{token}");
}

#[tokio::test(start_paused = true)]
async fn answers_come_later_until_the_faults_are_cleared() {
    let amove = Amove::start().await;
    let took = async || {
        let begin = tokio::time::Instant::now();
        amove.request_token().await;
        begin.elapsed()
    };

    amove.emulator.inject(Fault::latency(Duration::from_secs(5)));
    assert!(took().await >= Duration::from_secs(5));
    assert!(took().await >= Duration::from_secs(5));
    amove.emulator.clear_faults();
    assert!(took().await < Duration::from_secs(1));
}

#[tokio::test]
async fn a_stalled_call_is_never_answered_and_holds_up_nobody() {
    let amove = Arc::new(Amove::without_mfa().await);
    let jwt = amove.login().await;
    amove.emulator.inject(Fault::stall(1));
    let (stalled, bearer) = (Arc::clone(&amove), jwt.clone());
    let stalled = tokio::spawn(async move {
        stalled.send(Host::Main, request(Some(&bearer), ("GET", USERINFO), None)).await.is_ok()
    });
    while !amove.emulator.requests().iter().any(|seen| seen.target == USERINFO) {
        tokio::task::yield_now().await;
    }

    assert_eq!(amove.get(&jwt, USERINFO).await.status, 200);

    assert!(!stalled.is_finished());
    stalled.abort();
}

#[tokio::test]
async fn a_stalled_call_is_not_answered_by_the_end_either() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    amove.emulator.inject(Fault::stall(1));
    let url = amove.emulator.api_url();
    let address = url.strip_prefix("http://").expect("no TLS");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let call = format!("GET {USERINFO} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {jwt}\r\n\r\n");
    stream.write_all(call.as_bytes()).await.expect("somebody who reads");
    while !amove.emulator.requests().iter().any(|seen| seen.target == USERINFO) {
        tokio::task::yield_now().await;
    }

    amove.emulator.stop().await;

    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
}

#[tokio::test]
async fn an_answer_need_not_be_http() {
    let amove = Amove::start().await;
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab";

    amove.emulator.inject(Fault::Garbage { count: 1, host: None });
    let garbage = amove.raw(Host::Main, text).await.expect("an answer");
    amove.emulator.inject(Fault::raw(raw));
    let conflict = amove.raw(Host::Main, text).await.expect("an answer");
    amove.emulator.inject(Fault::Unsolicited101 { count: 1 });
    let upgrade = amove.raw(Host::Main, text).await.expect("an answer");

    assert!(!garbage.is_empty() && !garbage.starts_with("HTTP"));
    assert_eq!(conflict, raw);
    assert!(upgrade.starts_with("HTTP/1.1 101 ") && !upgrade.contains("HTTP/1.1 404"));
}

#[tokio::test]
async fn logins_answer_something_else() {
    let amove = Amove::without_mfa().await;
    for (kind, expected) in [
        (Malformed::Empty, ""),
        (Malformed::Html, "<html>"),
        (Malformed::HalfJson, "{\"challenge\":0,\"jwtTok"),
        (Malformed::NoToken, "null"),
        (Malformed::NoSession, "\"session\":null"),
        (Malformed::Sms, "\"challenge\":2"),
        (Malformed::UnknownChallenge, "99"),
        (Malformed::BadToken, "two\\r\\nlines"),
    ] {
        amove.emulator.inject(Fault::MalformedLogin { kind, count: 1 });

        let answer = amove.try_login().await;

        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(expected), "{kind:?}: {}", answer.body);
        amove.emulator.revoke_sessions();
    }
    assert_eq!(amove.try_login().await.json()["challenge"], 0);
}

#[tokio::test]
async fn the_auth_host_goes_down_and_comes_up() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let token = || request(None, ("POST", "/api/authentication/request_token"), None);

    amove.emulator.inject(Fault::AuthDown { on: true });
    let requests = amove.emulator.stats().requests;
    assert!(amove.send(Host::Auth, token()).await.is_err());
    assert_eq!(amove.emulator.stats().requests, requests, "nobody even reads it");
    assert_eq!(amove.get(&jwt, USERINFO).await.status, 200);
    amove.emulator.inject(Fault::AuthDown { on: false });

    assert_eq!(amove.send(Host::Auth, token()).await.map(|answer| answer.status).ok(), Some(200));
}

#[tokio::test]
async fn connections_that_are_open_go_down_as_well() {
    let amove = Amove::start().await;
    let tcp = TcpStream::connect(amove.address(Host::Auth)).await.expect("it listens");
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.expect("HTTP");
    tokio::spawn(connection);
    let token = || request(None, ("POST", "/api/authentication/request_token"), None);
    let answer = client.send_request(token()).await.expect("an answer");
    assert_eq!(read(answer).await.expect("an answer").status, 200);
    client.ready().await.expect("it is kept");

    amove.emulator.inject(Fault::AuthDown { on: true });

    assert!(client.send_request(token()).await.is_err());
}

#[tokio::test]
async fn a_wrong_clock_shows_in_dates_and_codes() {
    let amove = Amove::start().await;
    let date = |answer: &Answer| {
        let date = httpdate::parse_http_date(answer.header("date")).expect("a date");
        date.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    };
    amove.emulator.inject(Fault::ClockSkew { seconds: 300 });

    let first = amove.try_login().await;
    let session = first.json()["session"].clone();
    let code = amove.code();
    let late =
        amove.auth("mfa_respond", json!({"session": session.clone(), "userCode": code})).await;
    amove.pass(300);
    let corrected = amove.code();
    amove.seconds.fetch_sub(300, Ordering::Relaxed);
    let in_time =
        amove.auth("mfa_respond", json!({"session": session, "userCode": corrected})).await;

    assert_eq!(date(&first), 1_780_000_300);
    assert_eq!((late.status, late.code()), (499, "TOTP"));
    assert_eq!(in_time.status, 200);
}

#[tokio::test]
async fn revoking_is_a_fault_as_well() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;

    amove.emulator.inject(Fault::RevokeSessions);

    assert_eq!(amove.get(&jwt, USERINFO).await.status, 401);
}

// Control, and what is seen

#[tokio::test]
async fn faults_are_ordered_over_the_control_endpoint() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let control = async |method: &str, what: &str, body: Option<Value>| {
        let path = format!("/_emulator/{what}");
        amove.call((Host::Main, None), (method, &path), body).await
    };

    let faults = json!([{"fault": "unauthorized"}, {"fault": "code", "code": "SYNC", "count": 9}]);
    assert_eq!(control("POST", "faults", Some(faults)).await.json()["ordered"], 2);
    assert_eq!(amove.get(&jwt, USERINFO).await.status, 401);
    assert_eq!(amove.get(&jwt, USERINFO).await.code(), "SYNC");
    control("DELETE", "faults", None).await;
    assert_eq!(amove.get(&jwt, USERINFO).await.status, 200);

    let wrong = control("POST", "faults", Some(json!({"fault": "stall", "cuont": 1}))).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("unknown field `cuont`, expected"), "{}", wrong.body);
    assert_eq!(control("GET", "stats", None).await.json()["logins"], 1);
    control("POST", "revoke_sessions", None).await;
    assert_eq!(amove.get(&jwt, USERINFO).await.status, 401);
    let seen = control("GET", "requests", None).await.json();
    assert_eq!(seen[0]["target"], "/api/authentication/request_token");
    assert_eq!(control("GET", "nonsense", None).await.status, 404);
}

#[tokio::test]
async fn the_last_requests_are_remembered_as_they_came() {
    let amove = Amove::with(Options { remember: 2, ..Options::default() }).await;
    let text = "POST /api/V1/%70roject/insert?a=%2F&b=+ HTTP/1.1\r\nHost: a\r\nX-One: 1\r\n\
                Content-Length: 3\r\nConnection: close\r\n\r\nabc";
    for _ in 0..2 {
        amove.get("x", USERINFO).await;
    }
    amove.raw(Host::Main, text).await.expect("an answer");

    let seen = amove.emulator.requests();

    assert_eq!((seen.len(), amove.emulator.stats().requests), (2, 3));
    assert_eq!((seen[1].host, seen[1].method.as_str()), (Host::Main, "POST"));
    assert_eq!(seen[1].target, "/api/V1/%70roject/insert?a=%2F&b=+");
    assert_eq!((seen[1].version.as_str(), seen[1].body_length), ("HTTP/1.1", 3));
    assert!(seen[1].headers.contains(&("x-one".to_owned(), "1".to_owned())));
}

#[tokio::test]
async fn the_extra_routes_show_what_a_proxy_does() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let body = json!({"a": 1});

    let blob = amove.get(&jwt, "/api/v1/emulator/blob?bytes=100000").await;
    let sink = amove.post(&jwt, "/api/v1/emulator/sink", body.clone()).await.json();
    let echo = amove.post(&jwt, "/api/v1/emulator/echo?q=%20", body.clone()).await.json();
    let fail = amove.post(&jwt, "/api/v1/emulator/fail?status=418&body=tea", json!({})).await;
    let stranger = amove.get("x", "/api/v1/emulator/blob?bytes=1").await;

    assert_eq!((blob.status, blob.body.len()), (200, 100_000));
    let hash = blake3::hash(body.to_string().as_bytes()).to_hex().to_string();
    assert_eq!(sink, json!({"bytes": 7, "blake3": hash}));
    assert_eq!(
        (&echo["target"], &echo["body"]),
        (&json!("/api/v1/emulator/echo?q=%20"), &json!("{\"a\":1}"))
    );
    assert!(echo["headers"].as_array().expect("fields").contains(&json!(["host", "amove.test"])));
    assert_eq!((fail.status, fail.body.as_str()), (418, "tea"));
    assert_eq!(stranger.status, 401);
}

#[tokio::test(start_paused = true)]
async fn the_hub_negotiates_and_streams_events() {
    let amove = Amove::without_mfa().await;
    let jwt = amove.login().await;
    let tcp = TcpStream::connect(amove.address(Host::Main)).await.expect("it listens");
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut events = request(None, ("GET", &format!("/api/rm?access_token={jwt}")), None);
    events.headers_mut().insert("accept", "text/event-stream".parse().expect("a value"));

    let mut stream = client.send_request(events).await.expect("an answer").into_body();
    let mut text = String::new();
    while text.matches("data: ").count() < 3 {
        let frame = stream.frame().await.expect("more events").expect("a frame");
        text += &String::from_utf8_lossy(&frame.into_data().unwrap_or_default());
    }

    assert!(text.contains("\"percent\":2"), "{text}");
    let negotiation = amove.post(&jwt, "/api/rm/negotiate", json!({})).await;
    assert!(negotiation.json()["connectionId"].is_string());
    assert_eq!(amove.post("x", "/api/rm/negotiate", json!({})).await.status, 401);
}

// The wire

async fn over_http2<I>(io: I, url: &str) -> (StatusCode, http::Version)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post(format!("{url}/api/authentication/request_token"));
    let request = request.body(Full::<Bytes>::default()).expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    (response.status(), response.version())
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let amove = Amove::start().await;
    let tcp = TcpStream::connect(amove.address(Host::Auth)).await.expect("it listens");

    let answer = over_http2(tcp, &amove.emulator.auth_url()).await;

    assert_eq!(answer, (StatusCode::OK, http::Version::HTTP_2));
}

#[tokio::test]
async fn http2_can_be_left_out() {
    let amove = Amove::with(Options { http2: false, ..Options::default() }).await;

    let answer = amove.raw(Host::Main, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;

    let answer = answer.expect("an end");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn https_is_served_with_a_certificate_of_the_test_ca() {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    let directory = tempfile::tempdir().expect("a directory");
    let tls_dir = Some(directory.path().to_owned());
    let amove = Amove::with(Options { tls_dir, ..Options::default() }).await;
    let ca = CertificateDer::from_pem_file(directory.path().join("ca.pem")).expect("a CA");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).expect("a root");

    for (name, alpn) in [("localhost", "h2"), ("127.0.0.1", "http/1.1")] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let url = amove.emulator.auth_url();
        let port = url.strip_prefix("https://localhost:").expect("HTTPS");
        let tcp = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("it listens");
        let server = ServerName::try_from(name).expect("a name");
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut tls = tls.connect(server, tcp).await.expect("a trusted certificate");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        if alpn == "h2" {
            assert_eq!(over_http2(tls, &url).await.0, StatusCode::OK);
            continue;
        }
        tls.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        let mut answer = [0; 12];
        tls.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 404");
    }
}

#[tokio::test]
async fn the_ports_are_free_once_it_has_stopped() {
    let amove = Amove::start().await;
    let addresses = [amove.address(Host::Main), amove.address(Host::Auth)];
    let mut idle = TcpStream::connect(&addresses[0]).await.expect("it listens");

    amove.emulator.stop().await;

    for address in addresses {
        assert!(TcpStream::connect(&address).await.is_err(), "{address}");
    }
    assert!(matches!(idle.read(&mut [0; 1]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn dropping_it_ends_it() {
    let amove = Amove::start().await;
    let address = amove.address(Host::Main);

    drop(amove);

    while TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
