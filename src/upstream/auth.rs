//! The calls of the auth host, on the wire (contract section 4).

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::{Deserialize, Serialize};

use super::{Host, Upstream};
use crate::{
    amove::codes::AppError,
    config::UserType,
    message::{Body, BoxError, Held, Request, Response},
};

const REQUEST_TOKEN: &str = "/api/authentication/request_token";
const LOGIN: &str = "/api/authentication/login";
const MFA_RESPOND: &str = "/api/authentication/mfa_respond";
const LOGOUT: &str = "/api/authentication/logout";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const APP_ERROR: u16 = 499;

/// More than any answer of the auth host needs.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Room enough that a body's buffer does not move, which would leave a copy of a secret behind.
const BODY_ROOM: usize = 16 * 1024;

/// Opens one authentication call. It is consumed by it, so that it cannot be sent twice.
#[derive(Debug)]
pub struct RequestToken(SecretString);

/// What the host answered, and when by its own clock.
#[derive(Debug)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The `Date` of the answer, if it can be read.
    pub date: Option<Timestamp>,
}

/// How a login goes on.
#[derive(Debug)]
pub enum LoginAnswer {
    /// It is done: the JWT.
    Token(SecretString),
    /// A TOTP code is wanted, together with this opaque value.
    SecondFactor(SecretString),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials were refused. Trying them again risks the account.
    #[error("the API refused the credentials ({0})")]
    Refused(Verdict),
    /// The request token was not accepted.
    #[error("the API did not accept a fresh request token ({0})")]
    RequestToken(Verdict),
    /// The TOTP code was wrong, or the login it belongs to too old.
    #[error("the API did not accept the TOTP code ({0})")]
    Totp(Verdict),
    /// The user holds too many sessions.
    #[error("the API allows the user no further session ({0})")]
    SessionLimit(Verdict),
    /// The login wants a proof that we cannot give.
    #[error("the login asks for challenge {0}, but only 0 (none) and 1 (TOTP) can be met")]
    ChallengeUnsupported(i64),
    /// Nothing was decided: it may work later.
    #[error("the auth host could not be used")]
    Unavailable(#[source] Unavailable),
}

/// Why nothing was decided.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The host could not be reached.
    #[error(transparent)]
    Upstream(super::Error),
    /// It did not answer within the time that the caller gave it.
    #[error("the auth host did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It answered with something that decides nothing.
    #[error("the auth host answered {0}")]
    Status(Verdict),
    /// The request could not be written.
    #[error("the request to the auth host cannot be written")]
    Unwritable(#[source] serde_json::Error),
    /// The answer broke off.
    #[error("the answer of the auth host broke off")]
    Broken(#[source] BoxError),
    /// The answer is not what was asked for.
    #[error("the answer of the auth host to `{call}` cannot be read: {why}")]
    Unreadable {
        /// The path that was called.
        call: &'static str,
        /// What is wrong with it; never what it says.
        why: &'static str,
    },
}

/// What a refusing answer said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Its status.
    pub status: StatusCode,
    /// The code of a 499.
    pub code: Option<String>,
    /// How long the host asks us to stay away.
    pub retry_after: Option<Duration>,
}

/// Asks for a request token.
///
/// # Errors
///
/// [`Error::Unavailable`].
pub async fn request_token(upstream: &Upstream) -> Result<Answer<RequestToken>, Error> {
    let answer = post(upstream, REQUEST_TOKEN, Bytes::new()).await?;
    let text = bare_string(&answer.value).map_err(|why| unreadable(REQUEST_TOKEN, why))?;
    Ok(Answer { value: RequestToken(text), date: answer.date })
}

/// Logs in with a password.
///
/// # Errors
///
/// Every [`Error`] but [`Error::Totp`].
pub async fn login(
    upstream: &Upstream,
    request_token: RequestToken,
    username: &str,
    password: &SecretString,
    user_type: UserType,
) -> Result<Answer<LoginAnswer>, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Login<'a> {
        request_token: &'a str,
        username: &'a str,
        password: &'a str,
        r#type: u8,
    }
    let body = json(&Login {
        request_token: request_token.0.expose_secret(),
        username,
        password: password.expose_secret(),
        r#type: user_type as u8,
    })?;
    let answer = post(upstream, LOGIN, body).await?;
    Ok(Answer { value: login_answer(LOGIN, &answer.value)?, date: answer.date })
}

