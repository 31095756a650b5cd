//! Reads the head of a request, line by line, as its bytes arrive.

use std::ops::Range;

use super::{
    line::{self, Line},
    refusal::Refusal,
    target,
};

/// The method that tells the service that the guard has refused a message.
pub const REFUSED: &str = "REFUSED";

/// The longest request line: a target of 8 KiB, a method of 64 bytes, and the rest.
const MAX_REQUEST_LINE: usize = 8 * 1024 + MAX_METHOD + " ".len() + " HTTP/1.1\r\n".len();
const MAX_METHOD: usize = 64;
const MAX_FIELDS: usize = 100;

/// How a head has been understood so far. Positions count from the start of the head.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the line begins that is not complete.
    line: usize,
    /// How far we know that no line ends.
    scanned: usize,
    fields: usize,
    /// After the request line.
    version: Option<Version>,
    authority: Option<Range<usize>>,
    host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Version {
    Http10,
    Http11,
}

/// What a complete head announces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Announced {
    /// The size of the head in bytes.
    pub(super) len: usize,
    pub(super) body: BodyKind,
    /// The request asks for another protocol.
    pub(super) upgrade: bool,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyKind {
    Length(u64),
    Chunked,
}

impl Head {
    /// Reads on in `bytes`, which begin where the head begins. `None`: there must be more.
    pub(super) fn read(&mut self, bytes: &[u8], max: usize) -> Result<Option<Announced>, Refusal> {
        if !bytes.first().is_none_or(|&byte| line::is_token(byte)) {
            return Err(first_byte(bytes));
        }
        let within = bytes.get(..max).unwrap_or(bytes);
        loop {
            let rest = within.get(self.line..).unwrap_or_default();
            let longest = if self.version.is_none() { MAX_REQUEST_LINE } else { usize::MAX };
            let text = match line::take(rest, self.scanned - self.line, longest) {
                Ok(Line::Whole(text)) => text,
                Ok(Line::Partial) if bytes.len() >= max => return Err(Refusal::HeadTooLarge),
                Ok(Line::Partial) => {
                    self.scanned = within.len();
                    return Ok(None);
                }
                Err(refusal) => return Err(refusal.unwrap_or(Refusal::TargetTooLong)),
            };
            let start = self.line;
            self.line += text.len() + "\r\n".len();
            self.scanned = self.line;
            if self.version.is_none() {
                self.request_line(text)?;
            } else if text.is_empty() {
                return self.finish(within).map(Some);
            } else {
                self.field(text, start)?;
            }
        }
    }

    fn request_line(&mut self, text: &[u8]) -> Result<(), Refusal> {
        let (method, rest) = line::split(text, b' ').ok_or(Refusal::RequestLine)?;
        let (target, version) = line::split(rest, b' ').ok_or(Refusal::RequestLine)?;
        if target.is_empty() || version.is_empty() || version.contains(&b' ') {
            return Err(Refusal::RequestLine);
        }
        if method.len() > MAX_METHOD || !method.iter().all(|&byte| line::is_token(byte)) {
            return Err(Refusal::Method);
        }
        self.version = Some(match version {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Err(Refusal::Version),
        });
        match method {
            b"CONNECT" => return Err(Refusal::Connect),
            _ if method == REFUSED.as_bytes() => return Err(Refusal::ReservedMethod),
            _ => {}
        }
        let authority = target::check(method, target)?;
        self.authority = authority.map(|authority| range(text, authority, 0));
        Ok(())
    }

    fn field(&mut self, text: &[u8], start: usize) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Refusal::TooManyFields);
        }
        let (name, value) = line::field(text)?;
        // Lengths first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(range(text, value, start), value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = self.version == Some(Version::Http11);
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, at: Range<usize>, value: &[u8]) -> Result<(), Refusal> {
        if !target::is_authority(value) {
            return Err(Refusal::HostInvalid);
        }
        if self.host.replace(at).is_some() { Err(Refusal::HostRepeated) } else { Ok(()) }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::LengthInvalid);
        }
        let length = value.iter().try_fold(0_i64, |length, digit| {
            length.checked_mul(10)?.checked_add(i64::from(digit - b'0'))
        });
        let length = length.ok_or(Refusal::LengthOverflow)?.unsigned_abs();
        if self.length.replace(length).is_some() {
            return Err(Refusal::LengthRepeated);
        }
        if self.chunked { Err(Refusal::LengthAndEncoding) } else { Ok(()) }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.version == Some(Version::Http10) {
            return Err(Refusal::EncodingInHttp10);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::EncodingUnknown);
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(Refusal::EncodingRepeated);
        }
        if self.length.is_some() { Err(Refusal::LengthAndEncoding) } else { Ok(()) }
    }

    /// The empty line has come: what only the whole head can tell.
    fn finish(&self, bytes: &[u8]) -> Result<Announced, Refusal> {
        let text = |at: &Range<usize>| bytes.get(at.clone());
        let host = self.host.as_ref().and_then(text);
        if host.is_none() && self.version == Some(Version::Http11) {
            return Err(Refusal::HostMissing);
        }
        let authority = self.authority.as_ref().and_then(text);
        if let (Some(host), Some(authority)) = (host, authority)
            && !host.eq_ignore_ascii_case(authority)
        {
            return Err(Refusal::ForeignAuthority);
        }
        let length = self.length.unwrap_or(0);
        let body = if self.chunked { BodyKind::Chunked } else { BodyKind::Length(length) };
        Ok(Announced { len: self.line, body, upgrade: self.upgrade })
    }
}

/// What is wrong with a request that does not begin with a method.
fn first_byte(bytes: &[u8]) -> Refusal {
    match bytes.first() {
        Some(b' ' | b'\t' | b'\r') => Refusal::RequestLine,
        _ => Refusal::Method,
    }
}

/// Where `part` lies, which is a part of `text`, when `text` begins at `start`.
fn range(text: &[u8], part: &[u8], start: usize) -> Range<usize> {
    let from = start + (part.as_ptr().addr() - text.as_ptr().addr());
    from..from + part.len()
}
