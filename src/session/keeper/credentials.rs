//! The credentials as they are now: a file that has changed counts once it has stopped changing.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use crate::{
    config::{Credentials, Identity, secret::Secret},
    session::login::{Fingerprint, Secrets},
};

/// Files are looked at so often; a changed one has to look the same twice before it counts.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The credentials of one identity.
#[derive(Default)]
pub(super) struct Watched {
    settled: Option<Arc<Secrets>>,
    /// What a file was changed to, at the last look.
    candidate: Option<Fingerprint>,
    unreadable: bool,
}

impl Watched {
    /// What to log in with.
    pub(super) fn settled(&self) -> Option<Arc<Secrets>> {
        self.settled.clone()
    }

    /// Whether there is anything to look at.
    pub(super) fn may_change(&self, identity: &Identity) -> bool {
        let is_file = |secret: &Secret| matches!(secret, Secret::File(_));
        match &identity.credentials {
            Credentials::Password { password, totp, .. } => {
                is_file(password) || totp.as_ref().is_some_and(is_file)
            }
            Credentials::ApiToken(secret) => is_file(secret),
        }
    }

    /// Looks at them; gives what has changed.
    pub(super) fn look(&mut self, identity: &Identity) -> Option<Result<Fingerprint, Arc<str>>> {
        let Credentials::Password { username, password, user_type, totp } = &identity.credentials
        else {
            return None;
        };
        let name = &identity.name;
        let secrets = match Secrets::read(username, password, *user_type, totp.as_ref()) {
            Ok(secrets) => secrets,
            Err(error) => {
                let reason = error.to_string();
                if !self.unreadable {
                    warn!(identity = %name, reason, "credentials cannot be read");
                }
                self.unreadable = true;
                self.candidate = None;
                return self.settled.is_none().then(|| Err(reason.into()));
            }
        };
        let read = secrets.fingerprint();
        let known = self.settled.as_ref().map(|settled| settled.fingerprint());
        if known == Some(read) {
            (self.unreadable, self.candidate) = (false, None);
            return None;
        }
        // At the start there is nothing that could have changed.
        let may_be_half_written = known.is_some() || self.unreadable;
        if may_be_half_written && self.candidate.replace(read) != Some(read) {
            return None;
        }
        self.unreadable = false;
        if known.is_some() {
            info!(identity = %name, "credentials have changed");
        }
        self.candidate = None;
        self.settled = Some(Arc::new(secrets));
        Some(Ok(read))
    }
}
