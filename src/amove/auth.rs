//! The calls of the auth host, on the wire (contract section 4).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::codes::AppError;
use crate::{
    config::UserType,
    message::{Body, Held, Request},
    upstream::{self, Host, Upstream},
};

/// Answers of the auth host are small; what is larger is not one.
const ANSWER: usize = 64 * 1024;

/// Speaks with the auth host. Every call is one attempt; deadlines are the caller's business.
#[derive(Clone, Debug)]
pub struct AuthHost {
    upstream: Upstream,
}

/// An answer, and when the auth host says it was given.
#[derive(Debug)]
pub struct Dated<T> {
    /// What was answered.
    pub value: T,
    /// The `Date` field: it tells how far our clock is off.
    pub date: Option<Timestamp>,
}

/// What a login leads to.
#[derive(Debug)]
pub enum Challenge {
    /// Nothing more is needed.
    Passed(SecretString),
    /// A TOTP code is needed, for this session.
    Totp(SecretString),
}

/// How a call can fail, by what there is to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials are not accepted: trying again locks the account.
    #[error("the API refused the credentials ({0})")]
    Refused(String),
    /// The request token is spent or too old: get a new one.
    #[error("the API did not accept the request token")]
    RequestToken,
    /// The TOTP code was wrong, or used before: wait for the next.
    #[error("the API did not accept the TOTP code")]
    Totp,
    /// The user has too many sessions: wait, or log out elsewhere.
    #[error("the user has as many sessions as the API allows")]
    SessionLimit,
    /// A second factor that we cannot serve.
    #[error("the API asks for a second factor that the gateway cannot give (challenge {0})")]
    Unsupported(i64),
    /// A second factor is asked for, and none is configured.
    #[error("the API asks for a TOTP code, and no totp_secret is configured")]
    TotpNeeded,
    /// The API is ill: wait.
    #[error("the auth host answered {0}")]
    Ill(String),
    /// The answer makes no sense: wait.
    #[error("the auth host's answer cannot be understood: {0}")]
    Unreadable(&'static str),
    /// There was no answer: wait.
    #[error("the auth host cannot be reached")]
    Unreachable(#[source] upstream::Error),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Login<'a> {
    request_token: &'a str,
    username: &'a str,
    password: &'a str,
    r#type: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MfaRespond<'a> {
    request_token: &'a str,
    user_code: &'a str,
    session: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Logout<'a> {
    request_token: &'a str,
    jwt_token: &'a str,
}

/// The answer to a login. The field that is not used may be absent, `null` or empty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    challenge: Option<i64>,
    jwt_token: Option<SecretString>,
    session: Option<SecretString>,
}

impl AuthHost {
    /// Speaks over `upstream`.
    pub fn new(upstream: Upstream) -> Self {
        Self { upstream }
    }

    /// A fresh request token: it lives a minute and works once (contract section 4.1).
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn request_token(&self) -> Result<Dated<SecretString>, Error> {
        let (headers, body) = self.call("/api/authentication/request_token", Bytes::new()).await?;
        let token = plain_string(&body).ok_or(Error::Unreadable("not a request token"))?;
        Ok(Dated { value: token, date: date(&headers) })
    }

