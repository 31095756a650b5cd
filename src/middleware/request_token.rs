//! Completes a request whose body lacks its request token.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::{
    admit,
    breaker::{self, Breaker, Sign},
    entrance::{self, Entrance},
    forward,
    pause::Pause,
};
use secrecy::SecretString;

use crate::{
    amove::{
        host::Host,
        request_token::{Unfit, gap},
    },
    circuit::Circuits,
    config,
    message::{Body, Held, Request},
    pause::{Pauses, Wish},
    problem::{Kind, Problem},
    session::{self, Sessions},
    slots::Slots,
    upstream::auth::{self, Unavailable},
};

/// The body is held in memory; it is a small form.
const FORM: usize = 64 * 1024;

/// Where request tokens come from.
#[derive(Debug)]
pub(super) struct Mint {
    sessions: Arc<Sessions>,
    pause: Pause,
    breaker: Breaker,
    entrance: Entrance,
}

impl Mint {
    /// Those of `sessions`, but none during one of `pauses`, nor while the circuit is open or all of
    /// `slots` are taken.
    pub(super) fn new(
        sessions: &Arc<Sessions>,
        pauses: &Arc<Pauses>,
        circuits: &Arc<Circuits>,
        slots: &Slots,
        config: &config::RateLimit,
    ) -> Self {
        let (pause, breaker) = (Pause::new(pauses, config), Breaker::new(circuits));
        let entrance = Entrance::new(slots);
        Self { sessions: Arc::clone(sessions), pause, breaker, entrance }
    }

    /// Puts a fresh token into the body, unless the caller has put one there.
    pub(super) async fn complete(
        &self,
        identity: usize,
        mut request: Request,
        within: Duration,
    ) -> Result<Request, Problem> {
        check_media(request.headers())?;
        let body = std::mem::take(request.body_mut());
        let held = forward::in_time(within, body.hold(FORM)).await?;
        let Held::Whole(bytes, trailers) = held else { return Err(admit::too_large(FORM as u64)) };
        // A client that has nothing to say sends no body at all.
        let text = if bytes.is_empty() { "{}" } else { text(&bytes)? };
        let bytes = match gap(text).map_err(unfit)? {
            Some(gap) => Bytes::from_owner(gap.fill(text, &self.token(identity).await?)),
            None => bytes,
        };
        *request.body_mut() = Body::held(bytes, trailers);
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().entry(header::CONTENT_TYPE).or_insert(json);
        Ok(request)
    }

    /// A fresh token, once the auth host wants to be asked for one.
    async fn token(&self, identity: usize) -> Result<SecretString, Problem> {
        let trial = self.pause.pass(identity, Host::Auth).await?;
        let pass = self.breaker.pass(Host::Auth)?;
        let (turn, slot) = self.entrance.enter(Host::Auth, entrance::TOKEN).await?;
        let minted = self.sessions.request_token().await;
        drop((turn, slot));
        breaker::heard(Host::Auth, pass, minted.as_ref().map_or_else(sign, |_| Sign::Well));
        let wish = minted.as_ref().err().and_then(wish);
        self.pause.heard(identity, Host::Auth, wish, trial.filter(|_| minted.is_ok()));
        Ok(minted?)
    }
}

/// What it says about the auth host that it gave no token.
fn sign(error: &session::Error) -> Sign {
    let session::Error::NoRequestToken { source, .. } = error else { return Sign::None };
    let auth::Error::Unavailable(why) = &**source else { return Sign::Well };
    match why {
        Unavailable::Upstream(_) | Unavailable::Timeout(_) | Unavailable::Broken(_) => {
            Sign::Failing
        }
        Unavailable::Status(verdict) if verdict.status.is_server_error() => Sign::Failing,
        Unavailable::Status(_) | Unavailable::Unreadable { .. } => Sign::Well,
        Unavailable::Unwritable(_) => Sign::None,
    }
}

/// What the auth host asks for instead of giving a token, if anything.
fn wish(error: &session::Error) -> Option<Wish> {
    let session::Error::NoRequestToken { source, .. } = error else { return None };
    let auth::Error::Unavailable(Unavailable::Status(verdict)) = &**source else { return None };
    Wish::new(verdict.status, verdict.retry_after?)
}

/// Only what is written in plain JSON can be completed.
fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        return Err(unsupported("The body of this route must come without a content coding."));
    }
    if !headers.get_all(header::CONTENT_TYPE).iter().all(is_json) {
        return Err(unsupported("The body of this route must be JSON, and be declared as such."));
    }
    Ok(())
}

/// `application/json` and its relatives, whatever their parameters.
fn is_json(media_type: &HeaderValue) -> bool {
    let name = media_type.to_str().ok().and_then(|value| value.split(';').next());
    let name = name.unwrap_or_default().trim().to_ascii_lowercase();
    matches!(&*name, "application/json" | "text/json")
        || (name.starts_with("application/") && name.ends_with("+json"))
}

fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|_| unfit(Unfit::NoObject))
}

fn unfit(why: Unfit) -> Problem {
    Problem::new(Kind::Malformed, format!("The body of this route cannot be completed: {why}."))
}

fn unsupported(detail: &'static str) -> Problem {
    Problem::new(Kind::UnsupportedMedia, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: Option<Kind>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }

        let checked = check_media(&headers);

        assert_eq!(checked.err().map(|problem| problem.kind()), expected, "{fields:?}");
    }

    #[test]
    fn only_plain_json_can_be_completed() {
        check(&[], None);
        check(&[("content-type", "application/json")], None);
        check(&[("content-type", "Application/JSON ; charset=UTF-8")], None);
        check(&[("content-type", "application/merge-patch+json")], None);
        check(&[("content-type", "text/json"), ("content-encoding", "Identity")], None);

        let refused = Some(Kind::UnsupportedMedia);
        check(&[("content-type", "")], refused);
        check(&[("content-type", "text/plain")], refused);
        check(&[("content-type", "application/x-www-form-urlencoded")], refused);
        check(&[("content-type", "application/jsonx")], refused);
        check(&[("content-type", "application/json"), ("content-type", "text/plain")], refused);
        check(&[("content-encoding", "gzip")], refused);
        check(&[("content-encoding", "identity"), ("content-encoding", "br")], refused);
    }
}