/// Answers the second factor's challenge with a TOTP code; gives the JWT.
///
/// # Errors
///
/// Every [`Error`].
pub async fn mfa_respond(
    upstream: &Upstream,
    request_token: RequestToken,
    code: &SecretString,
    session: &SecretString,
) -> Result<Answer<SecretString>, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct MfaRespond<'a> {
        request_token: &'a str,
        user_code: &'a str,
        session: &'a str,
    }
    let body = json(&MfaRespond {
        request_token: request_token.0.expose_secret(),
        user_code: code.expose_secret(),
        session: session.expose_secret(),
    })?;
    let answer = post(upstream, MFA_RESPOND, body).await?;
    match login_answer(MFA_RESPOND, &answer.value)? {
        LoginAnswer::Token(jwt) => Ok(Answer { value: jwt, date: answer.date }),
        LoginAnswer::SecondFactor(_) => Err(unreadable(MFA_RESPOND, "it asks for one more code")),
    }
}

/// Ends the session of `jwt`.
///
/// # Errors
///
/// [`Error::RequestToken`] and [`Error::Unavailable`]; [`Error::Refused`] means that the session
/// had ended before.
pub async fn logout(
    upstream: &Upstream,
    request_token: RequestToken,
    jwt: &SecretString,
) -> Result<Answer<()>, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Logout<'a> {
        request_token: &'a str,
        jwt_token: &'a str,
    }
    let body = json(&Logout {
        request_token: request_token.0.expose_secret(),
        jwt_token: jwt.expose_secret(),
    })?;
    let answer = post(upstream, LOGOUT, body).await?;
    Ok(Answer { value: (), date: answer.date })
}

impl RequestToken {
    /// The text, for a body that is not built here.
    pub fn into_secret(self) -> SecretString {
        self.0
    }
}

impl Error {
    /// How long the host asks us to stay away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(verdict)
            | Self::RequestToken(verdict)
            | Self::Totp(verdict)
            | Self::SessionLimit(verdict)
            | Self::Unavailable(Unavailable::Status(verdict)) => verdict.retry_after,
            Self::ChallengeUnsupported(_) | Self::Unavailable(_) => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} {code}", self.status.as_u16()),
            None => write!(f, "{}", self.status.as_u16()),
        }
    }
}

/// A JSON body that is wiped when it has been sent.
fn json(value: &impl Serialize) -> Result<Bytes, Error> {
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_ROOM));
    serde_json::to_writer(&mut *body, value)
        .map_err(|error| Error::Unavailable(Unavailable::Unwritable(error)))?;
    Ok(Bytes::from_owner(body))
}

async fn post(
    upstream: &Upstream,
    call: &'static str,
    body: Bytes,
) -> Result<Answer<Bytes>, Error> {
    let request = request(call, body);
    let response = upstream.send(Host::Auth, request).await;
    let response = response.map_err(|error| Error::Unavailable(Unavailable::Upstream(error)))?;
    let date = date(response.headers());
    let (status, headers, body) = read(call, response).await?;
    if !status.is_success() {
        return Err(failure(call, status, &headers, &body));
    }
    Ok(Answer { value: body, date })
}

fn request(call: &'static str, body: Bytes) -> Request {
    let empty = body.is_empty();
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(call);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, JSON);
    if empty {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    } else {
        headers.insert(CONTENT_TYPE, JSON);
    }
    request
}

async fn read(
    call: &'static str,
    response: Response,
) -> Result<(StatusCode, HeaderMap, Bytes), Error> {
    let (head, body) = response.into_inner().into_parts();
    match body.hold(ANSWER_LIMIT).await {
        Ok(Held::Whole(body, _)) => Ok((head.status, head.headers, body)),
        Ok(Held::TooLong(_)) => Err(unreadable(call, "it is longer than 64 KiB")),
        Err(error) => Err(Error::Unavailable(Unavailable::Broken(error))),
    }
}

/// The table of contract section 4.5. What it does not name decides nothing.
fn failure(call: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let code = (status.as_u16() == APP_ERROR).then(|| AppError::read(headers, body).code);
    let verdict = Verdict { status, code, retry_after: retry_after(headers) };
    if call == REQUEST_TOKEN {
        // No credentials were sent, so none were refused.
        return Error::Unavailable(Unavailable::Status(verdict));
    }
    match (status, verdict.code.as_deref()) {
        (StatusCode::UNAUTHORIZED, _) => Error::Refused(verdict),
        (_, Some("AUTH" | "INACTIVE_USER" | "SECURITY")) => Error::Refused(verdict),
        (_, Some("TOKEN")) => Error::RequestToken(verdict),
        (_, Some("TOTP")) => Error::Totp(verdict),
        (_, Some("SESSION_MAXOUT")) => Error::SessionLimit(verdict),
        _ => Error::Unavailable(Unavailable::Status(verdict)),
    }
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Timestamp::try_from(httpdate::parse_http_date(date).ok()?).ok()
}

