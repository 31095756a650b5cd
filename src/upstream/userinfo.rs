//! Who a bearer is to the API: `GET user/userinfo` (contract section 11).

use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::{Host, Upstream};
use crate::message::{Body, Held, Request};

const USERINFO: &str = "/api/v1/user/userinfo";
/// More than any answer needs.
const ANSWER_LIMIT: usize = 64 * 1024;

/// What the API says about a bearer, as far as it is there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UserInfo {
    /// Its name to log in with.
    pub username: Option<String>,
    /// Its role, as a number (contract section 3).
    pub user_type: Option<u8>,
    /// Its company.
    pub account_name: Option<String>,
}

/// Why the API does not say who a bearer is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no answer.
    #[error("the API cannot be asked who we are")]
    Unreachable(#[source] super::Error),
    /// It answered with something else.
    #[error("the API answered {} to user/userinfo", .0.as_u16())]
    Answered(StatusCode),
}

/// Asks who `bearer`, the value of `Authorization`, is.
///
/// # Errors
///
/// See [`Error`].
pub async fn userinfo(upstream: &Upstream, bearer: &HeaderValue) -> Result<UserInfo, Error> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static(USERINFO);
    request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
    let response = upstream.send(Host::Api, request).await.map_err(Error::Unreachable)?;
    let (parts, body) = response.into_inner().into_parts();
    if parts.status != StatusCode::OK {
        return Err(Error::Answered(parts.status));
    }
    match body.hold(ANSWER_LIMIT).await {
        Ok(Held::Whole(body, _)) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
        _ => Ok(UserInfo::default()),
    }
}
