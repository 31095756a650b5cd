//! Everything we know about the API.

pub mod auth;
pub mod catalogue;
pub mod codes;
pub mod kinds;
pub mod paths;
pub mod request_token;
pub mod tags;
pub mod userinfo;
