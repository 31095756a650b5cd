//! Why a gateway cannot begin.

use crate::{
    audit, caller,
    config::{secret, tls},
    limit,
    server::BindError,
    session, upstream,
};

/// Why a gateway cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The way to the API cannot be prepared.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// The certificate, or what goes with it, cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Unusable),
    /// The way to the issuer of callers' tokens cannot be prepared.
    #[error(transparent)]
    Issuer(#[from] caller::jwt::KeysError),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// Nothing can be written down.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// There is nowhere to keep sessions.
    #[error(transparent)]
    Sessions(#[from] session::OpenError),
    /// There is nowhere to share quotas.
    #[error(transparent)]
    Quotas(#[from] limit::OpenError),
    /// A socket that was passed is for nothing that is configured.
    #[error(
        "the service manager passes a socket that listens at {0}, and no setting names that address: \
         set `server.listen`, `server.admin_listen` or `server.health_listen` to it"
    )]
    Unclaimed(String),
    /// The predecessor is not released, and goes on.
    #[error("it does not get ready, and leaves its predecessor in its place: {0}")]
    NotReady(String),
    /// The system has no thread or no event queue for us.
    #[error("the system refuses what a gateway needs")]
    System(#[from] std::io::Error),
}
