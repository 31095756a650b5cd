//! Listening sockets that somebody else has opened for us: the service manager, or the gateway that we
//! take the place of.
//!
//! The configuration stays the truth: a socket is used for the setting that names its address.

pub mod succession;
pub mod systemd;

use std::{
    io,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixListener,
    },
};

use socket2::SockRef;

use crate::config::Listen;

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// Of an address and a port.
    Tcp(TcpListener),
    /// Of a file.
    Unix(UnixListener),
}

impl Socket {
    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The system's; and for a unix socket without a name, which nobody could be told.
    pub fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Listen::Tcp),
            Self::Unix(socket) => {
                let address = socket.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| io::Error::other("it has no name"));
                path.map(|path| Listen::Unix(path.to_owned()))
            }
        }
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    ///
    /// The system's, when there are too many.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    /// Whether connections wait at it, or are waited for: a socket may be another thing.
    fn listens(&self) -> io::Result<bool> {
        SockRef::from(self).is_listener()
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(true),
            Self::Unix(socket) => socket.set_nonblocking(true),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Who comes in at a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// `server.listen`.
    Callers,
    /// `server.admin_listen`.
    Admin,
    /// `server.health_listen`.
    Health,
}

impl Role {
    /// All of them.
    const ALL: [Self; 3] = [Self::Callers, Self::Admin, Self::Health];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Callers => "callers",
            Self::Admin => "admin",
            Self::Health => "health",
        }
    }
}

/// Whose socket it is, and so who removes its file in the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// A gateway's: one hands it on to the next.
    Gateway,
    /// The service manager's, which keeps it.
    Manager,
}

/// A socket that was passed.
#[derive(Debug)]
pub struct Passed {
    /// Who comes in there; `None`: whomever the configuration has its address for.
    pub role: Option<Role>,
    /// Whose it is.
    pub owner: Owner,
    /// The socket.
    pub socket: Socket,
}

/// Sockets that were passed, until they are taken.
#[derive(Debug, Default)]
pub struct Given(Vec<Passed>);

impl Given {
    /// These.
    pub fn new(passed: Vec<Passed>) -> Self {
        Self(passed)
    }

    /// Those of `others` as well.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Takes those that are meant for `role` and listen at `address`, where port 0 means any port.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn take(&mut self, role: Role, address: &Listen) -> io::Result<Vec<Passed>> {
        let (mut taken, mut rest) = (Vec::new(), Vec::new());
        for passed in self.0.drain(..) {
            let is_meant = passed.role.is_none_or(|it| it == role);
            if is_meant && covers(address, &passed.socket.address()?) {
                passed.socket.set_nonblocking()?;
                taken.push(passed);
            } else {
                rest.push(passed);
            }
        }
        self.0 = rest;
        Ok(taken)
    }

    /// The first that nobody has taken and the service manager has passed for something: where it
    /// listens.
    pub fn unclaimed(&self) -> Option<String> {
        let unclaimed = self.0.iter().find(|passed| passed.owner == Owner::Manager)?;
        Some(unclaimed.socket.address().map_or_else(|_| "?".to_owned(), |it| it.to_string()))
    }
}

/// Whether what is configured as `address` may be what listens `there`.
fn covers(address: &Listen, there: &Listen) -> bool {
    match (address, there) {
        (Listen::Tcp(address), Listen::Tcp(there)) if address.port() == 0 => {
            address.ip() == there.ip()
        }
        (address, there) => address == there,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(role: Option<Role>) -> (Passed, Listen) {
        let socket = Socket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = socket.address().unwrap();
        (Passed { role, owner: Owner::Manager, socket }, address)
    }

    #[test]
    fn a_socket_is_for_the_setting_that_names_its_address() {
        let (one, first) = passed(Some(Role::Callers));
        let (two, second) = passed(None);
        let mut given = Given::new(vec![one, two]);
        let any = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let other = Listen::Tcp("127.0.0.2:0".parse().unwrap());

        let mut take = |role, address: &Listen| given.take(role, address).unwrap().len();
        assert_eq!(take(Role::Admin, &first), 0, "it is for callers");
        assert_eq!(take(Role::Callers, &other), 0, "it listens elsewhere");
        assert_eq!(take(Role::Callers, &first), 1);
        assert_eq!(given.unclaimed(), Some(second.to_string()));

        let mut take = |role, address: &Listen| given.take(role, address).unwrap().len();
        assert_eq!(take(Role::Health, &any), 1, "port 0 is any port");
        assert_eq!(given.unclaimed(), None);
    }

    #[test]
    fn the_name_of_a_unix_socket_is_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let socket = Socket::Unix(UnixListener::bind(&path).unwrap());
        let name = socket.address().unwrap();
        let mut given = Given::new(vec![Passed { role: None, owner: Owner::Gateway, socket }]);

        assert_eq!(name, Listen::Unix(path));
        assert!(given.unclaimed().is_none(), "a predecessor may have had more than we need");
        assert_eq!(given.take(Role::Callers, &name).unwrap().len(), 1);
    }
}
