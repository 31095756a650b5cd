//! The keys of an issuer (RFC 7517), from a file or from its own host.

use std::{path::PathBuf, time::Duration};

use http::{Method, StatusCode, Uri, header};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use tokio::time::timeout;

use crate::{
    config::{self, Http2, KeySource},
    message::{Body, Held, Request},
    upstream::{self, Host, Upstream},
};

/// More than any issuer has.
const LARGEST: usize = 256 * 1024;
const MOST_KEYS: usize = 100;
/// The issuer is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The way to the issuer cannot be prepared.
    #[error("`caller_jwt.jwks_url` cannot be used: {0}")]
    Unprepared(#[source] upstream::Error),
    /// The issuer did not answer.
    #[error("the issuer cannot be reached: {0}")]
    Unreachable(String),
    /// The issuer answered with something else.
    #[error("the issuer answered {0}")]
    Answered(StatusCode),
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    File {
        /// As it is set.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// What came is no set of keys.
    #[error("what came is no JWK set with keys that can be used")]
    NoKeys,
}

/// Where keys come from.
pub(super) enum Source {
    File(PathBuf),
    Url { upstream: Upstream, path: Uri },
}

impl Source {
    pub(super) fn new(config: &config::CallerJwt) -> Result<Self, Error> {
        let (base, path) = match &config.keys {
            KeySource::File(path) => return Ok(Self::File(path.clone())),
            KeySource::Url { base, path } => (base, path),
        };
        // The issuer is dialled like the API: with the same roots of trust, limits and checks.
        let upstream = Upstream::new(&config::Upstream {
            api_url: base.clone(),
            auth_url: base.clone(),
            ca_file: config.ca_file.clone(),
            http2: Http2::Never,
            connect_timeout: PATIENCE,
            response_timeout: PATIENCE,
            total_timeout: None,
            max_connections: 1,
            max_connection_age: None,
            adaptive: false,
            max_waiting: 0,
            max_wait: Duration::ZERO,
            retry_budget: 0.0,
            breaker_failures: 0,
            breaker_cooldown: Duration::from_secs(5),
        });
        let path = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        Ok(Self::Url { upstream: upstream.map_err(Error::Unprepared)?, path })
    }

    /// Whether it may be looked at as often as one likes.
    pub(super) fn is_cheap(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The keys as they are now.
    pub(super) async fn keys(&self) -> Result<KeySet, Error> {
        let text = match self {
            Self::File(path) => std::fs::read(path)
                .map_err(|reason| Error::File { path: path.clone(), reason })?
                .into(),
            Self::Url { upstream, path } => {
                let fetched = timeout(PATIENCE, fetch(upstream, path)).await;
                fetched.unwrap_or_else(|_| Err(Error::Unreachable("it takes too long".into())))?
            }
        };
        KeySet::read(&text)
    }
}

async fn fetch(upstream: &Upstream, path: &Uri) -> Result<bytes::Bytes, Error> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path.clone();
    request
        .headers_mut()
        .insert(header::ACCEPT, http::HeaderValue::from_static("application/json"));
    let response = upstream.send(Host::Api, request).await;
    let response = response.map_err(|error| Error::Unreachable(error.to_string()))?;
    let (parts, body) = response.into_inner().into_parts();
    if parts.status != StatusCode::OK {
        return Err(Error::Answered(parts.status));
    }
    match body.hold(LARGEST).await {
        Ok(Held::Whole(body, _)) => Ok(body),
        _ => Err(Error::NoKeys),
    }
}

/// The keys of an issuer that can be used.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

struct Key {
    jwk: Jwk,
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl KeySet {
    fn read(text: &[u8]) -> Result<Self, Error> {
        let set: JwkSet = serde_json::from_slice(text).map_err(|_| Error::NoKeys)?;
        let keys: Vec<_> = set.keys.into_iter().take(MOST_KEYS).filter_map(Key::new).collect();
        if keys.is_empty() { Err(Error::NoKeys) } else { Ok(Self(keys)) }
    }

    /// The keys that a token which names `id` and `algorithm` may have been signed with.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| {
            let named = id.is_none_or(|id| key.jwk.common.key_id.as_deref() == Some(id));
            named && key.algorithms.contains(&algorithm)
        };
        self.0.iter().filter(fits).map(|key| &key.key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|key| &key.jwk).eq(other.0.iter().map(|key| &key.jwk))
    }
}

impl Key {
    /// Nothing for a key that is not for signatures, or that both sides would share.
    fn new(jwk: Jwk) -> Option<Self> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let possible = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
            _ => return None,
        };
        let own = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let fits = |possible: &Algorithm| own.as_ref().is_none_or(|own| *own == name(*possible));
        let algorithms: Vec<_> = possible.into_iter().filter(fits).collect();
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { jwk, key, algorithms })
    }
}

fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}
