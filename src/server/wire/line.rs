//! The lines that heads, chunks and trailers are made of.

use memchr::memchr;

use super::refusal::Refusal;

/// A line found at the front of a slice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Line<'a> {
    /// Its text, without CR LF, which are two bytes more.
    Whole(&'a [u8]),
    /// Its end has not arrived.
    Partial,
}

/// Takes the line at the front of `bytes`, of which the first `scanned` are known to have no LF.
/// With its end, it may have `max` bytes; `Err(None)` says that it has more.
pub(super) fn take(bytes: &[u8], scanned: usize, max: usize) -> Result<Line<'_>, Option<Refusal>> {
    let new = bytes.get(scanned..).unwrap_or_default();
    let Some(end) = memchr(b'\n', new).map(|at| scanned + at) else {
        // At least one byte is still to come, so that the verdict does not depend on how the
        // bytes arrive.
        return if bytes.len() < max { Ok(Line::Partial) } else { Err(None) };
    };
    if end >= max {
        return Err(None);
    }
    match bytes.get(..end).and_then(<[u8]>::split_last) {
        Some((b'\r', text)) if memchr(b'\r', text).is_none() => Ok(Line::Whole(text)),
        Some((b'\r', _)) => Err(Some(Refusal::BareCr)),
        _ => Err(Some(Refusal::BareLf)),
    }
}

/// Splits a field line into its name and its value, without the blanks around the value.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::ObsoleteFold);
    }
    let (name, value) = split(line, b':').ok_or(Refusal::FieldWithoutColon)?;
    check_name(name)?;
    // No early exit: this way the compiler can look at many bytes at once.
    let odd = value
        .iter()
        .fold(false, |odd, &byte| odd | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f));
    if odd { Err(Refusal::FieldValue) } else { Ok((name, trim(value))) }
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    // No early exit here either.
    let good = name.iter().fold(true, |good, &byte| good & is_token(byte) & (byte != b'_'));
    if good && !name.is_empty() {
        return Ok(());
    }
    Err(match name.last() {
        Some(b' ' | b'\t') => Refusal::FieldNameBlank,
        _ if name.iter().all(|&byte| is_token(byte)) && !name.is_empty() => {
            Refusal::FieldNameUnderscore
        }
        _ => Refusal::FieldName,
    })
}

/// What comes before and after the first `separator`.
pub(super) fn split(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(memchr(separator, bytes)?)?;
    Some((before, rest.get(1..)?))
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a token of RFC 9110 may contain `byte`.
pub(super) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// A table, because each byte of each field name is looked up.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
            | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};
