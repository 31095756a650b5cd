//! One gateway takes the place of another while both run: the listening sockets go from the one to
//! the other, so that there is no moment without one, and no connection in the system's queue is lost.
//!
//! ```text
//! successor ── connects to `successor.sock` in the audit log's folder ──▶ predecessor
//!           ◀── '1', then a byte for each socket, with the socket; then '.' ──
//!           ── 'r': I serve ──▶                                               drains, and ends
//! ```
//!
//! Until it has said that it serves, the successor may give up, and nothing has happened. Whoever owns
//! the audit log's folder may do this, and nobody else.

use std::{
    fs, io,
    io::{IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, SockRef};
use tokio::io::AsyncReadExt;

use super::{Given, Owner, Passed, Role, Socket};

/// The file that a successor connects to.
const NAME: &str = "successor.sock";
/// How both begin: what follows may change.
const VERSION: u8 = b'1';
/// There are no more sockets.
const END: u8 = b'.';
/// The successor serves.
const READY: u8 = b'r';
/// The other one answers at once, or never.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any gateway has.
const MOST: usize = 4096;

/// A gateway that we take the place of.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Looks for the gateway that writes the audit log in `folder`, and takes its sockets, which it
    /// goes on to serve. Nothing if there is none.
    ///
    /// # Errors
    ///
    /// The system's, and if what answers is no gateway of ours.
    pub fn find(folder: &Path) -> io::Result<Option<(Self, Given)>> {
        let mut stream = match UnixStream::connect(folder.join(NAME)) {
            Err(error) if is_nobody(&error) => return Ok(None),
            stream => stream?,
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (mut kind, _) = receive(&stream)?;
        if kind != VERSION {
            return Err(foreign());
        }
        let mut passed = Vec::new();
        while passed.len() < MOST {
            let socket;
            (kind, socket) = receive(&stream)?;
            if kind == END {
                stream.flush()?;
                return Ok(Some((Self(stream), Given::new(passed))));
            }
            let (role, owner) = meaning(kind).ok_or_else(foreign)?;
            let socket = listening(socket.ok_or_else(foreign)?)?;
            passed.push(Passed { role: Some(role), owner, socket });
        }
        Err(foreign())
    }

    /// Tells it that we serve: it may end.
    ///
    /// # Errors
    ///
    /// The system's, when it has ended before.
    pub fn release(mut self) -> io::Result<()> {
        self.0.write_all(&[READY])
    }
}

/// Where a successor finds us.
#[derive(Debug)]
pub struct Post {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl Post {
    /// Waits for successors in `folder`. Only for the one who writes the audit log there.
    ///
    /// # Errors
    ///
    /// The system's: a path may be too long for a socket.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: tokio::net::UnixListener::from_std(listener)?, path })
    }

    /// Waits for a successor, and gives it handles of `sockets`.
    ///
    /// # Errors
    ///
    /// The system's, when it was none, or has gone.
    pub async fn successor(&self, sockets: &Arc<[Passed]>) -> io::Result<Successor> {
        let (stream, _) = self.listener.accept().await?;
        // The file is of whoever we are.
        if stream.peer_cred()?.uid() != fs::metadata(&self.path)?.uid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (stream, sockets) = (stream.into_std()?, Arc::clone(sockets));
        let sent = tokio::task::spawn_blocking(move || hand_over(stream, &sockets));
        let stream = sent.await.map_err(io::Error::other)??;
        Ok(Successor(tokio::net::UnixStream::from_std(stream)?))
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        // The one who writes the audit log is still we: a successor has not opened its own yet.
        let _ = fs::remove_file(&self.path);
    }
}

/// A gateway that has our sockets, and is about to take our place.
#[derive(Debug)]
pub struct Successor(tokio::net::UnixStream);

impl Successor {
    /// Waits until it serves; `false` if it has given up.
    pub async fn serves(&mut self) -> bool {
        let mut said = [0];
        self.0.read_exact(&mut said).await.is_ok() && said == [READY]
    }
}

fn hand_over(stream: UnixStream, sockets: &[Passed]) -> io::Result<UnixStream> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&stream, VERSION, None)?;
    for passed in sockets {
        // The role is known: it is we who have used it.
        let Some(role) = passed.role else { continue };
        send(&stream, letter(role, passed.owner), Some(&passed.socket))?;
    }
    send(&stream, END, None)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn letter(role: Role, owner: Owner) -> u8 {
    let letter = match role {
        Role::Callers => b'c',
        Role::Admin => b'a',
        Role::Health => b'h',
    };
    match owner {
        Owner::Gateway => letter,
        Owner::Manager => letter.to_ascii_uppercase(),
    }
}

