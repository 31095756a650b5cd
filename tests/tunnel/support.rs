//! A gateway between a login host and an API of which a test plays every byte.

use std::time::Duration;

use amove_gateway::emulator::{Emulator, Options};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::process_support::{self, Gateway, eventually, get, soon};

/// How a caller asks, up to the empty line.
pub(crate) const ASK: &str = "GET /api/rm?id=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// How the API switches.
pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// What takes no time on any machine is not there after this.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

pub(crate) struct Between {
    pub(crate) gateway: Gateway,
    pub(crate) auth: Emulator,
    api: TcpListener,
}

impl Between {
    pub(crate) async fn start(more: &[(&str, &str)]) -> Self {
        let api = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let api_url = format!("http://{}", api.local_addr().expect("an address"));
        let auth = process_support::emulator(Options { mfa: false, ..Options::default() }).await;
        let mut settings = vec![
            ("AMOVE_GATEWAY_UPSTREAM__API_URL", &*api_url),
            ("AMOVE_GATEWAY_AUDIT__STDOUT", "true"),
        ];
        settings.extend(more);
        let gateway = Gateway::ready(&auth, &settings).await;
        Self { gateway, auth, api }
    }

    /// A caller who has sent this.
    pub(crate) async fn caller(&self, bytes: &str) -> Peer {
        let stream = TcpStream::connect(self.gateway.address).await.expect("a connection");
        let mut peer = Peer { stream };
        peer.say(bytes).await;
        peer
    }

    /// The API's end of the next connection, and the head that came on it.
    pub(crate) async fn api(&self) -> (Peer, String) {
        let (stream, _) = soon("a connection", self.api.accept()).await.expect("a connection");
        let mut peer = Peer { stream };
        let head = peer.head().await;
        (peer, head)
    }

    /// Whether the API is left alone.
    pub(crate) async fn is_quiet(&self) -> bool {
        timeout(MOMENT, self.api.accept()).await.is_err()
    }

    /// Both ends of a tunnel.
    pub(crate) async fn tunnel(&self) -> (Peer, Peer) {
        let mut caller = self.caller(&format!("{ASK}\r\n")).await;
        let (mut api, _) = self.api().await;
        api.say(SWITCH).await;
        let head = caller.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        (caller, api)
    }

    /// What the audit log says about the hub: one record, when it is there.
    pub(crate) async fn record(&self, phase: &str) -> Value {
        let find = || {
            let lines = self.gateway.process.stdout();
            let records = lines.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
            let mut of_hub = records.filter(|it| it["route"] == "/api/rm" && it["phase"] == phase);
            of_hub.next()
        };
        eventually(phase, async || find().is_some()).await;
        find().expect("a record")
    }

    pub(crate) async fn has_tunnels(&self, number: usize) {
        let line = format!("\namove_gateway_tunnels {number}\n");
        eventually(&line, async || {
            let metrics = get(self.gateway.admin, "/metrics").await;
            String::from_utf8_lossy(metrics.body()).contains(&line)
        })
        .await;
    }
}

/// One end of a connection, on which anything may be said.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

impl Peer {
    pub(crate) async fn say(&mut self, bytes: &str) {
        soon("room", self.stream.write_all(bytes.as_bytes())).await.expect("somebody who reads");
    }

    /// Says that nothing more will come.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// Ends as if the machine were gone.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }

    /// All up to an empty line.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = soon("a head", self.stream.read_u8()).await;
            head.push(byte.unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&head))));
        }
        String::from_utf8(head).expect("text").to_ascii_lowercase().replace("http/1.1", "HTTP/1.1")
    }

    /// Reads exactly this.
    pub(crate) async fn hears(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        soon(expected, self.stream.read_exact(&mut bytes)).await.expect(expected);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// Reads nothing for a while.
    pub(crate) async fn hears_nothing(&mut self) {
        let read = timeout(MOMENT, self.stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }

    /// Reads up to the end, which is a clean one or not.
    pub(crate) async fn rest(&mut self) -> std::io::Result<String> {
        let mut rest = Vec::new();
        soon("the end", self.stream.read_to_end(&mut rest)).await?;
        Ok(String::from_utf8_lossy(&rest).into_owned())
    }
}
