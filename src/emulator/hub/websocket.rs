//! The hub over a WebSocket (RFC 6455): as much of it as SignalR in JSON needs.

use std::{io, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use http::{StatusCode, header, request::Parts};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::answer::{self, Outcome, Refusal},
    progress,
    talk::{Said, Talk, ping},
};

/// Between two reports of progress.
const REPORT: Duration = Duration::from_secs(1);
/// A transfer is done then.
const DONE: u32 = 100;
/// Between two signs of life, as SignalR has it.
const ALIVE: Duration = Duration::from_secs(15);
/// The largest message.
const LARGEST: usize = 64 * 1024;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Switches, and goes on until the client or the emulator ends.
pub(super) fn answer(end: CancellationToken, parts: &Parts) -> Outcome {
    let field = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_websocket = field("upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket"));
    if field("sec-websocket-version") != Some("13") {
        return Err(Refusal::Status(StatusCode::UPGRADE_REQUIRED));
    }
    let key = field("sec-websocket-key").filter(|_| is_websocket);
    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
    let (Some(key), Some(upgrade)) = (key, upgrade) else {
        return Err(Refusal::Status(StatusCode::BAD_REQUEST));
    };
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = Socket::new(upgraded);
        tokio::select! {
            () = end.cancelled() => {}
            // How it ends is the client's affair.
            _ = serve(&mut socket) => {}
        }
    });
    let mut reply = answer::with_status(answer::empty(), StatusCode::SWITCHING_PROTOCOLS);
    answer::set(&mut reply, header::CONNECTION, "Upgrade");
    answer::set(&mut reply, header::UPGRADE, "websocket");
    answer::set(&mut reply, header::SEC_WEBSOCKET_ACCEPT, &accept(key));
    Ok(reply)
}

fn accept(key: &str) -> String {
    let seed = format!("{key}{GUID}");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, seed.as_bytes()))
}

async fn serve(socket: &mut Socket) -> io::Result<()> {
    let (mut talk, mut percent) = (Talk::default(), 0);
    let now = Instant::now();
    let mut reports = interval_at(now + REPORT, REPORT);
    let mut signs = interval_at(now + ALIVE, ALIVE);
    loop {
        let message = tokio::select! {
            message = socket.read() => message?,
            _ = reports.tick(), if talk.is_greeted() && percent < DONE => {
                percent += 1;
                socket.say(&progress(percent)).await?;
                continue;
            }
            _ = signs.tick(), if talk.is_greeted() => {
                socket.say(&ping()).await?;
                continue;
            }
        };
        let Some(text) = message else { return socket.close().await };
        for said in talk.hear(&text) {
            match said {
                Said::This(message) => socket.say(&message).await?,
                Said::Bye(message) => {
                    socket.say(&message).await?;
                    return socket.close().await;
                }
            }
        }
    }
}

struct Socket {
    stream: TokioIo<Upgraded>,
    /// Read and not understood yet.
    ahead: BytesMut,
    /// The parts of a message that have come.
    parts: Vec<u8>,
}

struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Socket {
    fn new(upgraded: Upgraded) -> Self {
        let (ahead, parts) = (BytesMut::new(), Vec::new());
        Self { stream: TokioIo::new(upgraded), ahead, parts }
    }

    /// The next message; none at the end. Nothing is lost if this is given up.
    async fn read(&mut self) -> io::Result<Option<String>> {
        loop {
            while let Some(frame) = take_frame(&mut self.ahead)? {
                match frame.opcode {
                    TEXT | BINARY | CONTINUATION => {
                        self.parts.extend_from_slice(&frame.payload);
                        if self.parts.len() > LARGEST {
                            return Err(broken("a message is too large"));
                        }
                        if frame.last {
                            let message = std::mem::take(&mut self.parts);
                            return Ok(Some(String::from_utf8_lossy(&message).into_owned()));
                        }
                    }
                    PING => self.write(PONG, &frame.payload).await?,
                    CLOSE => return Ok(None),
                    PONG => {}
                    _ => return Err(broken("a frame of no known kind")),
                }
            }
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn say(&mut self, message: &str) -> io::Result<()> {
        self.write(TEXT, format!("{message}{}", super::END).as_bytes()).await
    }

    /// Says that it is over, and ends the connection: that is the server's part.
    async fn close(&mut self) -> io::Result<()> {
        self.write(CLOSE, &1000_u16.to_be_bytes()).await?;
        self.stream.shutdown().await
    }

    async fn write(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | opcode];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length @ ..126), _) => frame.push(length),
            (_, Ok(length)) => {
                frame.push(126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await
    }
}

/// Takes one frame of a client off `bytes`, if it is whole.
fn take_frame(bytes: &mut BytesMut) -> io::Result<Option<Frame>> {
    let mut rest = &bytes[..];
    let (Ok(first), Ok(second)) = (rest.try_get_u8(), rest.try_get_u8()) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(broken("a frame that is not masked"));
    }
    let length = match second & 0x7f {
        126 => rest.try_get_u16().map(u64::from),
        127 => rest.try_get_u64(),
        length => Ok(length.into()),
    };
    let Ok(length) = length else { return Ok(None) };
    let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST);
    let length = length.ok_or_else(|| broken("a frame is too large"))?;
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let Some(masked) = rest.get(..length) else { return Ok(None) };
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let behind = rest.len() - length;
    bytes.advance(bytes.len() - behind);
    Ok(Some(Frame { last: first & 0x80 != 0, opcode: first & 0xf, payload }))
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_in_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let whole = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2, 0x89];
        for size in 0..8 {
            assert!(take_frame(&mut BytesMut::from(&whole[..size])).unwrap().is_none(), "{size}");
        }
        let mut bytes = BytesMut::from(&whole[..]);

        let frame = take_frame(&mut bytes).unwrap().unwrap();

        assert_eq!((frame.last, frame.opcode, &frame.payload[..]), (true, TEXT, &b"hi"[..]));
        assert_eq!(&bytes[..], [0x89]);
        assert!(take_frame(&mut BytesMut::from(&[0x81, 2, 0, 0][..])).is_err());
        let huge = [0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0];
        assert!(take_frame(&mut BytesMut::from(&huge[..])).is_err());
    }
}
