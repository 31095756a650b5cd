//! Sockets that the service manager passes: `LISTEN_FDS`, named by `LISTEN_FDNAMES`.

use std::io;

use listenfd::ListenFd;

use super::{Given, Owner, Passed, Role, Socket};

/// Why what was passed cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("socket {number} of LISTEN_FDS cannot be used: expected a TCP or unix socket that listens")]
pub struct Error {
    /// Its number; the first one is 0.
    number: usize,
    source: io::Error,
}

/// Takes what was passed. To be called once, and before there are threads, since it takes the
/// variables out of the environment.
///
/// `callers`, `admin` and `health` are names that say what a socket is for; with any other name its
/// address does.
///
/// # Errors
///
/// [`Error`] for the first that is of no use.
pub fn passed() -> Result<Given, Error> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    let mut passed = Vec::with_capacity(sockets.len());
    for number in 0..sockets.len() {
        let name = names.next().unwrap_or_default();
        let role = Role::ALL.into_iter().find(|role| role.name() == name);
        let socket = take(&mut sockets, number).map_err(|source| Error { number, source })?;
        passed.push(Passed { role, owner: Owner::Manager, socket });
    }
    Ok(Given::new(passed))
}

fn take(sockets: &mut ListenFd, number: usize) -> io::Result<Socket> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let socket = match sockets.take_unix_listener(number) {
        Ok(socket) => Socket::Unix(socket.ok_or_else(missing)?),
        Err(_) => Socket::Tcp(sockets.take_tcp_listener(number)?.ok_or_else(missing)?),
    };
    if !socket.listens()? {
        return Err(io::Error::other("it does not listen"));
    }
    Ok(socket)
}
