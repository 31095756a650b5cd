//! `healthcheck`: exit 0 when a running gateway is ready.

use clap::Args;
use http::StatusCode;

use super::{
    Exit, Failure, Global,
    operator::{self, Gateway, printable},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ask here instead of where the configuration says
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// Asks `/readyz`.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let gateway = match &arguments.address {
        Some(address) => Gateway::at(address.clone()),
        None => configured(global)?,
    };
    let reply = gateway.get("/readyz")?;
    if reply.status == StatusCode::OK {
        return Ok(());
    }
    let (address, reason) = (gateway.address(), String::from_utf8_lossy(&reply.body));
    let message = format!("the gateway at {address} is not ready: {}", printable(&reason));
    Err(Failure::new(Exit::Other, message))
}

fn configured(global: &Global) -> Result<Gateway, Failure> {
    let server = operator::load(global)?.server;
    let listen = server.health_listen.or(server.admin_listen);
    let setting = "neither server.health_listen nor server.admin_listen";
    Ok(Gateway::at(operator::reachable(listen, setting)?))
}
