//! A gateway between a login host and an API of which a test plays every byte.

use std::time::Duration;

use amove_gateway::emulator::{Emulator, Options};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Gateway, emulator, eventually, soon};

/// What takes no time on any machine is not there after this.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

/// See above.
pub(crate) struct Between {
    pub(crate) gateway: Gateway,
    pub(crate) auth: Emulator,
    api: TcpListener,
}

impl Between {
    pub(crate) async fn start(more: &[(&str, &str)]) -> Self {
        let api = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let api_url = format!("http://{}", api.local_addr().expect("an address"));
        let auth = emulator(Options { mfa: false, ..Options::default() }).await;
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

    /// What the audit log says about a route, or about one that nobody knows: one record, when it
    /// is there.
    pub(crate) async fn record(&self, route: &str, phase: &str) -> Value {
        let find = || {
            let lines = self.gateway.process.stdout();
            let records = lines.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
            let mut wanted = records.filter(|it| {
                it["route"].as_str().unwrap_or_default() == route && it["phase"] == phase
            });
            wanted.next()
        };
        eventually(phase, async || find().is_some()).await;
        find().expect("a record")
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
        let mut heard = vec![0; expected.len()];
        let mut length = 0;
        let reads = async {
            while length < heard.len() && heard[..length] == expected.as_bytes()[..length] {
                match self.stream.read(&mut heard[length..]).await {
                    Ok(read @ 1..) => length += read,
                    _ => break,
                }
            }
        };
        let in_time = timeout(super::PATIENCE, reads).await.is_ok();
        let heard = String::from_utf8_lossy(&heard[..length]);
        assert_eq!(heard, expected, "{}", if in_time { "heard" } else { "waited in vain" });
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
