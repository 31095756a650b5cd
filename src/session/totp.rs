//! The second factor: the codes of RFC 6238.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use totp_rs::{Algorithm, Builder};

const OTPAUTH: &str = "otpauth://";
const MAX_PERIOD: u64 = 300;
/// 80 bits: less than RFC 4226 wants, but what many issuers hand out.
const MIN_SECRET: usize = 10;

/// What makes codes.
pub struct Totp(totp_rs::Totp);

/// Why a secret makes no codes. Shows nothing of it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not the alphabet of base32.
    #[error("the TOTP secret is not base32: expected the letters A-Z and the digits 2-7")]
    Base32,
    /// Nothing to make codes from.
    #[error("the TOTP secret has {0} bytes: expected at least {MIN_SECRET}")]
    TooShort(usize),
    /// Another kind of URI.
    #[error("the TOTP secret is an otpauth URI of another kind: expected `otpauth://totp/...`")]
    Kind,
    /// The URI has no secret.
    #[error("the otpauth URI has no `secret`")]
    NoSecret,
    /// A parameter of the URI has no meaning.
    #[error("the otpauth URI has an unusable `{name}`: expected {expected}")]
    Parameter {
        /// Which one.
        name: &'static str,
        /// What could be used.
        expected: &'static str,
    },
}

/// One step of time: a code belongs to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// When it ends, in Unix time.
    pub end: u64,
    /// How long it lasts, in seconds.
    pub period: u64,
}

impl Totp {
    /// Reads a secret: base32, with or without spaces and padding, or an `otpauth://` URI.
    ///
    /// # Errors
    ///
    /// When no code can be made from it.
    pub fn parse(text: &SecretString) -> Result<Self, Error> {
        let text = text.expose_secret().trim();
        let scheme = text.get(..OTPAUTH.len()).unwrap_or_default();
        if scheme.eq_ignore_ascii_case(OTPAUTH) {
            return Self::from_uri(text.get(OTPAUTH.len()..).unwrap_or_default());
        }
        Self::build(Builder::new(), text)
    }

    /// Not totp-rs's own reader: it refuses lower case and an issuer that is written in two ways.
    fn from_uri(rest: &str) -> Result<Self, Error> {
        let (label, query) = rest.split_once('?').ok_or(Error::NoSecret)?;
        let kind = label.split('/').next().unwrap_or_default();
        if !kind.eq_ignore_ascii_case("totp") {
            return Err(Error::Kind);
        }
        let mut builder = Builder::new();
        let mut secret = None;
        let query = query.split('#').next().unwrap_or_default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "secret" => secret = Some(value),
                "algorithm" => builder = builder.with_algorithm(algorithm(value)?),
                "digits" => builder = builder.with_digits(digits(value)?),
                "period" => builder = builder.with_step_duration(period(value)?),
                _ => {}
            }
        }
        let secret = Zeroizing::new(secret.ok_or(Error::NoSecret)?.replace("%20", " "));
        Self::build(builder, &Zeroizing::new(secret.replace("%3D", "=").replace("%3d", "=")))
    }

    fn build(builder: Builder, base32: &str) -> Result<Self, Error> {
        let mut plain = Zeroizing::new(String::with_capacity(base32.len()));
        let ornaments = |letter: &char| !matches!(letter, ' ' | '\t' | '\r' | '\n' | '-' | '+');
        plain.extend(base32.chars().filter(ornaments).map(|letter| letter.to_ascii_uppercase()));
        let plain = plain.trim_end_matches('=');
        let secret = totp_rs::Secret::try_from_base32(plain).map_err(|_| Error::Base32)?;
        let bytes = secret.as_bytes().len();
        if bytes < MIN_SECRET {
            return Err(Error::TooShort(bytes));
        }
        Ok(Self(builder.with_secret(secret).build_noncompliant()))
    }

    /// What the other side checks.
    #[cfg(test)]
    pub(super) fn is_code(&self, code: &str, now: Timestamp) -> bool {
        self.0.check(code, seconds(now)).is_some()
    }

    /// The step that it is `now`, by the clock of whoever checks the code.
    pub fn step(&self, now: Timestamp) -> Step {
        Step { end: self.0.next_step(seconds(now)), period: self.0.step() }
    }

    /// The code of `step`.
    pub fn code(&self, step: Step) -> SecretString {
        self.code_at(step.end.saturating_sub(step.period))
    }

    fn code_at(&self, time: u64) -> SecretString {
        SecretString::from(self.0.generate(time).to_string())
    }
}

impl Step {
    /// Whether it is over.
    pub fn is_over(&self, now: Timestamp) -> bool {
        seconds(now) >= self.end
    }
}

/// How long it is until `time`, in Unix time.
pub fn until(time: u64, now: Timestamp) -> Duration {
    let time = i64::try_from(time).ok().and_then(|time| Timestamp::from_second(time).ok());
    let rest = time.map(|time| time.duration_since(now)).filter(|rest| rest.is_positive());
    rest.map_or(Duration::ZERO, |rest| rest.unsigned_abs())
}

fn seconds(now: Timestamp) -> u64 {
    u64::try_from(now.as_second()).unwrap_or_default()
}

