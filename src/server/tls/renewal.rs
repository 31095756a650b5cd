//! Takes certificates over when their files change, and warns before they end.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Configured, Tls};
use crate::{
    clock::Clock,
    config::{
        self,
        looks::{Fingerprint, Looks},
        tls::{Files, Material, Unusable},
    },
    supervise::blocking,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How many days ahead of its end a certificate is warned of.
const DAYS_AHEAD: [i64; 3] = [14, 7, 1];

/// Keeps what connections are served with up to date.
#[derive(Debug)]
pub struct Renewal {
    tls: Arc<Tls>,
    config: config::Tls,
    /// Whether it is to look after other files.
    news: watch::Receiver<Option<Arc<Configured>>>,
    expires: Timestamp,
    crl_due: Option<Timestamp>,
    looks: Looks,
    /// What was last said about files that cannot be used.
    told: Option<Unusable>,
    /// How near its end the certificate is, as far as that was said.
    nearness: usize,
    /// It was said that the revocation lists are out of date.
    is_crl_told: bool,
}

impl Renewal {
    pub(super) fn new(configured: Arc<Configured>, tls: Arc<Tls>) -> Self {
        let Configured { config, fingerprint, material } = &*configured;
        Self {
            config: config.clone(),
            news: tls.configured.subscribe(),
            tls,
            expires: material.expires,
            crl_due: material.crl_due,
            looks: Looks::new(*fingerprint),
            told: None,
            nearness: 0,
            is_crl_told: false,
        }
    }

    /// Looks after other files, if there are any.
    fn follow(&mut self) {
        let configured = self.news.borrow_and_update().clone();
        if let Some(configured) = configured {
            self.config = configured.config.clone();
            self.looks = Looks::new(configured.fingerprint);
            self.took(&configured.material);
        }
    }

    fn took(&mut self, material: &Material) {
        (self.expires, self.crl_due) = (material.expires, material.crl_due);
        (self.told, self.nearness, self.is_crl_told) = (None, 0, false);
    }

    /// Looks after it until `stop` is cancelled.
    pub async fn run(&mut self, clock: Clock, stop: CancellationToken) {
        let mut interval = interval(LOOK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = stop.cancelled() => return,
            }
            if self.news.has_changed().unwrap_or(false) {
                self.follow();
            }
            self.warn(clock.now());
            let config = self.config.clone();
            // A file system may take its time.
            match blocking(move || config.look()).await {
                Ok(files) => self.consider(&files),
                Err(error) => {
                    self.looks.failed();
                    self.tell(error);
                }
            }
        }
    }

    fn consider(&mut self, files: &Files) {
        let fingerprint = files.fingerprint();
        if !self.looks.are_settled(fingerprint) {
            return;
        }
        match self.config.assemble(files) {
            Ok(material) => self.take_over(&material, fingerprint),
            Err(error) => {
                self.looks.refused(fingerprint);
                self.tell(error);
            }
        }
    }

    fn take_over(&mut self, material: &Material, fingerprint: Fingerprint) {
        {
            let configured = self.news.borrow();
            if configured.has_changed() {
                // These are files of before.
                return;
            }
            self.tls.put_in_force(material);
        }
        tracing::info!(expires = material.expires.to_string(), "TLS files taken over");
        self.looks.took(fingerprint);
        self.took(material);
    }

    /// Says once what is wrong; the former files stay in use.
    fn tell(&mut self, error: Unusable) {
        if self.told.as_ref() == Some(&error) {
            return;
        }
        tracing::error!(
            error = error.to_string(),
            "TLS files cannot be taken over; the former ones serve"
        );
        self.told = Some(error);
    }

    fn warn(&mut self, now: Timestamp) {
        let expires = self.expires;
        let nearness = nearness(expires, now);
        if nearness > self.nearness {
            let expires = expires.to_string();
            if nearness > DAYS_AHEAD.len() {
                tracing::error!(expires, "the TLS certificate has expired");
            } else {
                tracing::warn!(expires, "the TLS certificate expires soon");
            }
        }
        self.nearness = nearness;
        if let Some(due) = self.crl_due.filter(|due| *due <= now && !self.is_crl_told) {
            tracing::error!(due = due.to_string(), "the TLS revocation list is out of date");
            self.is_crl_told = true;
        }
    }
}

/// How many of the warnings are due, its end being the last.
fn nearness(expires: Timestamp, now: Timestamp) -> usize {
    let left = expires.duration_since(now);
    let is_due = |days: &i64| left <= SignedDuration::from_hours(24 * days);
    DAYS_AHEAD.iter().chain(&[0]).filter(|days| is_due(days)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_warned_of_three_times_before_its_end() {
        let check = |left: SignedDuration, expected| {
            let now = Timestamp::UNIX_EPOCH;
            let expires = now.checked_add(left).unwrap();
            assert_eq!(nearness(expires, now), expected, "{left}");
        };
        let days = |days: i64| SignedDuration::from_hours(24 * days);

        check(days(90), 0);
        check(days(14) + SignedDuration::from_secs(1), 0);
        check(days(14), 1);
        check(days(8), 1);
        check(days(7), 2);
        check(days(2), 2);
        check(days(1), 3);
        check(SignedDuration::from_secs(1), 3);
        check(SignedDuration::ZERO, 4);
        check(days(-30), 4);
    }
}
