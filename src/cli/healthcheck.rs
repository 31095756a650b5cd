//! `healthcheck`: exit 0 when a running gateway is ready.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use clap::Args;

use super::{Exit, Failure, Global};
use crate::config::Listen;

/// A probe that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ask here instead of where the configuration says
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<SocketAddr>,
}

/// Asks `/readyz`.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let address = match arguments.address {
        Some(address) => address,
        None => configured(global)?,
    };
    let unreachable = |error: std::io::Error| {
        Failure::new(Exit::Unreachable, format!("no gateway answers at {address}: {error}"))
    };
    let answer = ask(address).map_err(unreachable)?;
    if answer.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let reason = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    Err(Failure::new(Exit::Other, format!("the gateway at {address} is not ready: {reason}")))
}

fn configured(global: &Global) -> Result<SocketAddr, Failure> {
    let server = global.load()?.config.server;
    match server.health_listen.or(server.admin_listen) {
        Some(Listen::Tcp(address)) => Ok(reachable(address)),
        Some(Listen::Unix(_)) | None => Err(Failure::new(
            Exit::Config,
            "neither server.health_listen nor server.admin_listen is a TCP address to ask; give one with --address",
        )),
    }
}

/// From here: who listens everywhere listens on loopback too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