impl fmt::Debug for Totp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totp").field("settings", &format_args!("{}", self.0)).finish()
    }
}

fn algorithm(value: &str) -> Result<Algorithm, Error> {
    match value.to_ascii_uppercase().as_str() {
        "SHA1" => Ok(Algorithm::SHA1),
        "SHA256" => Ok(Algorithm::SHA256),
        "SHA512" => Ok(Algorithm::SHA512),
        _ => Err(Error::Parameter { name: "algorithm", expected: "SHA1, SHA256 or SHA512" }),
    }
}

fn digits(value: &str) -> Result<u8, Error> {
    let digits = value.parse().ok().filter(|digits| (6..=8).contains(digits));
    digits.ok_or(Error::Parameter { name: "digits", expected: "6, 7 or 8" })
}

fn period(value: &str) -> Result<u64, Error> {
    let period = value.parse().ok().filter(|period| (1..=MAX_PERIOD).contains(period));
    period.ok_or(Error::Parameter { name: "period", expected: "1 to 300 seconds" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238, appendix B.
    const SHA1: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    const SHA256: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZA";
    const SHA512: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQGEZDGNA";

    fn totp(text: &str) -> Result<Totp, Error> {
        Totp::parse(&SecretString::from(text))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[track_caller]
    fn check(text: &str, time: u64, expected: &str) {
        let totp = totp(text).expect("a secret");
        assert_eq!(totp.code_at(time).expose_secret(), expected, "{text} at {time}");
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        for (algorithm, secret, time, code) in [
            ("SHA1", SHA1, 59, "94287082"),
            ("SHA1", SHA1, 1_111_111_109, "07081804"),
            ("SHA1", SHA1, 20_000_000_000, "65353130"),
            ("SHA256", SHA256, 59, "46119246"),
            ("SHA256", SHA256, 1_111_111_109, "68084774"),
            ("SHA512", SHA512, 59, "90693936"),
            ("SHA512", SHA512, 1_234_567_890, "93441116"),
        ] {
            let uri = format!(
                "otpauth://totp/Amove:svc@corp.test?secret={secret}&issuer=Amove&algorithm={algorithm}&digits=8&period=30"
            );
            check(&uri, time, code);
        }
    }

    #[test]
    fn a_secret_may_be_written_as_people_write_it() {
        for text in [
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            "gezdgnbvgy3tqojqgezdgnbvgy3tqojq",
            "  gezd gnbv gy3t qojq gezd gnbv gy3t qojq\n",
            "GEZD-GNBV-GY3T-QOJQ-GEZD-GNBV-GY3T-QOJQ====",
            "otpauth://totp/svc?secret=gezdgnbvgy3tqojqgezdgnbvgy3tqojq",
            "OTPAUTH://TOTP/A:svc?issuer=B&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ%3D&foo=bar#x",
            "otpauth://totp/svc?secret=GEZD%20GNBV+GY3TQOJQGEZDGNBVGY3TQOJQ&algorithm=sha1",
        ] {
            check(text, 59, "287082");
        }
    }

    #[test]
    fn a_period_of_its_own_is_kept() {
        let uri = "otpauth://totp/svc?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&period=60";

        check(uri, 119, "287082");
    }

    #[test]
    fn what_makes_no_codes_is_refused_without_being_shown() {
        for (text, expected) in [
            ("", Error::TooShort(0)),
            ("MFRGG", Error::TooShort(3)),
            ("not base32 at all! 0189", Error::Base32),
            ("gézdgnbvgy3tqojq", Error::Base32),
            ("otpauth://hotp/svc?secret=GEZDGNBVGY3TQOJQ", Error::Kind),
            ("otpauth://totp/svc", Error::NoSecret),
            ("otpauth://totp/svc?digits=6", Error::NoSecret),
        ] {
            assert_eq!(totp(text).expect_err(text), expected);
        }
        for parameter in ["digits=10", "digits=x", "period=0", "period=99999", "algorithm=MD5"] {
            let uri = format!("otpauth://totp/svc?secret=GEZDGNBVGY3TQOJQ&{parameter}");
            let error = totp(&uri).expect_err(parameter);
            assert!(matches!(error, Error::Parameter { .. }), "{parameter}");
            assert!(!format!("{error} {error:?}").contains("GEZDGNBV"));
        }
    }

    #[test]
    fn a_step_has_one_code_from_its_beginning_to_its_end() {
        let totp = totp(SHA1).expect("a secret");

        let steps = [60, 61, 89].map(|time| totp.step(at(time)));

        assert!(steps.iter().all(|step| *step == Step { end: 90, period: 30 }), "{steps:?}");
        assert_eq!(totp.code(steps[0]).expose_secret(), totp.code_at(75).expose_secret());
        assert!(!steps[0].is_over(at(89)) && steps[0].is_over(at(90)));
        assert_eq!(until(90, at(61)), Duration::from_secs(29));
        assert_eq!(until(90, at(91)), Duration::ZERO);
    }

    #[test]
    fn nothing_prints_the_secret() {
        let printed = format!("{:?}", totp(SHA1));

        assert!(!printed.contains("GEZD") && !printed.contains("1234567890"), "{printed}");
    }
}
