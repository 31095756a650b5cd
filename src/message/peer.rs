//! Where a request comes from.

use std::{fmt, net::SocketAddr, sync::Arc};

/// Where a request came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Over the network.
    Tcp(SocketAddr),
    /// Over the network, with TLS.
    Tls {
        /// From where.
        address: SocketAddr,
        /// The certificate that it has proved to hold, if it was asked for one and has shown one.
        certificate: Option<Arc<Certificate>>,
    },
    /// Over a unix socket, by a process of this user.
    Unix {
        /// The user id, if the system told.
        uid: Option<u32>,
    },
}

/// Whom a client certificate names, after it was verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// The SPIFFE id among its URIs, if it has exactly one.
    pub spiffe_id: Option<Box<str>>,
    /// Its DNS names and e-mail addresses in lower case, and its URIs as they are.
    pub names: Vec<Box<str>>,
}

impl Peer {
    /// Whether it is a process on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) | Self::Tls { address, .. } => {
                address.ip().to_canonical().is_loopback()
            }
            Self::Unix { .. } => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls { address, .. } => address.fmt(f),
            Self::Unix { uid: Some(uid) } => write!(f, "unix:uid={uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
        }
    }
}
