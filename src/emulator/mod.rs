//! A stand-in for the Amove API; stands aside.
//!
//! It knows nothing of the gateway and shares no code with it, so that a misreading of the
//! contract cannot hide on both sides of the wire. The two tables of facts are the contract's.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod api;
mod auth;
mod blob;
mod control;
mod data;
mod faults;
mod http;
mod resources;
mod routes;
mod serve;
mod stats;
mod tls;
mod wire;

use self::{auth::Auth, data::Data, faults::Faults, stats::Book};
pub use self::{
    faults::{Fault, HostName, Malformation},
    stats::{Seen, Stats},
};

/// The user that everybody knows.
pub const USERNAME: &str = "svc@corp.test";
/// Its password.
pub const PASSWORD: &str = "sandbox-password";
/// Its role: AccountAdmin.
pub const USER_TYPE: u8 = 4;
/// Its TOTP secret.
pub const TOTP_SECRET: &str = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";

/// Tells the time in seconds since 1970.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What the emulated Amove is like.
#[derive(Clone)]
pub struct Options {
    /// Where the main host listens.
    pub api_listen: SocketAddr,
    /// Where the auth host listens.
    pub auth_listen: SocketAddr,
    /// How long a token lives.
    pub token_ttl: Duration,
    /// Whether a login asks for a TOTP code.
    pub mfa: bool,
    /// Sessions that a user may have at once.
    pub max_sessions: usize,
    /// Serves TLS, and writes the certificate of its test CA to `ca.pem` in here.
    pub tls_dir: Option<PathBuf>,
    /// Tokens that nobody can read.
    pub opaque_tokens: bool,
    /// Answers strings without JSON quotes.
    pub bare_strings: bool,
    /// How a dead token is told.
    pub denial: Denial,
    /// The time; the machine's, unless a test has its own.
    pub now: Option<Now>,
}

/// How the main host tells that a token is dead: the contract leaves it open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Denial {
    /// 401 without anything.
    #[default]
    Plain,
    /// 401 with `WWW-Authenticate`.
    Challenge,
    /// 499 `SESSION`.
    Session,
    /// 499 `TOKEN`.
    Token,
}

impl Default for Options {
    fn default() -> Self {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            api_listen: anywhere,
            auth_listen: anywhere,
            token_ttl: Duration::from_secs(60 * 60),
            mfa: true,
            max_sessions: 5,
            tls_dir: None,
            opaque_tokens: false,
            bare_strings: false,
            denial: Denial::default(),
            now: None,
        }
    }
}

/// An emulated Amove at work. It ends when it is dropped.
pub struct Emulator {
    world: Arc<World>,
    api: SocketAddr,
    auth: SocketAddr,
    tls: bool,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Everything that both hosts share.
struct World {
    options: Options,
    state: Mutex<State>,
}

/// What changes.
struct State {
    auth: Auth,
    data: Data,
    faults: Faults,
    book: Book,
}

impl World {
    /// Nothing can panic while this lock is held, and nobody waits while holding it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time on Amove's clock, in seconds since 1970.
    fn now(&self) -> u64 {
        let here = match &self.options.now {
            Some(now) => now(),
            None => system_time(),
        };
        here.saturating_add_signed(self.state().faults.clock_skew)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a stand-in for another machine has a clock of its own"
)]
fn system_time() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Emulator {
    /// Starts both hosts.
    ///
    /// # Errors
    ///
    /// The system's, for an address that cannot be had or a directory that cannot be written.
    pub async fn start(options: Options) -> io::Result<Self> {
        let tls = options.tls_dir.as_deref().map(tls::acceptor).transpose()?;
        let api = TcpListener::bind(options.api_listen).await?;
        let auth = TcpListener::bind(options.auth_listen).await?;
        let (api_at, auth_at) = (api.local_addr()?, auth.local_addr()?);
        let state = State {
            auth: Auth::default(),
            data: Data::new(),
            faults: Faults::default(),
            book: Book::default(),
        };
        let world = Arc::new(World { options, state: Mutex::new(state) });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let is_tls = tls.is_some();
        for (listener, host) in [(api, HostName::Api), (auth, HostName::Auth)] {
            let desk = serve::Desk { world: Arc::clone(&world), host, tls: tls.clone() };
            tasks.spawn(serve::accept(listener, desk, stop.clone(), tasks.clone()));
        }
        Ok(Self { world, api: api_at, auth: auth_at, tls: is_tls, stop, tasks })
    }

    /// The base URL of the main host.
    pub fn api_url(&self) -> String {
        self.url(self.api)
    }

    /// The base URL of the auth host.
    pub fn auth_url(&self) -> String {
        self.url(self.auth)
    }

    fn url(&self, address: SocketAddr) -> String {
        // The certificate is for names as well, but not for every loopback address.
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        let now = self.world.now();
        self.world.state().stats(now)
    }

    /// Makes something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.world.state().inject(fault);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.world.state().faults = Faults::default();
    }

    /// Ends all sessions: whoever holds a token is denied.
    pub fn revoke_sessions(&self) {
        self.inject(Fault::RevokeSessions);
    }

    /// The latest requests, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.world.state().book.seen.iter().cloned().collect()
    }

    /// Forgets the latest requests.
    pub fn forget_requests(&self) {
        self.world.state().book.seen.clear();
    }

    /// Ends, and waits until the ports are free.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl State {
    fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::RevokeSessions => self.auth.revoke_all(),
            fault => self.faults.order(fault),
        }
    }

    fn stats(&mut self, now: u64) -> Stats {
        self.auth.forget_expired(now);
        let live_sessions = self.auth.live_sessions();
        Stats { live_sessions, ..self.book.stats.clone() }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("api", &self.api)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}
