//! HTTP/2 by hand: frames that no library would write.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// `GOAWAY` and `RST_STREAM` say it to those who overdo it.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame as it is on the wire.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a length");
    let mut bytes = len.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Settings as pairs of name and value.
pub(crate) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pair =
        |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat();
    frame(SETTINGS, 0, 0, &pairs.iter().flat_map(pair).collect::<Vec<_>>())
}

/// Fields as HPACK writes them without any table.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            number(&mut bytes, text.len());
            bytes.extend(text.bytes());
        }
    }
    bytes
}

/// A number with a prefix of 7 bits.
pub(crate) fn number(bytes: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else {
        return bytes.push(u8::try_from(number).expect("7 bits"));
    };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("7 bits") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("7 bits"));
}

/// What every request begins with.
pub(crate) fn get(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)]
}

/// A whole request without a body.
pub(crate) fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get(path)))
}

/// A frame that was received.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The reason in `GOAWAY` and `RST_STREAM`.
    pub(crate) fn reason(&self) -> Option<u32> {
        let at = match self.kind {
            GOAWAY => 4,
            RST_STREAM => 0,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    }

    pub(crate) fn ends_stream(&self, stream: u32) -> bool {
        let is_end = match self.kind {
            DATA | HEADERS => self.flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => false,
        };
        (is_end && self.stream == stream) || self.kind == GOAWAY
    }
}

/// A connection over which any frames may go.
pub(crate) struct Raw {
    pub(crate) reader: Reader,
    pub(crate) writer: OwnedWriteHalf,
}

/// The side of it that frames come in on.
pub(crate) struct Reader(OwnedReadHalf);

impl Raw {
    /// Connects and says what it wants.
    pub(crate) async fn to(address: SocketAddr, pairs: &[(u16, u32)]) -> Self {
        let mut raw = Self::over(TcpStream::connect(address).await.expect("a connection"));
        raw.write(&[PREFACE, &settings(pairs)].concat()).await;
        raw
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("no delay");
        let (reader, writer) = stream.into_split();
        Self { reader: Reader(reader), writer }
    }

    /// Writes `bytes`; whether they were taken.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(PATIENCE, self.writer.write_all(bytes)).await, Ok(Ok(())))
    }
}

impl Reader {
    /// The next frame, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read()).await.ok()?
    }

    /// Reads over how a client begins.
    pub(crate) async fn skip_preface(&mut self) {
        let mut preface = [0; PREFACE.len()];
        let _ = self.0.read_exact(&mut preface).await;
    }

    /// The next frame, however long it takes.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Some(Frame { kind, flags, stream, payload })
    }

    /// What comes for `stream` until it ends: its data, and why it was reset, if it was.
    pub(crate) async fn answer(&mut self, stream: u32) -> (Vec<u8>, Option<u32>) {
        let mut data = Vec::new();
        while let Some(frame) = self.next().await {
            if frame.kind == DATA && frame.stream == stream {
                data.extend_from_slice(&frame.payload);
            }
            if frame.ends_stream(stream) {
                return (data, frame.reason());
            }
        }
        (data, Some(u32::MAX))
    }

    /// Reads to the end of the connection; why it was ended, if that was said.
    pub(crate) async fn farewell(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                reason = frame.reason();
            }
        }
        reason
    }
}
