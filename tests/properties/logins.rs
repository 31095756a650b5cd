//! Logins: whatever the auth host answers, a token comes only where the contract says so, and no
//! error tells a secret.

use std::{
    error::Error as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use amove_gateway::{
    config::{UserType, load::load_str},
    upstream::{
        Upstream,
        auth::{self, Error, LoginAnswer, RequestToken, Unavailable},
    },
};
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::timeout,
};

use crate::corpus::{check, explore, seeds};

/// What must be in no error: it goes up.
const OURS: [&str; 5] =
    ["hunter2-password", "svc@corp.test", "777888", "s3ss1on-0f-ours", "t0ken-0f-ours"];
/// Nor this, which comes down.
const THEIRS: &str = "canary-of-theirs";

/// Pieces of answers.
const WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 499 \r\n",
    "HTTP/1.1 401 Unauthorized\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.0 200\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/2.0 200 OK\r\n",
    "\r\n",
    "\n",
    "\r\n\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Set-Cookie: session=canary-of-theirs\r\n",
    "Connection: close\r\n",
    "Retry-After: 18446744073709551615\r\n",
    "Retry-After: -1\r\n",
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
    "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
    "error-code: AUTH\r\n",
    "error-code: TOKEN\r\n",
    "error-code: TOTP\r\n",
    "{",
    "}",
    "\"",
    ":",
    ",",
    "null",
    "\"challenge\":",
    "0",
    "1",
    "2",
    "-1",
    "1.0",
    "1e2",
    "9223372036854775808",
    "\"jwtToken\":",
    "\"session\":",
    "\"canary-of-theirs\"",
    "canary-of-theirs",
    "<",
    "\u{feff}",
    "\\u0000",
    "\\n",
    "\0",
    "5\r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "é",
];

/// The calls of the auth host that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    RequestToken,
    Login,
    MfaRespond,
    Logout,
}

const CALLS: [Call; 4] = [Call::RequestToken, Call::Login, Call::MfaRespond, Call::Logout];

/// What came of a call.
#[derive(Debug)]
enum Outcome {
    /// A token, of one kind or the other.
    Token(SecretString),
    SecondFactor(SecretString),
    /// It has ended.
    LoggedOut,
    Failed(Error),
}

/// An auth host that says what it is told to say, and ends each connection.
struct AuthHost {
    runtime: Runtime,
    upstream: Upstream,
    answer: Arc<Mutex<(Call, Vec<u8>)>>,
}

impl AuthHost {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let answer = Arc::new(Mutex::new((Call::Login, Vec::new())));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a listener");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(serve(listener, Arc::clone(&answer)));
        Self { runtime, upstream: upstream(address), answer }
    }

    /// Makes `call`, which is answered with `bytes`.
    fn call(&self, call: Call, bytes: &[u8]) -> Outcome {
        *self.answer.lock().expect("a lock") = (call, bytes.to_vec());
        self.runtime.block_on(async {
            let outcome = timeout(Duration::from_secs(30), self.make(call)).await;
            outcome.expect("an end, whatever is answered")
        })
    }

    async fn make(&self, call: Call) -> Outcome {
        let upstream = &self.upstream;
        let [password, username, code, session, jwt] = OURS;
        if call == Call::RequestToken {
            return match auth::request_token(upstream).await {
                Ok(answer) => Outcome::Token(answer.value.into_secret()),
                Err(error) => Outcome::Failed(error),
            };
        }
        let token = self.request_token().await;
        let outcome = match call {
            Call::RequestToken | Call::Login => {
                auth::login(upstream, token, username, &password.into(), UserType::AccountAdmin)
                    .await
                    .map(|answer| match answer.value {
                        LoginAnswer::Token(token) => Outcome::Token(token),
                        LoginAnswer::SecondFactor(session) => Outcome::SecondFactor(session),
                    })
            }
            Call::MfaRespond => auth::mfa_respond(upstream, token, &code.into(), &session.into())
                .await
                .map(|answer| Outcome::Token(answer.value)),
            Call::Logout => {
                auth::logout(upstream, token, &jwt.into()).await.map(|_| Outcome::LoggedOut)
            }
        };
        outcome.unwrap_or_else(Outcome::Failed)
    }

    /// A connection that the answer before has left behind may just be ending.
    async fn request_token(&self) -> RequestToken {
        for _ in 0..10 {
            if let Ok(answer) = auth::request_token(&self.upstream).await {
                return answer.value;
            }
        }
        panic!("no request token to be had");
    }
}

fn upstream(address: SocketAddr) -> Upstream {
    let text = format!(
        "[upstream]\napi_url = \"http://{address}\"\nauth_url = \"http://{address}\"\n\
         [identities.main]\napi_token = \"x\"\n"
    );
    let config = load_str(&text, &[]).expect("a configuration").config;
    Upstream::new(&config.upstream).expect("a way to the host")
}

