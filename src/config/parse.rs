//! One value → its type; what is wrong is said as what was expected.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use figment::value::Value;
use http::{StatusCode, Uri, uri::Scheme};
use jiff::civil::Date;
use tracing_subscriber::EnvFilter;

use super::{BaseUrl, Listen, Rate, RefreshAhead, UserType, load::nearest};

type Parsed<T> = Result<T, String>;

/// Nothing for `""`.
pub(super) fn optional<T>(
    parse: impl Fn(&Value) -> Parsed<T>,
) -> impl Fn(&Value) -> Parsed<Option<T>> {
    move |value| match value.as_str() {
        Some("") => Ok(None),
        _ => parse(value).map(Some),
    }
}

pub(super) fn text(value: &Value) -> Parsed<String> {
    let text = value.as_str().ok_or_else(|| expected(value, "a text in quotes"))?;
    if text.is_empty() {
        Err("expected a text that is not empty".into())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn boolean(value: &Value) -> Parsed<bool> {
    match (value.to_bool(), value.as_str()) {
        (Some(it), _) => Ok(it),
        (None, Some("true")) => Ok(true),
        (None, Some("false")) => Ok(false),
        _ => Err(expected(value, "true or false")),
    }
}

pub(super) fn count(value: &Value) -> Parsed<usize> {
    let number = match value.as_str() {
        Some(text) => text.parse().ok(),
        None => value.to_i128().and_then(|number| usize::try_from(number).ok()),
    };
    number.ok_or_else(|| expected(value, "a whole number of 0 or more"))
}

/// A part of a whole, from nothing to all of it.
pub(super) fn share(value: &Value) -> Parsed<f64> {
    let number = match value.as_str() {
        Some(text) => text.parse().ok(),
        None => match value.to_i128() {
            Some(whole) => u8::try_from(whole).ok().map(f64::from),
            None => value.to_num().and_then(|number| number.to_f64()),
        },
    };
    let number = number.filter(|share| (0.0..=1.0).contains(share));
    number.ok_or_else(|| expected(value, "a share between 0 and 1, such as 0.1"))
}

pub(super) fn duration(value: &Value) -> Parsed<Duration> {
    const HINT: &str = "a duration such as \"250ms\", \"30s\", \"5m\", \"12h\" or \"90d\"";
    let text = value.as_str().ok_or_else(|| expected(value, HINT))?;
    duration_of(text).ok_or_else(|| format!("expected {HINT}"))
}

/// A whole number and its unit.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(60 * 60),
        "d" => seconds(24 * 60 * 60),
        _ => None,
    };
    // Beyond a century it is a mistake, and sums of such durations overflow.
    duration.filter(|it| *it <= Duration::from_secs(100 * 365 * 24 * 60 * 60))
}

pub(super) fn size(value: &Value) -> Parsed<u64> {
    const HINT: &str = "a size such as \"64KiB\" or \"32MiB\", or a number of bytes";
    let parsed = match value.as_str() {
        Some(text) => size_of(text),
        None => value.to_i128().and_then(|number| u64::try_from(number).ok()),
    };
    parsed.ok_or_else(|| expected(value, HINT))
}

fn size_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

pub(super) fn listens(value: &Value) -> Parsed<Vec<Listen>> {
    const HINT: &str =
        "a list of addresses such as [\"127.0.0.1:8080\", \"unix:/run/gateway.sock\"]";
    let listens: Vec<_> = match (value.as_array(), value.as_str()) {
        (Some(values), _) => values.iter().map(listen).collect::<Parsed<_>>()?,
        (None, Some(text)) => {
            text.split(',').map(|one| listen_of(one.trim())).collect::<Parsed<_>>()?
        }
        _ => return Err(expected(value, HINT)),
    };
    if listens.is_empty() { Err(format!("expected {HINT}")) } else { Ok(listens) }
}

pub(super) fn listen(value: &Value) -> Parsed<Listen> {
    listen_of(value.as_str().ok_or_else(|| expected(value, "an address in quotes"))?)
}

fn listen_of(text: &str) -> Parsed<Listen> {
    if let Some(path) = text.strip_prefix("unix:") {
        let is_absolute = path.starts_with('/');
        return if is_absolute {
            Ok(Listen::Unix(path.into()))
        } else {
            Err("expected an absolute path after `unix:`".into())
        };
    }
    let named = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let address = named.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    address.or_else(|| text.parse().ok()).map(Listen::Tcp).ok_or_else(|| {
        format!("`{text}` is no address: expected for example \"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/run/gateway.sock\"")
    })
}

