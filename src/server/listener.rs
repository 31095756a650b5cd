//! Addresses → listening sockets, one for each worker.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::config::Listen;

/// After how much silence the system asks whether a client is still there.
const SILENCE: Duration = Duration::from_secs(60);

/// How often it asks again, of some few times.
const AGAIN: Duration = Duration::from_secs(15);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// All listening sockets, before the workers take them.
#[derive(Debug)]
pub struct Bound {
    addresses: Vec<Listen>,
    /// For each address, one socket for each worker.
    sockets: Vec<Vec<Listener>>,
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", reason(source))]
pub struct BindError {
    /// The address, as it is written in the configuration.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

impl BindError {
    /// Whether somebody else listens there.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there already".into(),
        io::ErrorKind::PermissionDenied => {
            "not permitted (ports below 1024 and foreign directories need privileges)".into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        _ => error.to_string(),
    }
}

impl Bound {
    /// Binds every address for `workers`.
    ///
    /// # Errors
    ///
    /// [`BindError`] for the first address that cannot be had.
    pub fn new(addresses: &[Listen], workers: usize) -> Result<Self, BindError> {
        let mut bound = Self { addresses: Vec::new(), sockets: Vec::new() };
        for address in addresses {
            let (address, sockets) = match address {
                Listen::Tcp(address) => tcp(*address, workers),
                Listen::Unix(path) => unix(path, workers),
            }
            .map_err(|source| BindError { address: address.to_string(), source })?;
            bound.addresses.push(address);
            bound.sockets.push(sockets);
        }
        Ok(bound)
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// The sockets of one worker: one for each address.
    pub(super) fn take(&mut self) -> Vec<Listener> {
        self.sockets.iter_mut().filter_map(Vec::pop).collect()
    }

    /// Removes the files of unix sockets.
    pub(super) fn clean_up(&self) {
        for address in &self.addresses {
            if let Listen::Unix(path) = address
                && let Err(error) = std::fs::remove_file(path)
            {
                tracing::debug!(?path, error = error.to_string(), "socket file not removed");
            }
        }
    }
}

/// Sockets that share a port: the system spreads connections over the workers.
fn tcp(address: SocketAddr, workers: usize) -> io::Result<(Listen, Vec<Listener>)> {
    // A socket that shares its port would also share it with a stranger, or with a second gateway
    // that was started by mistake; one that does not share finds out.
    socket(address)?.bind(&address.into())?;
    let mut sockets = Vec::with_capacity(workers);
    let mut chosen = address;
    for _ in 0..workers {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&chosen.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        chosen = listener.local_addr()?;
        sockets.push(Listener::Tcp(listener));
    }
    Ok((Listen::Tcp(chosen), sockets))
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor that linger must not keep the port from us.
    socket.set_reuse_address(true)?;
    // Each connection has it from here: a client that is gone without a word is found out.
    let asks = TcpKeepalive::new().with_time(SILENCE).with_interval(AGAIN);
    socket.set_tcp_keepalive(&asks)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn unix(path: &Path, workers: usize) -> io::Result<(Listen, Vec<Listener>)> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        sockets.push(Listener::Unix(listener.try_clone()?));
    }
    Ok((Listen::Unix(PathBuf::from(path)), sockets))
}

/// Removes the socket file of a predecessor that did not end well; never a file of another kind,
/// and never a socket that somebody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::Error::other("a file of that name exists, and it is not a socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(_) => std::fs::remove_file(path),
    }
}
