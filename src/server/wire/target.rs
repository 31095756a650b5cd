//! The request target and the authority it may name.

use super::{line::split, refusal::Refusal};

/// The longest target that is accepted.
const MAX: usize = 8 * 1024;

/// Checks the target of a request and returns the authority it names, if it names one.
pub(super) fn check<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
    if target.len() > MAX {
        return Err(Refusal::TargetTooLong);
    }
    match target {
        [b'/', ..] => check_path(target).map(|()| None),
        b"*" if method == b"OPTIONS" => Ok(None),
        b"*" => Err(Refusal::Asterisk),
        _ => check_url(target).map(Some),
    }
}

/// An absolute URL. Returns its authority.
fn check_url(url: &[u8]) -> Result<&[u8], Refusal> {
    let (scheme, rest) = split(url, b':').ok_or(Refusal::TargetForm)?;
    let rest = rest.strip_prefix(b"//").ok_or(Refusal::TargetForm)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Refusal::TargetForm);
    }
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).ok_or(Refusal::TargetForm)?;
    if !is_authority(authority) {
        return Err(Refusal::TargetForm);
    }
    check_path(path).map(|()| authority)
}

/// A path with an optional query, as RFC 3986 has it, and with what URL parsers are known to
/// leave as it is: `[`, `]` and `|` anywhere, and in a query braces, `\`, `^` and the backquote.
fn check_path(path: &[u8]) -> Result<(), Refusal> {
    let (path, query) = split(path, b'?').unwrap_or((path, b""));
    let good = path.iter().all(|&byte| is_path(byte)) && query.iter().all(|&byte| is_query(byte));
    if good { Ok(()) } else { Err(Refusal::TargetCharacter) }
}

const fn is_path(byte: u8) -> bool {
    is_query(byte) && !matches!(byte, b'?' | b'\\' | b'^' | b'`' | b'{' | b'}')
}

const fn is_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>')
}

/// Whether `bytes` are a host and an optional port: no user, no escapes, nothing empty.
pub(super) fn is_authority(bytes: &[u8]) -> bool {
    let (host_is_good, port) = match bytes {
        [b'[', rest @ ..] => {
            let Some((address, port)) = split(rest, b']') else { return false };
            (is_address(address), port)
        }
        _ => {
            let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
            let (name, port) = bytes.split_at_checked(end).unwrap_or((bytes, b""));
            (is_name(name), port)
        }
    };
    host_is_good && (port.is_empty() || is_port(port))
}

/// A registered name or an IPv4 address; `_` occurs in the names of containers.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
}

fn is_address(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// A colon and a number that fits a port.
fn is_port(port: &[u8]) -> bool {
    let Some(digits) = port.strip_prefix(b":") else { return false };
    digits.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(digits).is_ok_and(|text| text.parse::<u16>().is_ok())
}