fn meaning(kind: u8) -> Option<(Role, Owner)> {
    let owners = [Owner::Gateway, Owner::Manager];
    let all = Role::ALL.into_iter().flat_map(|role| owners.map(|owner| (role, owner)));
    all.into_iter().find(|(role, owner)| letter(*role, *owner) == kind)
}

fn send(stream: &UnixStream, kind: u8, socket: Option<&Socket>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    if !sockets.is_empty() {
        along.push(SendAncillaryMessage::ScmRights(&sockets));
    }
    sendmsg(stream, &[IoSlice::new(&[kind])], &mut along, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One byte, and the socket that came with it. The system never joins two that have sockets.
fn receive(stream: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = RecvAncillaryBuffer::new(&mut space);
    let mut kind = [0];
    let read =
        recvmsg(stream, &mut [IoSliceMut::new(&mut kind)], &mut along, RecvFlags::CMSG_CLOEXEC)?;
    if read.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut socket = None;
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            socket = sockets.last().or(socket);
        }
    }
    Ok((kind[0], socket))
}

fn listening(socket: OwnedFd) -> io::Result<Socket> {
    let domain = SockRef::from(&socket).domain()?;
    let socket = if domain == Domain::UNIX {
        Socket::Unix(UnixListener::from(socket))
    } else {
        Socket::Tcp(TcpListener::from(socket))
    };
    if socket.listens()? { Ok(socket) } else { Err(foreign()) }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no gateway that we can take the place of")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::config::Listen;

    fn sockets() -> Arc<[Passed]> {
        let tcp = || Socket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap());
        Arc::new([
            Passed { role: Some(Role::Callers), owner: Owner::Gateway, socket: tcp() },
            Passed { role: Some(Role::Callers), owner: Owner::Manager, socket: tcp() },
            Passed { role: Some(Role::Admin), owner: Owner::Gateway, socket: tcp() },
        ])
    }

    #[tokio::test]
    async fn sockets_go_over_and_the_predecessor_hears_when_they_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        assert!(Predecessor::find(&path).unwrap().is_none());
        let (post, sockets) = (Post::open(&path).unwrap(), sockets());

        for is_ready in [false, true] {
            let path = path.clone();
            let finding = tokio::task::spawn_blocking(move || Predecessor::find(&path));
            let mut successor = post.successor(&sockets).await.unwrap();
            let (predecessor, mut given) = finding.await.unwrap().unwrap().expect("there is one");
            for passed in &*sockets {
                let (role, address) = (passed.role.unwrap(), passed.socket.address().unwrap());
                let taken = given.take(role, &address).unwrap();
                assert_eq!(taken.len(), 1);
                assert_eq!((taken[0].role, taken[0].owner), (passed.role, passed.owner));
            }
            if is_ready {
                predecessor.release().unwrap();
            } else {
                drop(predecessor);
            }
            assert_eq!(successor.serves().await, is_ready);
        }
        drop(post);
        assert!(Predecessor::find(folder.path()).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_connection_waits_in_the_queue_whoever_closes_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let (post, sockets) = (Post::open(&path).unwrap(), sockets());
        let address = sockets[0].socket.address().unwrap();
        let Listen::Tcp(tcp) = address else { panic!("{address}") };
        let finding = tokio::task::spawn_blocking(move || Predecessor::find(&path));
        let _successor = post.successor(&sockets).await.unwrap();
        let (_predecessor, mut given) = finding.await.unwrap().unwrap().expect("there is one");

        let mut client = std::net::TcpStream::connect(tcp).unwrap();
        client.write_all(b"hello").unwrap();
        drop(sockets);

        let taken = given.take(Role::Callers, &address).unwrap();
        let Socket::Tcp(listener) = &taken[0].socket else { panic!("{taken:?}") };
        listener.set_nonblocking(false).unwrap();
        let mut said = [0; 5];
        listener.accept().unwrap().0.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }

    #[tokio::test]
    async fn whoever_answers_with_something_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(NAME)).unwrap();
        let path = folder.path().to_owned();
        let finding = tokio::task::spawn_blocking(move || Predecessor::find(&path));

        listener.accept().unwrap().0.write_all(b"1x").unwrap();

        assert!(finding.await.unwrap().is_err());
    }
}
