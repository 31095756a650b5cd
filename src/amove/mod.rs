//! Everything we know about the API; the facts are the contract's.

pub mod auth;
pub mod catalogue;
pub mod codes;
pub mod paths;
