//! Where operators come in, and what they can look at there.

use tokio::net::TcpListener;

use crate::{
    admin,
    config::{Config, Listen, secret},
    server::BindError,
    sockets::{Given, Owner, Passed, Role, Socket},
};

/// The sockets of an operators' address: those that were given, or one that is opened now.
pub(super) fn listeners(
    role: Role,
    address: &Listen,
    given: &mut Given,
) -> Result<Vec<Passed>, BindError> {
    let bound = given.take(role, address).and_then(|mut passed| {
        if passed.is_empty() {
            let Listen::Tcp(address) = address else {
                return Err(std::io::Error::other("operators are served over TCP only"));
            };
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let (role, owner, socket) = (Some(role), Owner::Gateway, Socket::Tcp(socket));
            passed.push(Passed { role, owner, socket });
        }
        passed.iter_mut().for_each(|passed| passed.role = Some(role));
        Ok(passed)
    });
    bound.map_err(|source| BindError { address: address.to_string(), source })
}

pub(super) fn desk(socket: Socket) -> std::io::Result<TcpListener> {
    match socket {
        Socket::Tcp(socket) => TcpListener::from_std(socket),
        // Their addresses are TCP, so what is taken for them is as well.
        Socket::Unix(_) => Err(std::io::Error::other("operators are served over TCP only")),
    }
}

/// What operators can look at, and where.
pub(super) fn desks_of(
    config: &Config,
) -> Result<Vec<(Role, Listen, admin::Scope)>, secret::Error> {
    let token = &config.server.admin_token;
    // Read again for each request; here it only has to be there.
    token.as_ref().map(secret::Secret::read).transpose()?;
    let admin = config.server.admin_listen.iter().cloned();
    let health = config.server.health_listen.iter().cloned();
    let admin = admin.map(|listen| (Role::Admin, listen, admin::Scope::All(token.clone())));
    let health = health.map(|listen| (Role::Health, listen, admin::Scope::Health));
    Ok(admin.chain(health).collect())
}