pub(super) fn base_url(value: &Value) -> Parsed<BaseUrl> {
    const HINT: &str = "a URL of scheme and host such as \"https://api.amove.io\"";
    let text = value.as_str().ok_or_else(|| expected(value, HINT))?;
    let uri: Uri = text.parse().map_err(|_| format!("expected {HINT}"))?;
    let tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(format!("expected {HINT}")),
    };
    let authority = uri.authority().ok_or_else(|| format!("expected {HINT}"))?;
    if authority.as_str().contains('@') {
        return Err("expected no user in the URL: credentials belong to an identity".into());
    }
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") || text.contains('#') {
        return Err(
            "expected no path and no query: the gateway forwards those of the request".into()
        );
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let port = match authority.port() {
        Some(port) => port.as_u16(),
        None if authority.as_str().ends_with(':') => return Err(format!("expected {HINT}")),
        None if tls => 443,
        None => 80,
    };
    if host.is_empty() || port == 0 {
        Err(format!("expected {HINT}"))
    } else {
        Ok(BaseUrl { tls, host: host.into(), port })
    }
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

pub(super) fn user_type(value: &Value) -> Parsed<UserType> {
    let found = match (value.as_str(), value.to_i128()) {
        (Some(text), _) => UserType::ALL
            .into_iter()
            .find(|it| it.name().eq_ignore_ascii_case(text) || (*it as u8).to_string() == text),
        (None, Some(number)) => {
            UserType::ALL.into_iter().find(|it| i128::from(*it as u8) == number)
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let known: Vec<_> =
            UserType::ALL.iter().map(|it| format!("{} ({})", it.name(), *it as u8)).collect();
        let hint =
            value.as_str().and_then(|text| nearest(text, UserType::ALL.iter().map(|it| it.name())));
        let hint = hint.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
        format!("expected one of {}{hint}", known.join(", "))
    })
}

pub(super) fn refresh_ahead(value: &Value) -> Parsed<RefreshAhead> {
    const HINT: &str = "a share such as \"20%\", between 1% and 90%, or a duration such as \"5m\"";
    let text = value.as_str().ok_or_else(|| expected(value, HINT))?;
    let share = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match share {
        Some(share) if (1.0..=90.0).contains(&share) => Ok(RefreshAhead::Share(share / 100.0)),
        Some(_) => Err(format!("expected {HINT}")),
        None => {
            duration_of(text).map(RefreshAhead::Before).ok_or_else(|| format!("expected {HINT}"))
        }
    }
}

pub(super) fn rate(value: &Value) -> Parsed<Rate> {
    const HINT: &str = "a rate such as \"50/s\", \"600/m\" or \"1000/h\"";
    let text = value.as_str().ok_or_else(|| expected(value, HINT))?;
    let parse = || {
        let (count, unit) = text.split_once('/')?;
        let per = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            _ => return None,
        };
        let count: NonZeroU32 = count.trim().parse().ok()?;
        Some(Rate { count, per: Duration::from_secs(per) })
    };
    parse().ok_or_else(|| format!("expected {HINT}"))
}

pub(super) fn key_hash(value: &Value) -> Parsed<[u8; 32]> {
    const HINT: &str = "\"blake3:\" and 64 hexadecimal digits";
    let text = value.as_str().ok_or_else(|| expected(value, HINT))?;
    let hash = text.strip_prefix("blake3:").and_then(|hex| blake3::Hash::from_hex(hex).ok());
    hash.map(Into::into).ok_or_else(|| format!("expected {HINT}"))
}

pub(super) fn status(value: &Value) -> Parsed<StatusCode> {
    let number = count(value).ok().and_then(|number| u16::try_from(number).ok());
    number
        .filter(|number| (400..=599).contains(number) && *number != 499)
        .and_then(|number| StatusCode::from_u16(number).ok())
        .ok_or_else(|| "expected a status from 400 to 599, and not 499 again".to_owned())
}

pub(super) fn date(value: &Value) -> Parsed<Date> {
    const HINT: &str = "a date such as \"2026-01-01\"";
    let text = value.as_str().ok_or_else(|| expected(value, HINT))?;
    let date: Date = text.parse().map_err(|_| format!("expected {HINT}"))?;
    if date.year() >= 1970 { Ok(date) } else { Err("expected a date after 1970".into()) }
}

pub(super) fn filter(value: &Value) -> Parsed<String> {
    const HINT: &str = "a level (error, warn, info, debug, trace) or a filter such as \"info,amove_gateway::session=debug\"";
    let text = text(value).map_err(|_| format!("expected {HINT}"))?;
    match EnvFilter::try_new(&text) {
        // A word that is no level is taken for the name of a module: hardly what was meant.
        Ok(_) if text.contains(['=', ',', ':']) || is_level(&text) => Ok(text),
        _ => Err(format!("expected {HINT}")),
    }
}

fn is_level(text: &str) -> bool {
    ["off", "error", "warn", "info", "debug", "trace"]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(text))
}

fn expected(value: &Value, what: &str) -> String {
    let found = match value {
        Value::String(..) | Value::Char(..) => return format!("expected {what}"),
        Value::Bool(..) => "true or false",
        Value::Num(..) => "a number",
        Value::Array(..) => "a list",
        Value::Dict(..) => "a section",
        Value::Empty(..) => "nothing",
    };
    format!("expected {what}, found {found}")
}
