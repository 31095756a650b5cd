//! RFC 6238, and never the same step twice.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use totp_rs::{Builder, Secret, Totp};

/// What makes codes; `Debug` shows nothing of it.
pub struct Authenticator(Totp);

/// A code, and the step it is of.
#[derive(Debug)]
pub struct Code {
    /// The digits.
    pub digits: SecretString,
    /// Names the step: no later code may have one that is not greater.
    pub step: u64,
}

/// The secret cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Error {
    /// It is not base32.
    #[error("the TOTP secret is neither base32 nor an otpauth:// URI")]
    NotBase32,
    /// It is an `otpauth://` URI that makes no sense.
    #[error(
        "the TOTP secret is an otpauth:// URI that cannot be used (a secret of 16 bytes or more, 6 to 8 digits and a period are expected)"
    )]
    BadUri,
    /// There is hardly anything to guess.
    #[error("the TOTP secret has fewer than 10 bytes")]
    TooShort,
}

impl Authenticator {
    /// Reads a secret: base32, in groups and lower case too, or an `otpauth://` URI.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn new(secret: &SecretString) -> Result<Self, Error> {
        let text = secret.expose_secret().trim();
        if text.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("otpauth://")) {
            return Totp::from_url(text).map(Self).map_err(|_| Error::BadUri);
        }
        let letters = text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '='));
        let base32: Zeroizing<String> =
            Zeroizing::new(letters.map(|c| c.to_ascii_uppercase()).collect());
        let secret = Secret::try_from_base32(&*base32).map_err(|_| Error::NotBase32)?;
        if secret.as_bytes().len() < 10 {
            return Err(Error::TooShort);
        }
        // Real secrets are often shorter than the 16 bytes that the checked way insists on; digits
        // and period are the standard's, so nothing else is left to check.
        Ok(Self(Builder::new().with_secret(secret).build_noncompliant()))
    }

    /// The code for `now`, in seconds since 1970, or how long to wait for one of a step later than
    /// `used`.
    ///
    /// # Errors
    ///
    /// The time until the next step begins.
    pub fn code(&self, now: u64, used: u64) -> Result<Code, Duration> {
        let step = self.0.next_step(now);
        if step <= used {
            return Err(Duration::from_secs(used.saturating_sub(now).max(1)));
        }
        let digits = Zeroizing::new(self.0.generate(now).to_string());
        Ok(Code { digits: SecretString::from(digits.as_str()), step })
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(secret: &str) -> Authenticator {
        Authenticator::new(&secret.into()).unwrap()
    }

    /// The secret of RFC 6238 appendix B: `12345678901234567890`.
    const RFC: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn the_codes_are_those_of_the_standard() {
        for (time, expected) in
            [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")]
        {
            let code = authenticator(RFC).code(time, 0).unwrap();
            assert_eq!(code.digits.expose_secret(), expected);
        }
        let uri = format!("otpauth://totp/Amove:svc?secret={RFC}&digits=8&issuer=Amove");
        let code = authenticator(&uri).code(59, 0).unwrap();
        assert_eq!(code.digits.expose_secret(), "94287082");
    }

    #[test]
    fn a_secret_may_be_written_the_way_people_write_it() {
        let people = "gezd gnbv-gy3t qojq gezd gnbv gy3t qojq ====\n";
        let code = authenticator(people).code(59, 0).unwrap();

        assert_eq!(code.digits.expose_secret(), "287082");
        assert!(matches!(Authenticator::new(&"0189!".into()), Err(Error::NotBase32)));
        assert!(matches!(Authenticator::new(&"GEZDGNBV".into()), Err(Error::TooShort)));
        let zero = format!("otpauth://totp/a?secret={RFC}&period=0");
        assert!(matches!(Authenticator::new(&zero.as_str().into()), Err(Error::BadUri)));
    }

    #[test]
    fn no_step_is_used_twice() {
        let authenticator = authenticator(RFC);
        let first = authenticator.code(1000, 0).unwrap();

        let again = authenticator.code(1005, first.step).unwrap_err();
        assert_eq!(again, Duration::from_secs(15));
        let next = authenticator.code(1020, first.step).unwrap();
        assert!(next.step > first.step);
        assert_ne!(next.digits.expose_secret(), first.digits.expose_secret());
    }

    #[test]
    fn debug_shows_nothing() {
        let authenticator = authenticator(RFC);
        let shown = format!("{authenticator:?} {:?}", authenticator.code(59, 0).unwrap());

        assert!(!shown.contains(RFC) && !shown.contains("287082"), "{shown}");
    }
}
