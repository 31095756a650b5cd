//! A stand-in for the Amove API: both hosts, with state, and with faults to order.
//!
//! It shares no code with the gateway, so that a misreading of the API cannot hide on both sides
//! of the wire; only the two tables of facts are the same.

mod answer;
mod api;
mod auth;
mod clock;
mod control;
mod desk;
mod extras;
mod faults;
mod hub;
mod kinds;
mod options;
mod orders;
mod paging;
mod request_tokens;
mod resources;
mod routes;
mod serve;
mod sessions;
mod single;
mod special;
mod spoil;
mod stats;
mod tls;
mod users;
mod wire;
mod world;

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use self::world::World;
pub use self::{
    clock::Clock,
    faults::{Fault, Malformed, parse as parse_faults},
    options::{Account, DeadSession, Options, Problems, Refused, Spent, Strings, Unused},
    routes::Host,
    stats::{Seen, Stats},
};

/// The name of the account that is compiled in.
pub const USERNAME: &str = "svc@corp.test";
/// Its password.
pub const PASSWORD: &str = "sandbox-password";
/// Its role: AccountAdmin.
pub const USER_TYPE: u8 = 4;
/// Its TOTP secret, in base32.
pub const TOTP_SECRET: &str = "ONQW4ZDCN54C25DPORYC243FMNZGK5BA";
/// Stands for every token that Amove sends by e-mail: to sign up, to confirm, to reset.
pub const MAILED_TOKEN: &str = "mailed-token-0001";

/// An Amove of one's own. Dropping it ends it.
pub struct Emulator {
    world: Arc<World>,
    tasks: TaskTracker,
    api: SocketAddr,
    auth: SocketAddr,
}

impl Emulator {
    /// Starts to listen for both hosts, on the runtime of the caller.
    ///
    /// # Errors
    ///
    /// An address that cannot be listened on, or a directory that cannot be written to.
    pub async fn start(options: Options) -> io::Result<Self> {
        let api = TcpListener::bind(options.api_listen).await?;
        let auth = TcpListener::bind(options.auth_listen).await?;
        let (api_address, auth_address) = (api.local_addr()?, auth.local_addr()?);
        let tls = match &options.tls_dir {
            Some(directory) => {
                let addresses = [api_address.ip(), auth_address.ip()];
                Some(tls::acceptor(directory, &addresses, options.http2)?)
            }
            None => None,
        };
        let world = Arc::new(World::new(options));
        let tasks = TaskTracker::new();
        for (host, listener) in [(Host::Main, api), (Host::Auth, auth)] {
            let world = Arc::clone(&world);
            tasks.spawn(serve::listen(world, host, listener, tls.clone(), tasks.clone()));
        }
        tasks.close();
        Ok(Self { world, tasks, api: api_address, auth: auth_address })
    }

    /// Where the main host is.
    pub fn api_url(&self) -> String {
        self.url(self.api)
    }

    /// Where the auth host is.
    pub fn auth_url(&self) -> String {
        self.url(self.auth)
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        self.world.stats()
    }

    /// The last requests, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.world.memory.read()
    }

    /// Forgets the last requests.
    pub fn forget_requests(&self) {
        self.world.memory.forget();
    }

    /// Lets something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.world.inject(fault);
    }

    /// Puts everything right again.
    pub fn clear_faults(&self) {
        self.world.clear_faults();
    }

    /// Ends all sessions.
    pub fn revoke_sessions(&self) {
        self.world.sessions.revoke();
    }

    /// Ends the emulator, and waits until its ports are free.
    pub async fn stop(self) {
        self.world.end.cancel();
        self.tasks.wait().await;
    }

    fn url(&self, address: SocketAddr) -> String {
        if self.world.options.tls_dir.is_some() {
            return format!("https://localhost:{}", address.port());
        }
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, address.port()))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.world.end.cancel();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("api", &self.api)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}
