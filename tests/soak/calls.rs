//! The kinds of calls, and what each must be answered with.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use serde_json::Value;

/// A kind of call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A read.
    Read,
    /// The same by its old path.
    Legacy,
    /// Comes back as it was sent.
    Echo,
    /// Something that must be done once.
    Write,
    /// An error of Amove's own.
    Fail,
    /// A body that comes.
    Down,
    /// A body that goes.
    Up,
    /// A caller with a quota that is too small for it.
    Hasty,
    /// Somebody whom nobody knows.
    Stranger,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Read,
        Self::Legacy,
        Self::Echo,
        Self::Write,
        Self::Fail,
        Self::Down,
        Self::Up,
        Self::Hasty,
        Self::Stranger,
    ];

    /// Any of them; echoes above all.
    pub(crate) fn any(random: &mut fastrand::Rng) -> Self {
        if random.u8(..4) == 0 { Self::Echo } else { Self::ALL[random.usize(..Self::ALL.len())] }
    }
}

/// Keys of callers: one without limits, and one with a small quota.
pub(crate) const KEYS: [&str; 2] = ["key-of-the-steady-caller", "key-of-the-hasty-caller"];

/// A call, and what it is to bring.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    token: String,
    size: usize,
    hash: String,
}

impl Call {
    /// One of a kind, and the request.
    pub(crate) fn new(
        number: u64,
        kind: Kind,
        random: &mut fastrand::Rng,
    ) -> (Self, Request<Full<Bytes>>) {
        let token = token(number);
        let size = match kind {
            Kind::Down | Kind::Up => random.usize(..200_000),
            _ => 0,
        };
        let mut body = Bytes::new();
        let (method, target) = match kind {
            Kind::Read | Kind::Hasty | Kind::Stranger => {
                ("GET", "/api/v1/user/userinfo".to_owned())
            }
            Kind::Legacy => ("GET", "/api/user/userinfo".to_owned()),
            Kind::Echo => {
                body = format!("the body of {token}").into();
                ("POST", format!("/api/v1/emulator/echo?token={token}"))
            }
            Kind::Write => {
                body = format!(r#"{{"name":"{token}"}}"#).into();
                ("POST", "/api/v1/project/insert".to_owned())
            }
            Kind::Fail => ("GET", "/api/v1/emulator/fail?code=NOT_FOUND".to_owned()),
            Kind::Down => ("GET", format!("/api/v1/emulator/blob?bytes={size}")),
            Kind::Up => {
                body = std::iter::repeat_with(|| random.u8(..)).take(size).collect();
                ("POST", "/api/v1/emulator/sink".to_owned())
            }
        };
        let hash = blake3::hash(&body).to_hex().to_string();
        let key = match kind {
            Kind::Hasty => KEYS[1],
            Kind::Stranger => "a-key-that-nobody-knows",
            _ => KEYS[0],
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost")
            .header("x-api-key", key)
            .header("x-request-id", &token)
            .header("content-type", "application/json")
            .body(Full::from(body))
            .expect("a request");
        (Self { number, kind, token, size, hash }, request)
    }

    /// Whether this is what it is answered with while all is well; otherwise it must be the word of a
    /// gateway that tells what is wrong.
    ///
    /// # Errors
    ///
    /// What is wrong with it, be there trouble or not.
    pub(crate) fn judge(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<bool, String> {
        let field = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or("");
        let text = String::from_utf8_lossy(body.get(..body.len().min(600)).unwrap_or_default());
        let wrong = |what: &str| {
            Err(format!("{:?} {}: {what}: {status} {headers:?} {text}", self.kind, self.token))
        };
        if field("x-request-id") != self.token {
            return wrong("the answer to another request");
        }
        let json = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        if field("content-type") == "application/problem+json" {
            let problem = json();
            if problem["status"] != status || problem["request_id"] != self.token {
                return wrong("the problem of another request");
            }
            if status == 429 && field("retry-after").is_empty() {
                return wrong("nobody says how long to wait");
            }
            return match (self.kind, status) {
                (Kind::Fail, 404) if problem["code"] == "NOT_FOUND" => Ok(true),
                (Kind::Hasty, 429) | (Kind::Stranger, 401) => Ok(true),
                (Kind::Stranger, 503)
                    if problem["type"] == "urn:amove-gateway:problem:audit-unavailable" =>
                {
                    Ok(false)
                }
                (kind, 502..=504) if kind != Kind::Stranger => Ok(false),
                _ => wrong("this need not have been refused"),
            };
        }
        if status != 200 {
            return wrong("an error that is not a problem");
        }
        let is_right = match self.kind {
            Kind::Read | Kind::Hasty => json()["username"] == "svc@corp.test",
            Kind::Legacy => {
                json()["username"] == "svc@corp.test" && headers.contains_key("deprecation")
            }
            Kind::Echo => {
                let echo = json();
                echo["body"] == format!("the body of {}", self.token)
                    && echo["target"].as_str().is_some_and(|it| it.ends_with(&self.token))
            }
            Kind::Write => !body.is_empty(),
            Kind::Down => body.len() == self.size && body.iter().all(|byte| *byte == 0),
            Kind::Up => json()["bytes"] == self.size && json()["blake3"] == self.hash.as_str(),
            Kind::Fail | Kind::Stranger => false,
        };
        if is_right { Ok(true) } else { wrong("not what was asked for") }
    }
}

/// What call `number` is known by.
pub(crate) fn token(number: u64) -> String {
    format!("soak-{number:09}")
}
