//! A connection to the API that has switched protocols: it is bytes from then on.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    counts::Ending,
    tls::{Stream, socket},
};
use crate::slots::Slot;

/// After how much silence the system asks whether the other side is still there.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it asks again, of some few times.
const AGAIN: Duration = Duration::from_secs(15);

/// The stream, and what of it has been read ahead. It counts as a connection in use.
pub(super) struct Switched {
    stream: Stream,
    ahead: Bytes,
    _slot: Option<Slot>,
}

impl Switched {
    /// Behind the head that has switched came `ahead`.
    pub(super) fn new(stream: Stream, ahead: Bytes, slot: Option<Slot>) -> Self {
        let asks = TcpKeepalive::new().with_time(SILENCE).with_interval(AGAIN);
        let socket = socket(&stream);
        socket.life.end(Ending::Tunnel);
        if let Err(error) = SockRef::from(&socket.tcp).set_tcp_keepalive(&asks) {
            tracing::debug!(error = error.to_string(), "no keep-alive for a tunnel");
        }
        Self { stream, ahead, _slot: slot }
    }
}

/// Whether an answer switches to the one protocol that is ever asked for.
pub(super) fn switches_to_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let is_websocket =
        protocols.next().is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_websocket && protocols.next().is_none() && names(headers, &header::CONNECTION, b"upgrade")
}

/// Whether `wanted` is in the list that these fields are.
pub(super) fn names(headers: &HeaderMap, field: &HeaderName, wanted: &[u8]) -> bool {
    let all = headers.get_all(field).iter();
    all.flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(wanted))
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let some = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(some));
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(fields: &[(&'static str, &'static str)], expected: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        assert_eq!(switches_to_websocket(&headers), expected, "{fields:?}");
    }

    #[test]
    fn only_a_switch_to_what_was_asked_for_is_one() {
        check(&[("connection", "Upgrade"), ("upgrade", "WebSocket")], true);
        check(&[("connection", "keep-alive, upgrade"), ("upgrade", "websocket")], true);

        check(&[], false);
        check(&[("upgrade", "websocket")], false);
        check(&[("connection", "upgrade")], false);
        check(&[("connection", "upgrade"), ("upgrade", "h2c")], false);
        check(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], false);
        let two = [("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")];
        check(&two, false);
    }
}
