//! Everything we know about the API: facts, and nothing that is sent.

pub mod catalogue;
pub mod codes;
pub mod host;
pub mod kinds;
pub mod paths;
pub mod patterns;
pub mod request_token;
pub mod retry_after;
pub mod tags;