async fn serve(listener: TcpListener, answer: Arc<Mutex<(Call, Vec<u8>)>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_one(stream, Arc::clone(&answer)));
    }
}

async fn serve_one(mut stream: TcpStream, answer: Arc<Mutex<(Call, Vec<u8>)>>) {
    let Some(head) = read_request(&mut stream).await else { return };
    let (call, bytes) = answer.lock().expect("a lock").clone();
    let is_request_token = head.contains("/request_token");
    let bytes = if is_request_token && call != Call::RequestToken {
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\nrt-0001".to_vec()
    } else {
        bytes
    };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

/// Reads a whole request; gives its head.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok()).flatten()
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(head.to_owned());
        }
    }
}

/// All that anybody could print of an error.
fn told(error: &Error) -> String {
    let mut told = format!("{error:?} {error}");
    let mut source = error.source();
    while let Some(error) = source {
        told.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    told
}

/// What holds for every outcome, whatever was answered.
fn is_discreet(outcome: &Outcome) -> TestCaseResult {
    let printed = format!("{outcome:?}");
    let told = match outcome {
        Outcome::Failed(error) => told(error),
        Outcome::Token(token) | Outcome::SecondFactor(token) => {
            prop_assert!(
                !printed.contains(token.expose_secret()) || token.expose_secret().len() < 8
            );
            prop_assert!(!token.expose_secret().is_empty());
            printed
        }
        Outcome::LoggedOut => printed,
    };
    for secret in OURS.iter().chain([&"rt-0001"]) {
        prop_assert!(!told.contains(secret), "{told}");
    }
    // A code is told, so a canary that was put there is as well.
    let code = match outcome {
        Outcome::Failed(
            Error::Refused(verdict)
            | Error::RequestToken(verdict)
            | Error::Totp(verdict)
            | Error::SessionLimit(verdict)
            | Error::Unavailable(Unavailable::Status(verdict)),
        ) => verdict.code.as_deref().unwrap_or_default(),
        _ => "",
    };
    prop_assert!(code.contains(THEIRS) || !told.contains(THEIRS), "{told}");
    // Nor is anything else of a body: what is told is ours, a status and a code.
    prop_assert!(told.len() < 1024, "{told}");
    Ok(())
}

fn can_stand_in_a_header(token: &SecretString) -> bool {
    let token = token.expose_secret();
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

#[test]
fn any_bytes_are_an_answer_or_an_error() {
    let host = AuthHost::start();
    explore(300, seeds("logins"), WORDS, |bytes| {
        for call in CALLS {
            let outcome = host.call(call, bytes);

            is_discreet(&outcome)?;
            if let Outcome::Token(token) = &outcome {
                prop_assert!(can_stand_in_a_header(token));
            }
            // A token was said to be one: it stands in what came, with a status of success.
            if matches!(outcome, Outcome::Token(_) | Outcome::SecondFactor(_)) {
                let has_success = bytes.windows(11).any(|it| it.starts_with(b"HTTP/1.1 2"))
                    || bytes.windows(11).any(|it| it.starts_with(b"HTTP/1.0 2"));
                prop_assert!(has_success);
                let is_named = call == Call::RequestToken
                    || bytes.windows(3).any(|it| it == b"jwt" || it == b"\\u0" || it == b"ses");
                prop_assert!(is_named);
            }
        }
        Ok(())
    });
}

/// An answer that is well formed, so that it can be told what must come of it.
#[derive(Clone, Debug)]
struct Answered {
    status: u16,
    code: Option<&'static str>,
    cookie: bool,
    retry_after: Option<u64>,
    body: String,
}

impl Answered {
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        if self.cookie {
            head.push_str(&format!("Set-Cookie: a={THEIRS}\r\n"));
        }
        if let Some(code) = self.code {
            head.push_str(&format!("Error-Code: {code}\r\n"));
        }
        if let Some(seconds) = self.retry_after {
            head.push_str(&format!("Retry-After: {seconds}\r\n"));
        }
        let has_body = self.status != 204 && self.status != 304;
        let body = if has_body { self.body.as_str() } else { "" };
        if has_body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        format!("{head}\r\n{body}").into_bytes()
    }

    /// What contract sections 4.1 to 4.6 make of it, in a word.
    fn expected(&self, call: Call) -> &'static str {
        if !(200..300).contains(&self.status) {
            return match (call, self.status, self.code.unwrap_or_default()) {
                (Call::RequestToken, ..) => "unavailable",
                (_, 401, _) => "refused",
                (_, 499, "AUTH" | "INACTIVE_USER" | "SECURITY") => "refused",
                (_, 499, "TOKEN") => "request token",
                (_, 499, "TOTP") => "totp",
                (_, 499, "SESSION_MAXOUT") => "session limit",
                _ => "unavailable",
            };
        }
        let body = if self.status == 204 { "" } else { &self.body };
        match call {
            Call::Logout => "logged out",
            Call::RequestToken => {
                let text = body.trim_start_matches('\u{feff}').trim();
                let text = match serde_json::from_str(text) {
                    Ok(Value::String(text)) => text,
                    _ if text.starts_with('"') => return "unavailable",
                    _ => text.to_owned(),
                };
                if is_token(&text) && text != "null" { "token" } else { "unavailable" }
            }
            Call::Login | Call::MfaRespond => {
                let Ok(Value::Object(fields)) = serde_json::from_str(body) else {
                    return "unavailable";
                };
                let text = |name: &str| match fields.get(name) {
                    None | Some(Value::Null) => Some(""),
                    Some(Value::String(text)) => Some(text.as_str()),
                    Some(_) => None,
                };
                let challenge = match fields.get("challenge") {
                    None | Some(Value::Null) => Some(0),
                    Some(number) => number.as_i64(),
                };
                let (Some(challenge), Some(jwt), Some(session)) =
                    (challenge, text("jwtToken"), text("session"))
                else {
                    return "unavailable";
                };
                match challenge {
                    0 if is_token(jwt) => "token",
                    0 => "unavailable",
                    1 if session.is_empty() => "unavailable",
                    1 if call == Call::Login => "second factor",
                    1 => "unavailable",
                    _ => "challenge",
                }
            }
        }
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.starts_with(['<', '{', '['])
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Token(_) => "token",
        Outcome::SecondFactor(_) => "second factor",
        Outcome::LoggedOut => "logged out",
        Outcome::Failed(Error::Refused(_)) => "refused",
        Outcome::Failed(Error::RequestToken(_)) => "request token",
        Outcome::Failed(Error::Totp(_)) => "totp",
        Outcome::Failed(Error::SessionLimit(_)) => "session limit",
        Outcome::Failed(Error::ChallengeUnsupported(_)) => "challenge",
        Outcome::Failed(Error::Unavailable(_)) => "unavailable",
    }
}

