//! Addresses → listening sockets for each worker.

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

use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};

use crate::{
    config::Listen,
    sockets::{Given, Owner, Passed, Role, Socket},
};

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
    /// Files of unix sockets that are ours to remove.
    files: Vec<PathBuf>,
    /// One handle of each, for who takes our place.
    passed: Vec<Passed>,
    /// For each worker its own.
    workers: Vec<Vec<Socket>>,
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
    /// Binds every address for `workers`, unless its sockets are among those `given`.
    ///
    /// # Errors
    ///
    /// [`BindError`] for the first address that cannot be had.
    pub fn new(addresses: &[Listen], workers: usize, given: &mut Given) -> Result<Self, BindError> {
        let workers = (0..workers).map(|_| Vec::new()).collect();
        let mut bound =
            Self { addresses: Vec::new(), files: Vec::new(), passed: Vec::new(), workers };
        for address in addresses {
            bound
                .add(address, given)
                .map_err(|source| BindError { address: address.to_string(), source })?;
        }
        Ok(bound)
    }

    fn add(&mut self, address: &Listen, given: &mut Given) -> io::Result<()> {
        let mut passed = given.take(Role::Callers, address)?;
        if passed.is_empty() {
            let sockets = match address {
                Listen::Tcp(address) => tcp(*address, self.workers.len())?,
                Listen::Unix(path) => vec![unix(path)?],
            };
            let ours = |socket| Passed { role: Some(Role::Callers), owner: Owner::Gateway, socket };
            passed.extend(sockets.into_iter().map(ours));
        }
        passed.iter().try_for_each(|it| keep_alive(&it.socket))?;
        let Some(first) = passed.first() else { return Ok(()) };
        let address = first.socket.address()?;
        if let (Listen::Unix(path), Owner::Gateway) = (&address, first.owner) {
            self.files.push(path.clone());
        }
        // Each socket has its own queue: none may be without a worker, and no worker without one.
        let (sockets, workers) = (passed.len(), self.workers.len());
        for number in 0..sockets.max(workers) {
            let socket = passed[number % sockets].socket.try_clone()?;
            self.workers[number % workers].push(socket);
        }
        self.addresses.push(address);
        for mut it in passed {
            it.role = Some(Role::Callers);
            self.passed.push(it);
        }
        Ok(())
    }

    /// Where it listens, with the ports that the system chose.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// A handle of each socket, for who takes our place. As long as one is kept, connections come in.
    pub fn handles(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.passed)
    }

    /// The sockets of one worker.
    pub(super) fn take(&mut self) -> Vec<Socket> {
        self.workers.pop().unwrap_or_default()
    }

    /// Removes the files of unix sockets.
    pub(super) fn clean_up(&self) {
        for path in &self.files {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(?path, error = error.to_string(), "socket file not removed");
            }
        }
    }
}

/// Sockets that share a port: the system spreads connections over the workers.
fn tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<Socket>> {
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
        sockets.push(Socket::Tcp(listener));
    }
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor that linger must not keep the port from us.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Each connection has it from here, whoever opened the socket: a client that is gone without a word is
/// found out.
fn keep_alive(socket: &Socket) -> io::Result<()> {
    let asks = TcpKeepalive::new().with_time(SILENCE).with_interval(AGAIN);
    match socket {
        Socket::Tcp(socket) => SockRef::from(socket).set_tcp_keepalive(&asks),
        Socket::Unix(_) => Ok(()),
    }
}

fn unix(path: &Path) -> io::Result<Socket> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(Socket::Unix(listener))
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