    /// Opens a session (contract section 4.2). Spends `request_token`, whatever comes of it.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn login(
        &self,
        request_token: SecretString,
        username: &str,
        password: &SecretString,
        user_type: UserType,
    ) -> Result<Dated<Challenge>, Error> {
        let body = encode(&Login {
            request_token: request_token.expose_secret(),
            username,
            password: password.expose_secret(),
            r#type: user_type as u8,
        });
        let (headers, body) = self.call("/api/authentication/login", body).await?;
        let answer = parse(&body)?;
        let value = match answer.challenge {
            Some(0) => Challenge::Passed(filled(answer.jwt_token, "no token in it")?),
            Some(1) => Challenge::Totp(filled(answer.session, "no session in it")?),
            Some(other) => return Err(Error::Unsupported(other)),
            None => return Err(Error::Unreadable("no challenge in it")),
        };
        Ok(Dated { value, date: date(&headers) })
    }

    /// Answers a TOTP challenge (contract section 4.3). Spends `request_token` and `code`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn mfa_respond(
        &self,
        request_token: SecretString,
        code: &str,
        session: &SecretString,
    ) -> Result<Dated<SecretString>, Error> {
        let body = encode(&MfaRespond {
            request_token: request_token.expose_secret(),
            user_code: code,
            session: session.expose_secret(),
        });
        let (headers, body) = self.call("/api/authentication/mfa_respond", body).await?;
        let answer = parse(&body)?;
        match answer.challenge {
            Some(0) | None => {}
            Some(other) => return Err(Error::Unsupported(other)),
        }
        Ok(Dated { value: filled(answer.jwt_token, "no token in it")?, date: date(&headers) })
    }

    /// Ends the session of `token` (contract section 4.4). Spends `request_token`.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub async fn logout(
        &self,
        request_token: SecretString,
        token: &SecretString,
    ) -> Result<(), Error> {
        let body = encode(&Logout {
            request_token: request_token.expose_secret(),
            jwt_token: token.expose_secret(),
        });
        self.call("/api/authentication/logout", body).await.map(drop)
    }

    async fn call(&self, path: &'static str, body: Bytes) -> Result<(HeaderMap, Bytes), Error> {
        let length = body.len();
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        // Also for an empty body: some servers want it for every POST.
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        if length > 0 {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        let response = self.upstream.send(Host::Auth, request).await.map_err(Error::Unreachable)?;
        let (parts, body) = response.into_parts();
        let body = match body.hold(ANSWER).await {
            Ok(Held::Whole(body)) => body,
            Ok(Held::TooLong(_)) => return Err(Error::Unreadable("it is far too long")),
            Err(_) => return Err(Error::Unreadable("it broke off")),
        };
        match parts.status {
            StatusCode::OK => Ok((parts.headers, body)),
            StatusCode::UNAUTHORIZED => Err(Error::Refused("401".into())),
            status if status.as_u16() == 499 => {
                Err(reported(AppError::read(&parts.headers, &body)))
            }
            status => Err(Error::Ill(status.as_u16().to_string())),
        }
    }
}

/// What a code means for a login (contract section 4.5).
fn reported(error: AppError) -> Error {
    match &*error.code {
        "AUTH" | "INACTIVE_USER" | "SECURITY" => Error::Refused(error.code),
        "TOKEN" => Error::RequestToken,
        "TOTP" => Error::Totp,
        "SESSION_MAXOUT" => Error::SessionLimit,
        _ => Error::Ill(format!("499 {}", error.code)),
    }
}

/// A string with or without JSON quotes, whatever the `Content-Type` says (contract section 4.1).
fn plain_string(body: &[u8]) -> Option<SecretString> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let token: SecretString = serde_json::from_str(text).unwrap_or_else(|_| text.into());
    let text = token.expose_secret();
    let is_token = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    // An object, a list or a page is not a token, however short.
    let is_something_else = text.is_empty() || text.starts_with(['{', '[', '<']);
    (is_token && !is_something_else).then_some(token)
}

fn parse(body: &[u8]) -> Result<Answer, Error> {
    serde_json::from_slice(body).map_err(|_| Error::Unreadable("not the answer to a login"))
}

fn filled(field: Option<SecretString>, missing: &'static str) -> Result<SecretString, Error> {
    field.filter(|field| !field.expose_secret().is_empty()).ok_or(Error::Unreadable(missing))
}

/// Structs of strings and numbers can always be written as JSON.
fn encode(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    Timestamp::try_from(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_read_with_or_without_quotes() {
        let read =
            |text: &str| plain_string(text.as_bytes()).map(|it| it.expose_secret().to_owned());

        assert_eq!(read("\"rt-1\"").as_deref(), Some("rt-1"));
        assert_eq!(read("rt-1\r\n").as_deref(), Some("rt-1"));
        assert_eq!(read("123").as_deref(), Some("123"));
        for nonsense in ["", "\"\"", "null x", "{}", "{\"a\":1}", "<html>", "[\"a\"]"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn the_field_that_is_not_used_may_be_absent_null_or_empty() {
        for text in [
            r#"{"challenge":0,"jwtToken":"a.b.c"}"#,
            r#"{"challenge":0,"jwtToken":"a.b.c","session":null}"#,
            r#"{"challenge":0,"jwtToken":"a.b.c","session":"","more":1}"#,
        ] {
            let answer = parse(text.as_bytes()).unwrap();
            assert_eq!(filled(answer.jwt_token, "").unwrap().expose_secret(), "a.b.c");
            assert!(filled(answer.session, "").is_err());
        }
        assert!(parse(b"\"a\"").is_err());
    }
}