fn bodies() -> impl Strategy<Value = String> {
    let token = || {
        prop_oneof![
            3 => Just(Value::from(THEIRS)),
            1 => Just(Value::Null),
            1 => Just(Value::from("")),
            1 => "[ -~]{0,12}|<[a-z]{2}|\\PC{1,4}".prop_map(Value::from),
            1 => any::<i32>().prop_map(Value::from),
        ]
    };
    let challenge = prop_oneof![
        4 => (0_i64..3).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(Value::from("0")),
        1 => Just(Value::from(0.0)),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
    ];
    let member = |value: BoxedStrategy<Value>| prop::option::weighted(0.9, value);
    let object = (member(challenge.boxed()), member(token().boxed()), member(token().boxed()))
        .prop_map(|(challenge, jwt, session)| {
            let names = ["challenge", "jwtToken", "session"];
            let members = names.into_iter().zip([challenge, jwt, session]);
            let members = members.filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(members.collect()).to_string()
        });
    prop_oneof![
        6 => object,
        2 => token().prop_map(|token| token.to_string()),
        1 => Just(format!(" \u{feff}{THEIRS}\r\n")),
        1 => "\\PC{0,30}",
    ]
}

#[test]
fn a_token_comes_where_the_contract_says_so() {
    let host = AuthHost::start();
    let codes = vec![
        "AUTH",
        "INACTIVE_USER",
        "SECURITY",
        "TOKEN",
        "TOTP",
        "SESSION_MAXOUT",
        "COGNITO",
        "Global",
        "x",
    ];
    let status = prop_oneof![
        4 => Just(200_u16),
        2 => Just(499_u16),
        2 => select(vec![201, 204, 302, 400, 401, 403, 429, 500, 503]),
    ];
    let retry_after = prop::option::of(prop_oneof![Just(20), Just(u64::MAX), any::<u64>()]);
    let asked = (status, prop::option::of(select(codes)), any::<bool>(), retry_after, bodies());
    let asked = asked.prop_map(|(status, code, cookie, retry_after, body)| Answered {
        status,
        // A body's own `type` would count before the header's code.
        code,
        cookie,
        retry_after,
        body,
    });
    check(800, &(asked, select(&CALLS[..])), |(answered, call)| {
        let bytes = answered.bytes();

        let outcome = host.call(call, &bytes);

        prop_assert_eq!(name(&outcome), answered.expected(call), "{:?}: {:?}", call, outcome);
        is_discreet(&outcome)?;
        if let Outcome::Failed(error) = &outcome
            && let Some(pause) = error.retry_after()
        {
            prop_assert_eq!(Some(pause.as_secs()), answered.retry_after);
        }
        Ok(())
    });
}