/// Only seconds: a date would have to be corrected by a clock that we may just be measuring.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn unreadable(call: &'static str, why: &'static str) -> Error {
    Error::Unavailable(Unavailable::Unreadable { call, why })
}

const NONE: i64 = 0;
const TOTP: i64 = 1;

fn login_answer(call: &'static str, body: &[u8]) -> Result<LoginAnswer, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        challenge: Option<i64>,
        jwt_token: Option<SecretString>,
        session: Option<SecretString>,
    }
    // The reader's own error is dropped: it may quote what it could not read.
    let fields: Fields = serde_json::from_slice(body)
        .map_err(|_| unreadable(call, "it is not an object with `challenge` and `jwtToken`"))?;
    let jwt = fields.jwt_token.filter(|jwt| !jwt.expose_secret().is_empty());
    let session = fields.session.filter(|session| !session.expose_secret().is_empty());
    match (fields.challenge, jwt, session) {
        (Some(NONE) | None, Some(jwt), _) if is_token(jwt.expose_secret()) => {
            Ok(LoginAnswer::Token(jwt))
        }
        (Some(NONE) | None, Some(_), _) => Err(unreadable(call, "`jwtToken` is not a token")),
        (Some(NONE) | None, None, _) => Err(unreadable(call, "`jwtToken` is empty")),
        (Some(TOTP), _, Some(session)) => Ok(LoginAnswer::SecondFactor(session)),
        (Some(TOTP), _, None) => Err(unreadable(call, "`session` is empty")),
        (Some(other), ..) => Err(Error::ChallengeUnsupported(other)),
    }
}

/// A string answer: in JSON quotes or not, whatever the `Content-Type` says.
fn bare_string(body: &[u8]) -> Result<SecretString, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8")?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let text = if text.starts_with('"') {
        serde_json::from_str(text).map_err(|_| "it is not a JSON string")?
    } else {
        SecretString::from(text)
    };
    match text.expose_secret() {
        "" | "null" => Err("it is empty"),
        bare if !is_token(bare) => Err("it is not a token"),
        _ => Ok(text),
    }
}

/// Tells a token from a page, an object, or what cannot stand in a header.
fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.starts_with(['<', '{', '['])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(call: &str, status: u16, code: &str) -> &'static str {
        let mut headers = HeaderMap::new();
        if let Ok(code) = HeaderValue::from_str(code) {
            headers.insert(crate::amove::codes::ERROR_CODE, code);
        }
        match failure(call, StatusCode::from_u16(status).expect("a status"), &headers, b"") {
            Error::Refused(_) => "refused",
            Error::RequestToken(_) => "request token",
            Error::Totp(_) => "totp",
            Error::SessionLimit(_) => "session limit",
            Error::ChallengeUnsupported(_) => "challenge",
            Error::Unavailable(_) => "unavailable",
        }
    }

    #[test]
    fn failures_are_told_apart_by_their_cause() {
        for (status, code, expected) in [
            (401, "", "refused"),
            (499, "AUTH", "refused"),
            (499, "INACTIVE_USER", "refused"),
            (499, "SECURITY", "refused"),
            (499, "TOKEN", "request token"),
            (499, "TOTP", "totp"),
            (499, "SESSION_MAXOUT", "session limit"),
            (499, "COGNITO", "unavailable"),
            (499, "Global", "unavailable"),
            (499, "", "unavailable"),
            (500, "AUTH", "unavailable"),
            (302, "", "unavailable"),
            (429, "", "unavailable"),
            (503, "", "unavailable"),
        ] {
            assert_eq!(kind(LOGIN, status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn who_asks_for_a_request_token_shows_no_credentials_that_could_be_refused() {
        for (status, code) in [(401, ""), (499, "AUTH"), (499, "TOKEN"), (499, "SESSION_MAXOUT")] {
            assert_eq!(kind(REQUEST_TOKEN, status, code), "unavailable", "{status} {code}");
        }
    }

    #[test]
    fn what_goes_out_is_escaped() {
        let password = "\"\\ü\u{0}\n";

        let body = json(&serde_json::json!({ "password": password })).expect("a body");

        let read: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(read["password"], password);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(body: Vec<u8>, text: String) {
            for body in [body.as_slice(), text.as_bytes()] {
                if let Ok(token) = bare_string(body) {
                    prop_assert!(HeaderValue::from_str(token.expose_secret()).is_ok());
                }
                let _ = login_answer(LOGIN, body);
            }
        }
    }
}
