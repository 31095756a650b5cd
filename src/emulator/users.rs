//! Who can log in, and with what.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{
    answer::Refusal,
    options::{Account, Options, Refused},
};

/// The account that all users belong to.
pub(super) const ACCOUNT_ID: &str = "5b1d0c52-7f0e-4c55-9a53-0e6f7d0a1102";

/// Seconds in a TOTP step.
const STEP: u64 = 30;

/// Somebody who can log in.
pub(super) struct User {
    pub(super) identity: Identity,
    account: Account,
    /// TOTP steps that were used, so that none is used twice.
    used: BTreeSet<u64>,
    /// Failed logins in a row.
    failures: u32,
    /// A TOTP secret that waits for its first code.
    pending_secret: Option<String>,
}

/// What Amove knows of a caller.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) index: usize,
    pub(super) user_id: String,
    pub(super) account_id: String,
    pub(super) username: String,
    pub(super) role: u8,
    pub(super) owner: bool,
    pub(super) mfa: bool,
}

impl User {
    /// The user with the account of this index.
    pub(super) fn new((index, account): (usize, &Account)) -> Self {
        let identity = Identity {
            index,
            user_id: user_id(index),
            account_id: ACCOUNT_ID.to_owned(),
            username: account.username.clone(),
            role: account.user_type,
            owner: account.owner,
            mfa: account.totp_secret.is_some(),
        };
        let account = account.clone();
        Self { identity, account, used: BTreeSet::new(), failures: 0, pending_secret: None }
    }

    /// Whether this is the user's name.
    pub(super) fn is_called(&self, username: &str) -> bool {
        self.account.username.eq_ignore_ascii_case(username)
    }

    /// Looks at what a login presents.
    pub(super) fn check(
        &mut self,
        options: &Options,
        password: &str,
        role: u64,
    ) -> Result<(), Refusal> {
        if self.account.password != password || u64::from(self.account.user_type) != role {
            self.failures = self.failures.saturating_add(1);
            return Err(refused(options.refusal));
        }
        let locked = options.lock_after.is_some_and(|most| self.failures >= most);
        if !self.account.active || locked {
            return Err(Refusal::code("INACTIVE_USER", "The user is not active."));
        }
        self.failures = 0;
        Ok(())
    }

    /// Accepts a code of this, the last or the next step, each once.
    pub(super) fn use_code(&mut self, code: &str, now: u64) -> Result<(), Refusal> {
        let secret = self.account.totp_secret.clone();
        self.use_code_of(secret.as_deref(), code, now)
    }

    /// Changes the password, if the current one is known or need not be.
    pub(super) fn change_password(
        &mut self,
        current: Option<&str>,
        password: &str,
    ) -> Result<(), Refusal> {
        if current.is_some_and(|current| current != self.account.password) {
            return Err(Refusal::code("AUTH", "The current password is not right."));
        }
        if password.is_empty() {
            return Err(Refusal::code("DEFAULT", "A password is required."));
        }
        password.clone_into(&mut self.account.password);
        Ok(())
    }

    /// Notes a TOTP secret that waits for its first code.
    pub(super) fn propose_secret(&mut self, secret: &str) {
        self.pending_secret = Some(secret.to_owned());
    }

    /// Turns the second factor on or off.
    pub(super) fn set_mfa(&mut self, enabled: bool, code: &str, now: u64) -> Result<(), Refusal> {
        let pending = self.pending_secret.clone().filter(|_| enabled);
        let secret = pending.or_else(|| self.account.totp_secret.clone());
        self.use_code_of(secret.as_deref(), code, now)?;
        self.account.totp_secret = secret;
        self.identity.mfa = enabled;
        Ok(())
    }

    /// Lets the user log in no more.
    pub(super) fn deactivate(&mut self) {
        self.account.active = false;
    }

    fn use_code_of(&mut self, secret: Option<&str>, code: &str, now: u64) -> Result<(), Refusal> {
        let wrong = || Refusal::code("TOTP", "The code is not right.");
        let secret = totp_rs::Secret::try_from_base32(secret.unwrap_or("")).map_err(|_| wrong())?;
        let totp = totp_rs::Builder::new().with_secret(secret).build().map_err(|_| wrong())?;
        let step = totp.check(code, now).ok_or_else(wrong)?;
        self.used.retain(|used| used + 2 > now / STEP);
        if !self.used.insert(step) {
            return Err(Refusal::code("TOTP", "The code was used before."));
        }
        Ok(())
    }
}

/// What somebody hears whose credentials are wrong, whichever of them it is.
pub(super) fn refused(how: Refused) -> Refusal {
    match how {
        Refused::Unauthorized => Refusal::Status(http::StatusCode::UNAUTHORIZED),
        Refused::Auth => Refusal::code("AUTH", "Username, password or type is not right."),
    }
}

/// The id of the user with the account of this index.
pub(super) fn user_id(index: usize) -> String {
    format!("5b1d0c52-7f0e-4c55-9a53-0e6f7d0a{:04}", 1101 + index * 10)
}

/// A name that nobody guesses by accident.
pub(super) fn random() -> String {
    Uuid::now_v7().simple().to_string()
}
