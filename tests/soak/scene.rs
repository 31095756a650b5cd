//! The gateway with everything on, and all that it relies on.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use amove_gateway::emulator::{Emulator, Options};
use base64::Engine;
use tempfile::TempDir;

use crate::{
    calls::KEYS,
    line::Door,
    process_support::{
        Gateway, borrowed, emulator, environment, free_port,
        pki::{Authority, FUTURE, VERSIONS},
        postgres::Postgres,
        redis::Redis,
    },
};

/// See above.
pub(crate) struct Scene {
    pub(crate) gateway: Gateway,
    /// It is away while it starts again.
    amove: Option<Emulator>,
    listens: (SocketAddr, SocketAddr),
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    authority: Authority,
    folder: TempDir,
    /// How often sessions were ended behind the gateway's back.
    pub(crate) ended: u64,
}

impl Scene {
    /// All of it, or nothing where a server is missing.
    pub(crate) async fn start() -> Option<Self> {
        let (redis, postgres) = (Redis::start()?, Postgres::start()?);
        let listens =
            [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let listens = (listens[0], listens[1]);
        let amove = start(listens).await;

        let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
        authority.keep("gateway", &authority.certify("gateway", FUTURE));
        let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
        std::fs::write(folder.path().join("sealing-key"), key).expect("a file");
        let config = folder.path().join("gateway.toml");
        let text = config_text(&redis, &postgres, &authority, &folder);
        std::fs::write(&config, text + &quota(5)).expect("a file");

        let mut environment = environment(&amove);
        // The file says it, so that it can be changed.
        environment.retain(|(name, _)| !name.contains("SERVER__LISTEN"));
        let arguments = ["run", "--config", config.to_str().expect("text")];
        let gateway = Gateway::ignoring(&arguments, &borrowed(&environment), "XFSZ").await;
        let amove = Some(amove);
        Some(Self { gateway, amove, listens, redis, postgres, authority, folder, ended: 0 })
    }

    pub(crate) fn door(&self) -> Arc<Door> {
        Arc::new(Door {
            unix: self.folder.path().join("socket"),
            tcp: self.gateway.address,
            http1: self.authority.client(None, VERSIONS, &["http/1.1"]),
            http2: self.authority.client(None, VERSIONS, &["h2"]),
        })
    }

    pub(crate) fn amove(&self) -> &Emulator {
        self.amove.as_ref().expect("it is there")
    }

    /// Takes the API away, with all that it knows.
    pub(crate) async fn stop_amove(&mut self) {
        self.amove.take().expect("it is there").stop().await;
        self.ended += 1;
    }

    pub(crate) async fn start_amove(&mut self) {
        self.amove = Some(start(self.listens).await);
    }

    /// Puts another quota for the hasty caller into the configuration, or something that is wrong.
    pub(crate) fn write_config(&self, quota: &str) {
        let (file, next) =
            (self.folder.path().join("gateway.toml"), self.folder.path().join("next"));
        let text = config_text(&self.redis, &self.postgres, &self.authority, &self.folder);
        std::fs::write(&next, text + quota).expect("a file");
        std::fs::rename(next, file).expect("another file");
    }

    pub(crate) fn renew_certificate(&self) {
        self.authority.keep("gateway", &self.authority.certify("gateway", FUTURE));
    }

    /// Where its audit log is.
    pub(crate) fn audit(&self) -> PathBuf {
        self.folder.path().join("audit")
    }
}

async fn start(listens: (SocketAddr, SocketAddr)) -> Emulator {
    let (api_listen, auth_listen) = listens;
    emulator(Options { mfa: false, api_listen, auth_listen, ..Options::default() }).await
}

/// What the hasty caller may send.
pub(crate) fn quota(rate: u32) -> String {
    format!("rate = \"{rate}/s\"\n")
}

fn config_text(
    redis: &Redis,
    postgres: &Postgres,
    authority: &Authority,
    folder: &TempDir,
) -> String {
    let folder = folder.path().display();
    let hash = |key: &str| format!("blake3:{}", blake3::hash(key.as_bytes()).to_hex());
    format!(
        r#"
[server]
listen = ["127.0.0.1:0", "unix:{folder}/socket"]
[server.tls]
cert_file = "{certificate}"
key_file = "{key}"
[upstream]
connect_timeout = "2s"
response_timeout = "3s"
[session_store]
kind = "redis"
url = "{redis}"
encryption_key_file = "{folder}/sealing-key"
[rate_limit]
store = "redis"
url = "{redis}"
global = "100000/s"
[audit]
store = "{folder}/audit"
[audit.postgres]
url = "{postgres}"
[callers.steady]
api_key_hash = "{steady}"
[callers.hasty]
api_key_hash = "{hasty}"
"#,
        certificate = authority.text("gateway.crt"),
        key = authority.text("gateway.key"),
        redis = redis.url(),
        postgres = postgres.owner(),
        steady = hash(KEYS[0]),
        hasty = hash(KEYS[1]),
    )
}
