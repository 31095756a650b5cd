//! `[rate_limit]`: how much may be called by all callers together.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use super::{
    LimitMode, QuotaStore, QuotaStoreError, RateLimit, RateLimitHeaders, RouteLimit,
    load::value_at, parse, read::Reader,
};
use crate::amove::patterns::RoutePattern;

/// Whoever waits holds a connection.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const ROUTES: &str = "rate_limit.routes";

impl Reader<'_> {
    pub(super) fn rate_limit(&mut self) -> Option<RateLimit> {
        let rate = parse::optional(parse::rate);
        let global = self.read("rate_limit.global", &rate).flatten();
        let per_identity = self.read("rate_limit.per_identity", &rate).flatten();
        let words = [
            ("ietf", RateLimitHeaders::Ietf),
            ("legacy", RateLimitHeaders::Legacy),
            ("off", RateLimitHeaders::Off),
        ];
        let routes = self.route_limits();
        let max_wait = self.positive("rate_limit.max_wait", parse::duration);
        if max_wait.is_some_and(|wait| wait > LONGEST_WAIT) {
            self.wrong("rate_limit.max_wait", "expected at most 60s: callers give up earlier");
        }
        let store = self.quota_store();
        let wait = LimitMode::Wait(max_wait.unwrap_or_default());
        let mode =
            self.word("rate_limit.mode", &[("reject", LimitMode::Reject), ("wait", wait)])?;
        let headers = self.word("rate_limit.headers", &words)?;
        Some(RateLimit { global, per_identity, routes, mode, store: store?, headers })
    }

    /// Nothing if what is needed is missing or wrong, which is then among the findings.
    fn quota_store(&mut self) -> Option<QuotaStore> {
        #[derive(Clone, Copy)]
        enum Word {
            Memory,
            Redis,
        }
        let words = [("memory", Word::Memory), ("redis", Word::Redis)];
        let store = self.word("rate_limit.store", &words);
        let url = self.secret("rate_limit.url");
        let ca_file = self.read("rate_limit.ca_file", parse::optional(parse::text)).flatten();
        let on_error = [
            ("local", QuotaStoreError::Local),
            ("allow", QuotaStoreError::Allow),
            ("deny", QuotaStoreError::Deny),
        ];
        let on_error = self.word("rate_limit.on_store_error", &on_error);
        match store? {
            Word::Memory => {
                if url.is_some() || ca_file.is_some() {
                    self.warn(
                        "[rate_limit] has the store \"memory\": `url` and `ca_file` do nothing",
                    );
                }
                Some(QuotaStore::Memory)
            }
            Word::Redis => {
                if url.is_none() && !self.is_secret_set("rate_limit.url") {
                    self.missing("rate_limit", "url", "there is no Redis to share quotas in");
                }
                let url = url.and_then(|url| self.redis("rate_limit.url", &url));
                let ca_file = ca_file.map(PathBuf::from);
                Some(QuotaStore::Redis { url: url?, ca_file, on_error: on_error? })
            }
        }
    }

    fn route_limits(&mut self) -> Vec<RouteLimit> {
        let Some(values) = value_at(self.values, ROUTES).and_then(|it| it.as_dict()) else {
            return Vec::new();
        };
        let mut limits = Vec::new();
        for name in values.keys() {
            let key = |key: &str| format!("{ROUTES}.{name}.{key}");
            let pattern = match name.parse::<RoutePattern>() {
                Ok(pattern) => pattern,
                Err(error) => {
                    self.wrong_section(&format!("{ROUTES}.{name}"), &error.to_string());
                    continue;
                }
            };
            let rate = self.maybe(&key("rate"), parse::optional(parse::rate)).flatten();
            let burst = self.burst(&key("burst"));
            if burst.is_some() && rate.is_none() {
                self.wrong(&key("burst"), "there is no `rate` that it could be a burst of");
            }
            let weight = match self.maybe(&key("weight"), parse::count) {
                None => NonZeroU32::MIN,
                Some(weight) => {
                    let weight = u32::try_from(weight).ok().and_then(NonZeroU32::new);
                    weight.filter(|it| it.get() <= 1000).unwrap_or_else(|| {
                        self.wrong(&key("weight"), "expected a number from 1 to 1000");
                        NonZeroU32::MIN
                    })
                }
            };
            limits.push(RouteLimit { pattern, rate, burst, weight });
        }
        limits
    }
}
