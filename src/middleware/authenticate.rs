//! Finds out who is calling.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Answer, Middleware, Next};
use crate::{
    caller::{Caller, Callers, Unknown},
    exchange::Exchange,
    message::{Peer, Request},
    problem::{Kind, Problem},
};

/// The header field for callers whose `Authorization` is taken.
pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Lets callers pass that we know.
#[derive(Debug)]
pub struct Authenticate {
    callers: Arc<Callers>,
}

impl Authenticate {
    /// Knows `callers`.
    pub fn new(callers: &Arc<Callers>) -> Self {
        Self { callers: Arc::clone(callers) }
    }
}

impl Authenticate {
    async fn ask_issuer(
        &self,
        key: Result<Option<&[u8]>, Unknown>,
        peer: &Peer,
    ) -> Result<Arc<Caller>, Unknown> {
        if let Some(verifier) = self.callers.verifier() {
            verifier.refresh().await;
        }
        self.callers.recognise(key?, peer)
    }
}

impl Middleware for Authenticate {
    async fn handle<N: Next>(
        &self,
        exchange: &Arc<Exchange>,
        request: Request,
        next: &N,
    ) -> Answer {
        // Where nobody has a key, what is presented means nothing: many clients send something.
        let key =
            if self.callers.have_credentials() { presented(request.headers()) } else { Ok(None) };
        let known = match key.and_then(|key| self.callers.recognise(key, &exchange.peer)) {
            // Seldom: the issuer may have a new key, and signs with it already.
            Err(Unknown::UnknownKey) => Box::pin(self.ask_issuer(key, &exchange.peer)).await,
            known => known,
        };
        let known = known.map_err(stranger)?;
        exchange.set_caller(known);
        next.run(exchange, request).await
    }
}

/// The key that a request presents. One that presents several presents none that counts.
fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, Unknown> {
    let keys = headers.get_all(API_KEY).iter().map(|key| Ok(key.as_bytes()));
    let bearers =
        headers.get_all(header::AUTHORIZATION).iter().map(|value| bearer(value.as_bytes()));
    let mut presented = keys.chain(bearers);
    let first = presented.next().transpose()?;
    if presented.next().is_some() { Err(Unknown::Wrong) } else { Ok(first) }
}

fn bearer(value: &[u8]) -> Result<&[u8], Unknown> {
    match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(key.trim_ascii()),
        _ => Err(Unknown::Wrong),
    }
}

/// The same answer whatever was wrong.
fn stranger(unknown: Unknown) -> Problem {
    if unknown == Unknown::Unmapped {
        // It is known who this is, and that it is nobody who may call.
        let detail = "The gateway knows no caller by your certificate.";
        return Problem::new(Kind::PolicyDenied, detail)
            .member("rule", "callers")
            .caused_by(unknown);
    }
    Problem::new(
        Kind::Unauthenticated,
        "The gateway does not know who is calling; send your key as `X-Api-Key`.",
    )
    .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="amove-gateway""#))
    .caused_by(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: Result<Option<&str>, Unknown>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        assert_eq!(presented(&headers), expected.map(|key| key.map(str::as_bytes)), "{fields:?}");
    }

    #[test]
    fn a_key_comes_as_a_field_of_its_own_or_as_bearer() {
        check(&[], Ok(None));
        check(&[("x-api-key", "k")], Ok(Some("k")));
        check(&[("authorization", "Bearer k")], Ok(Some("k")));
        check(&[("authorization", "bEARER  k ")], Ok(Some("k")));
    }

    #[test]
    fn whoever_presents_two_keys_or_another_scheme_is_nobody() {
        check(&[("x-api-key", "k"), ("x-api-key", "k")], Err(Unknown::Wrong));
        check(&[("x-api-key", "k"), ("authorization", "Bearer k")], Err(Unknown::Wrong));
        check(&[("authorization", "Basic azpr")], Err(Unknown::Wrong));
        check(&[("authorization", "Bearer")], Err(Unknown::Wrong));
    }
}
