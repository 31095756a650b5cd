//! How a WebSocket is asked for, and what a tunnel is to the tests.

use serde_json::Value;

pub(crate) use crate::process_support::between::{Between, MOMENT, Peer};
use crate::process_support::{eventually, get};

/// How a caller asks, up to the empty line.
pub(crate) const ASK: &str = "GET /api/rm?id=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// How the API switches.
pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

impl Between {
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
    pub(crate) async fn hub_record(&self, phase: &str) -> Value {
        self.record("/api/rm", phase).await
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
