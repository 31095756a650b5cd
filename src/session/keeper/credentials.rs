//! The credentials as they are now: a file that has changed counts once it has stopped changing.

use std::{path::Path, sync::Arc, time::Duration};

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
        !files(identity).is_empty()
    }

    /// Looks at them, now that they are configured so, and were so before; gives what has changed.
    pub(super) fn configured(
        &mut self,
        identity: &Identity,
        before: &Identity,
    ) -> Option<Result<Fingerprint, Arc<str>>> {
        let (files, known) = (files(identity), files(before));
        // A file that was looked at before may just be being written.
        if !files.iter().any(|file| known.contains(file))
            && let Credentials::Password { username, password, user_type, totp } =
                &identity.credentials
            && let Ok(secrets) = Secrets::read(username, password, *user_type, totp.as_ref())
        {
            self.candidate = Some(secrets.fingerprint());
        }
        self.look(identity)
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

/// The files that the credentials are in.
fn files(identity: &Identity) -> Vec<&Path> {
    let secrets = match &identity.credentials {
        Credentials::Password { password, totp, .. } => [Some(password), totp.as_ref()],
        Credentials::ApiToken(secret) => [Some(secret), None],
    };
    let files = secrets.into_iter().flatten().filter_map(|secret| match secret {
        Secret::File(path) => Some(path.as_path()),
        Secret::Inline(_) => None,
    });
    files.collect()
}
