//! A value of a record, and how it is written.

use std::{fmt, io::Write};

use jiff::Timestamp;
use uuid::Uuid;

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// A value of a record, as every format writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A yes or no.
    Bool(bool),
    /// A number.
    Number(u64),
    /// A text.
    Text(&'a str),
    /// Microseconds since 1970.
    Time(i64),
    /// An id.
    Id(Uuid),
    /// A hash.
    Hash(&'a Hash),
}

impl Value<'_> {
    /// Adds it to `out` as JSON.
    pub(super) fn json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Number(number) => {
                out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes())
            }
            Self::Text(text) => quoted(text, out),
            Self::Time(_) | Self::Id(_) | Self::Hash(_) => {
                out.push(b'"');
                self.plain(out);
                out.push(b'"');
            }
        }
    }

    /// Adds it to `out` as it stands, without quotes; nothing if it is nothing.
    pub(super) fn plain(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(_) | Self::Number(_) => self.json(out),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Time(time) => moment(*time, out),
            Self::Id(id) => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                out.extend_from_slice(id.hyphenated().encode_lower(&mut text).as_bytes());
            }
            Self::Hash(hash) => {
                // Without a look into a table, all digits are computed at once.
                let digit = |it: u8| it + if it < 10 { b'0' } else { b'a' - 10 };
                let text = hash.map(|byte| [digit(byte >> 4), digit(byte & 15)]);
                out.extend_from_slice(text.as_flattened());
            }
        }
    }
}

/// As it stands, without quotes.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.plain(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Adds a time in microseconds since 1970 to `out`: `2026-11-26T12:00:00.123456Z`. Every hash is
/// taken over one, so it is worth to be quick.
fn moment(time: i64, out: &mut Vec<u8>) {
    const DAY: u64 = 86_400_000_000;
    /// The library knows no later one.
    const LAST: u64 = 253_402_207_200_000_000;
    let is_usual = |time: &u64| *time <= LAST;
    let Some(micros) = u64::try_from(time).ok().filter(is_usual) else {
        let time = Timestamp::from_microsecond(time).unwrap_or_default();
        // A vector takes everything.
        let _ = write!(out, "{time:.6}");
        return;
    };
    let (year, month, day) = civil(micros / DAY);
    let micros = micros % DAY;
    let seconds = micros / 1_000_000;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (at, width, mut number) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, seconds / 3600),
        (14, 2, seconds / 60 % 60),
        (17, 2, seconds % 60),
        (20, 6, micros % 1_000_000),
    ] {
        for digit in text[at..at + width].iter_mut().rev() {
            // It is less than ten.
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    out.extend_from_slice(&text);
}

/// The year, month and day that is so many days after the first of 1970: Howard Hinnant's
/// `civil_from_days`, for what is not negative. Years begin in March, so that a leap day is last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn quoted(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A text can always be written to a vector.
        let _ = serde_json::to_writer(out, text);
    }
}

/// Whether a text stands in JSON as it is.
fn is_plain(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    // Sixteen at once, none of which ends it early: so the processor compares them in one step.
    let (chunks, rest) = text.as_chunks::<16>();
    chunks.iter().all(|chunk| chunk.iter().fold(true, |all, byte| all & is_plain(byte)))
        && rest.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_as_the_library_for_it_does() {
        for length in 0..40 {
            for at in 0..length {
                for odd in ['x', '"', '\\', '\n', '\u{1f}', '\u{7f}', 'ä'] {
                    let text: String =
                        (0..length).map(|it| if it == at { odd } else { 'a' }).collect();
                    let mut out = Vec::new();
                    Value::Text(&text).json(&mut out);
                    assert_eq!(out, serde_json::to_vec(&text).expect("JSON"), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_time_is_written_as_the_library_for_it_does() {
        let check = |time: i64| {
            let mut text = Vec::new();
            Value::Time(time).plain(&mut text);
            let expected = Timestamp::from_microsecond(time).expect("a time");
            assert_eq!(String::from_utf8(text), Ok(format!("{expected:.6}")), "{time}");
        };

        // Every day for four hundred years, at another time each, and the edges.
        (0..146_097).for_each(|day| check(day * 86_400_000_000 + day * 591_113 % 86_400_000_000));
        for time in [-1, -86_400_000_001, Timestamp::MAX.as_second() * 1_000_000] {
            check(time);
        }
        // What the library does not know is its zero.
        let mut text = Vec::new();
        Value::Time(i64::MAX).plain(&mut text);
        assert_eq!(text, b"1970-01-01T00:00:00.000000Z");
    }
}
