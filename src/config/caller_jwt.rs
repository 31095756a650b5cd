//! `[caller_jwt]`: whose tokens tell who calls.

use std::{path::PathBuf, time::Duration};

use figment::value::Value;
use http::Uri;

use super::{CallerJwt, KeySource, parse, read::Reader};

/// Clocks differ; more than this is no difference but a mistake.
const MOST_LEEWAY: Duration = Duration::from_secs(600);

impl Reader<'_> {
    /// `None` where nothing is set, or something is wrong, which is then among the findings.
    pub(super) fn caller_jwt(&mut self) -> Option<CallerJwt> {
        let text = |key: &str| format!("caller_jwt.{key}");
        let mut read = |key: &str| self.maybe(&text(key), parse::optional(parse::text)).flatten();
        let (issuer, audience) = (read("issuer"), read("audience"));
        let (url, file, ca_file) = (read("jwks_url"), read("jwks_file"), read("ca_file"));
        let wanted = self.is_wanted();
        if !wanted && issuer.is_none() && audience.is_none() && url.is_none() && file.is_none() {
            return None;
        }
        let leeway = self.read(&text("leeway"), parse::duration);
        if leeway.is_some_and(|leeway| leeway > MOST_LEEWAY) {
            self.wrong(&text("leeway"), "expected at most 10m: expired tokens would be good");
        }
        for (is_missing, key, why) in [
            (issuer.is_none(), "issuer", "tokens of anybody else count for nothing"),
            (audience.is_none(), "audience", "tokens for anybody else count for nothing"),
            (
                url.is_none() && file.is_none(),
                "jwks_url",
                "the issuer's keys have to come from there, or from a jwks_file",
            ),
        ] {
            if is_missing {
                self.missing("caller_jwt", key, why);
            }
        }
        let keys = match (url, file) {
            (Some(_), Some(_)) => {
                self.wrong(&text("jwks_file"), "set either this or jwks_url, not both");
                None
            }
            (Some(url), None) => self.key_source(&url),
            (None, file) => file.map(|path| KeySource::File(PathBuf::from(path))),
        };
        let ca_file = ca_file.map(PathBuf::from);
        Some(CallerJwt {
            issuer: issuer?,
            audience: audience?,
            keys: keys?,
            ca_file,
            leeway: leeway?,
        })
    }

    /// Whether a caller is to be known by its token.
    fn is_wanted(&self) -> bool {
        let mut callers = self.names.iter().filter(|path| path.starts_with("callers."));
        callers.any(|path| {
            let subject = self.value(&format!("{path}.jwt_subject"));
            subject.is_some_and(|subject| subject.as_str() != Some(""))
        })
    }

    fn key_source(&mut self, url: &str) -> Option<KeySource> {
        const HINT: &str = "expected a URL such as \"https://issuer.corp.test/jwks.json\"";
        let setting = "caller_jwt.jwks_url";
        let parts = url.parse::<Uri>().ok().map(Uri::into_parts);
        let Some((Some(scheme), Some(authority), path)) =
            parts.map(|parts| (parts.scheme, parts.authority, parts.path_and_query))
        else {
            self.wrong(setting, HINT);
            return None;
        };
        let base = match parse::base_url(&Value::from(format!("{scheme}://{authority}"))) {
            Ok(base) => base,
            Err(expected) => {
                self.wrong(setting, expected);
                return None;
            }
        };
        if !base.tls && !parse::is_loopback(&base.host) {
            self.wrong(setting, "expected https: whoever changes these keys can be anybody");
            return None;
        }
        let path = path.map_or_else(|| "/".to_owned(), |path| path.to_string());
        Some(KeySource::Url { base, path })
    }
}
