//! Callers with connections that stay open, in step: all of them ask, then all of them are answered.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{backend::size_of, scenario::Scenario};

/// An answer that takes longer does not come: valgrind is slow, but not that slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Callers, each with a connection of its own.
#[derive(Debug)]
pub(crate) struct Client {
    connections: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects so many callers.
    pub(crate) fn connect(gateway: SocketAddr, callers: usize) -> Self {
        let connect = |_| {
            let stream = TcpStream::connect(gateway).expect("the gateway listens");
            stream.set_nodelay(true).expect("a socket");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            stream
        };
        Self { connections: (0..callers).map(connect).collect(), buffer: Vec::new() }
    }

    /// Every caller sends its request, and then every caller reads its answer.
    pub(crate) fn round(&mut self, round: &Round) {
        for (stream, asked) in self.connections.iter_mut().zip(&round.0) {
            stream.write_all(&asked.request).expect("the gateway reads");
        }
        for (stream, asked) in self.connections.iter_mut().zip(&round.0) {
            let status = read(stream, &mut self.buffer);
            assert_eq!(status, asked.scenario.status, "{}", asked.scenario.name);
        }
    }
}

/// What each caller asks in one round.
#[derive(Debug)]
pub(crate) struct Round(Vec<Asked>);

#[derive(Debug)]
struct Asked {
    request: Vec<u8>,
    scenario: &'static Scenario,
}

impl Round {
    /// One on so many connections: `asks` says what is asked on each, and as which caller.
    pub(crate) fn new(
        connections: usize,
        asks: impl Fn(usize) -> (&'static Scenario, usize),
    ) -> Self {
        let asked = |connection| {
            let (scenario, caller) = asks(connection);
            Asked { request: scenario.request(caller), scenario }
        };
        Self((0..connections).map(asked).collect())
    }
}

/// Reads one whole answer; its status.
fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    let mut some = [0; 16 * 1024];
    loop {
        let size = stream.read(&mut some).expect("an answer in time");
        assert_ne!(
            size,
            0,
            "the gateway closed the connection: {}",
            String::from_utf8_lossy(buffer)
        );
        buffer.extend_from_slice(&some[..size]);
        if let Some(size) = size_of(buffer) {
            assert_eq!(size, buffer.len(), "more than one answer");
            let status = buffer.get(9..12).and_then(|status| str::from_utf8(status).ok());
            return status.and_then(|status| status.parse().ok()).expect("a status");
        }
    }
}
