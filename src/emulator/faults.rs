//! What can go wrong, and how it is written down.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{options::DeadSession, routes::Host};

/// Something that goes wrong.
///
/// `count` says how often, and is 1 if a file or the control endpoint leaves it out; `host` and
/// `route` narrow a fault down, the latter to paths that end like this, such as `project/insert`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Answers come later.
    Latency {
        /// How much later.
        ms: u64,
        /// How often; `None`: until the faults are cleared.
        #[serde(default)]
        count: Option<u64>,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// Good bearers are refused, although their sessions live.
    Unauthorized {
        /// How often.
        #[serde(default = "once")]
        count: u64,
    },
    /// Good bearers are refused, in one of the ways the documentation leaves open.
    DeadSession {
        /// In which way.
        how: DeadSession,
        /// How often.
        #[serde(default = "once")]
        count: u64,
    },
    /// 499.
    Code {
        /// With this code.
        code: String,
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// Any status, as a load balancer or a crash gives it.
    Status {
        /// The status, 200 to 999.
        #[serde(deserialize_with = "final_status")]
        status: u16,
        /// The body.
        #[serde(default)]
        body: String,
        /// The `Retry-After`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// The connection is reset instead of an answer.
    Reset {
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Whether the call takes effect before.
        #[serde(default)]
        acted: bool,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// The answer breaks off half-way through its body.
    Truncate {
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// The body of the answer comes byte by byte.
    Drip {
        /// How long each byte takes.
        ms: u64,
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// There is never an answer.
    Stall {
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// The answer is not HTTP.
    Garbage {
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
    },
    /// The answer is exactly this text, and the end of the connection.
    Raw {
        /// The text.
        text: String,
        /// How often.
        #[serde(default = "once")]
        count: u64,
        /// Only on this host.
        #[serde(default)]
        host: Option<Host>,
        /// Only for paths that end like this.
        #[serde(default)]
        route: Option<String>,
    },
    /// 101, although nobody asked for an upgrade.
    Unsolicited101 {
        /// How often.
        #[serde(default = "once")]
        count: u64,
    },
    /// A login answers with something else.
    MalformedLogin {
        /// With what.
        kind: Malformed,
        /// How often.
        #[serde(default = "once")]
        count: u64,
    },
    /// The auth host resets every connection.
    AuthDown {
        /// From now on, or no longer.
        on: bool,
    },
    /// The emulator's clock is wrong: in `Date`, in JWTs and for TOTP.
    ClockSkew {
        /// How many seconds it is ahead.
        seconds: i64,
    },
    /// All sessions end, once.
    RevokeSessions,
}

/// What a malformed login answers with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Malformed {
    /// Nothing.
    Empty,
    /// A page of HTML.
    Html,
    /// Half a JSON document.
    HalfJson,
    /// `challenge` 0 without a JWT.
    NoToken,
    /// `challenge` 1 without a login session.
    NoSession,
    /// `challenge` 2, which nobody can meet.
    Sms,
    /// A `challenge` nobody knows.
    UnknownChallenge,
    /// A JWT with characters that no header may have.
    BadToken,
}

fn once() -> u64 {
    1
}

fn final_status<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(deserializer)?;
    match status {
        200..=999 => Ok(status),
        _ => Err(serde::de::Error::custom(format!(
            "`status` cannot be {status}: expected a final status, 200 to 999"
        ))),
    }
}

impl Fault {
    /// Good bearers are refused `count` times.
    pub fn unauthorized(count: u64) -> Self {
        Self::Unauthorized { count }
    }

    /// The next `count` calls to either host are answered 499 with `code`.
    pub fn code(code: &str, count: u64) -> Self {
        Self::Code { code: code.to_owned(), count, host: None, route: None }
    }

    /// The next `count` calls are answered with `status` and no body.
    pub fn status(status: u16, count: u64) -> Self {
        let body = String::new();
        Self::Status { status, body, retry_after: None, count, host: None, route: None }
    }

    /// The next `count` calls have their connection reset and take no effect.
    pub fn reset(count: u64) -> Self {
        Self::Reset { count, acted: false, host: None, route: None }
    }

    /// The next `count` calls are never answered.
    pub fn stall(count: u64) -> Self {
        Self::Stall { count, host: None, route: None }
    }

    /// The next `count` answers break off half-way.
    pub fn truncate(count: u64) -> Self {
        Self::Truncate { count, host: None, route: None }
    }

    /// The next call is answered with exactly `text`.
    pub fn raw(text: &str) -> Self {
        Self::Raw { text: text.to_owned(), count: 1, host: None, route: None }
    }

    /// All answers come `latency` later.
    pub fn latency(latency: Duration) -> Self {
        let ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        Self::Latency { ms, count: None, host: None, route: None }
    }
}

/// Reads faults as a file and the control endpoint give them: one, or a list.
///
/// # Errors
///
/// What is wrong with them, and what was expected.
pub fn parse(text: &str) -> Result<Vec<Fault>, String> {
    let value = serde_json::from_str(text);
    let value = value.map_err(|error| format!("the faults are not JSON: {error}"))?;
    let several = match value {
        Value::Array(several) => several,
        one => vec![one],
    };
    let read = |(at, value)| read(value).map_err(|error| format!("fault {}: {error}", at + 1));
    several.into_iter().enumerate().map(read).collect()
}

fn read(value: Value) -> Result<Fault, String> {
    // The derived code overlooks superfluous fields of a variant that has none.
    let superfluous =
        value.as_object().and_then(|fields| fields.keys().find(|key| *key != "fault"));
    let superfluous = superfluous.cloned();
    match (serde_json::from_value(value), superfluous) {
        (Ok(Fault::RevokeSessions), Some(field)) => {
            Err(format!("unknown field `{field}`, there are no fields"))
        }
        (fault, _) => fault.map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        let message = parse(text).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn a_wrong_fault_is_explained() {
        check_refused("[", "the faults are not JSON");
        check_refused(r#"{"fault":"explode"}"#, "unknown variant `explode`, expected one of");
        check_refused(
            r#"[{"fault":"stall"}, {"fault":"reset","cuont":1}]"#,
            "fault 2: unknown field `cuont`",
        );
        check_refused(r#"{"fault":"revoke_sessions","on":1}"#, "unknown field `on`");
    }
}
