//! Reads a chunked body: sizes, extensions, data and trailer fields.

use super::{
    line::{self, Line},
    refusal::Refusal,
};
use crate::message::may_trail;

const MAX_DIGITS: usize = 16;
/// With its CR LF, how long the line before a chunk may be.
const MAX_LINE: usize = MAX_DIGITS + 256 + 2;
/// How long all extensions of a body together may be.
const MAX_EXTENSIONS: usize = 8 * 1024;
/// How large the trailer section may be.
const MAX_TRAILERS: usize = 8 * 1024;
const MAX_TRAILER_FIELDS: usize = 100;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// How far we know that the line at hand does not end.
    scanned: usize,
    extensions: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers {
        bytes: usize,
        fields: usize,
    },
}

/// What was found at the front of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    /// So many bytes are good.
    Good(usize),
    /// So many bytes are good, and the body ends with them.
    Last(usize),
    /// There must be more.
    Partial,
}

impl Chunks {
    /// How many bytes of data come next, whatever they are.
    pub(super) const fn data_left(&self) -> u64 {
        if let At::Data(left) = self.at { left } else { 0 }
    }

    /// So many bytes of data went by.
    pub(super) fn pass(&mut self, bytes: u64) {
        if let At::Data(left) = self.at {
            self.at = if left > bytes { At::Data(left - bytes) } else { At::DataEnd };
        }
    }

    /// Reads what is at the front of `bytes`, which is never in the middle of a line.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        match self.at {
            At::Size => self.size(bytes),
            At::Data(left) => {
                let good = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.pass(good as u64);
                Ok(Piece::Good(good))
            }
            At::DataEnd => self.data_end(bytes),
            At::Trailers { bytes: before, fields } => self.trailer(bytes, before, fields),
        }
    }

    fn size(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        if !bytes.first().is_none_or(u8::is_ascii_hexdigit) {
            return Err(Refusal::ChunkSize);
        }
        let too_long = |refusal: Option<_>| refusal.unwrap_or(Refusal::ChunkExtensionTooLong);
        let Line::Whole(text) = line::take(bytes, self.scanned, MAX_LINE).map_err(too_long)? else {
            return Ok(self.wait_for_more_than(bytes));
        };
        self.scanned = 0;
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = text.split_at_checked(digits).ok_or(Refusal::ChunkSize)?;
        let size = size_of(digits)?;
        check_extension(extension)?;
        self.extensions += extension.len();
        if self.extensions > MAX_EXTENSIONS {
            return Err(Refusal::ChunkExtensionTooLong);
        }
        self.at = if size == 0 { At::Trailers { bytes: 0, fields: 0 } } else { At::Data(size) };
        Ok(Piece::Good(text.len() + 2))
    }

    fn data_end(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        match bytes {
            [] | [b'\r'] => Ok(Piece::Partial),
            [b'\r', b'\n', ..] => {
                self.at = At::Size;
                Ok(Piece::Good(2))
            }
            _ => Err(Refusal::ChunkEnd),
        }
    }

    fn trailer(&mut self, bytes: &[u8], before: usize, fields: usize) -> Result<Piece, Refusal> {
        let too_long = |refusal: Option<_>| refusal.unwrap_or(Refusal::TrailersTooLarge);
        let line = line::take(bytes, self.scanned, MAX_TRAILERS - before).map_err(too_long)?;
        let Line::Whole(text) = line else {
            return Ok(self.wait_for_more_than(bytes));
        };
        self.scanned = 0;
        let len = text.len() + 2;
        if text.is_empty() {
            return Ok(Piece::Last(len));
        }
        let (name, _) = line::field(text)?;
        if !may_trail(name) {
            return Err(Refusal::TrailerForbidden);
        }
        if fields == MAX_TRAILER_FIELDS {
            return Err(Refusal::TrailersTooLarge);
        }
        self.at = At::Trailers { bytes: before + len, fields: fields + 1 };
        Ok(Piece::Good(len))
    }

    const fn wait_for_more_than(&mut self, bytes: &[u8]) -> Piece {
        self.scanned = bytes.len();
        Piece::Partial
    }
}

fn size_of(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return Err(Refusal::ChunkSize);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Refusal::ChunkSize)?;
    u64::from_str_radix(text, 16).map_err(|_| Refusal::ChunkSize)
}

/// An extension is `;` and visible text: no blank around it, quotes closed.
fn check_extension(extension: &[u8]) -> Result<(), Refusal> {
    let (first, rest) = match extension {
        [] => return Ok(()),
        [first, rest @ ..] => (*first, rest),
    };
    if matches!(first, b' ' | b'\t') || matches!(extension.last(), Some(b' ' | b'\t' | b';')) {
        return Err(Refusal::ChunkExtension);
    }
    if first != b';' {
        return Err(Refusal::ChunkSize);
    }
    let (mut quoted, mut escaped) = (false, false);
    for &byte in rest {
        if !matches!(byte, b'\t' | b' '..=b'~') {
            return Err(Refusal::ChunkExtension);
        }
        let closes_or_opens = byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
        quoted ^= closes_or_opens;
    }
    if quoted { Err(Refusal::ChunkExtension) } else { Ok(()) }
}
