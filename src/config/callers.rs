//! `[callers.NAME]`: who may call, and how each is recognised.

use std::{collections::HashMap, num::NonZeroU32};

use figment::value::Value;

use super::{
    Caller, Identity,
    load::{nearest, value_at},
    parse,
    read::Reader,
};

/// Two keys are enough to replace one by another.
const MOST_KEYS: usize = 2;

/// The ways in which a caller can be recognised, as they are set.
const WAYS: [&str; 5] = ["api_key_hash", "spiffe_id", "san", "unix_uid", "jwt_subject"];

impl Reader<'_> {
    pub(super) fn callers(&mut self, identities: &[Identity]) -> Vec<Caller> {
        let mut callers = Vec::new();
        let mut taken = Taken::default();
        let mut nameless = 0;
        for path in self.names.iter().filter(|path| path.starts_with("callers.")) {
            let key = |key: &str| format!("{path}.{key}");
            let name = path.split_once('.').map_or("", |(_, name)| name);
            nameless += usize::from(!self.is_recognisable(path));
            if nameless > 1 {
                let why = "one caller that shows nothing is there already";
                self.missing(path, "api_key_hash", why);
                nameless = 1;
            }
            if self.value(&key("burst")).is_some() && self.value(&key("rate")).is_none() {
                self.wrong(&key("burst"), "there is no `rate` that it could be a burst of");
            }
            self.check_name(path, name);
            callers.push(Caller {
                name: name.into(),
                identity: self.identity_of(&key("identity"), identities),
                api_key_hashes: self.key_hashes(&key("api_key_hash"), &mut taken),
                spiffe_id: self.own(&key("spiffe_id"), spiffe_id, &mut taken),
                san: self.own(&key("san"), san, &mut taken),
                unix_uid: self.own(&key("unix_uid"), uid, &mut taken),
                jwt_subject: self.own(&key("jwt_subject"), subject, &mut taken),
                allow: self.rules(&key("allow")),
                deny: self.rules(&key("deny")).unwrap_or_default(),
                rate: self.maybe(&key("rate"), parse::optional(parse::rate)).flatten(),
                burst: self.burst(&key("burst")),
                max_concurrent: self.max_concurrent(&key("max_concurrent")),
            });
        }
        callers
    }

    /// Whether anything would tell this caller from another one.
    pub(super) fn is_recognisable(&self, caller: &str) -> bool {
        WAYS.iter().any(|way| {
            let value = value_at(self.values, &format!("{caller}.{way}"));
            value.is_some_and(|value| value.as_str() != Some(""))
        })
    }

    fn identity_of(&mut self, path: &str, identities: &[Identity]) -> usize {
        let Some(name) = self.maybe(path, parse::text) else { return 0 };
        // An identity that was written but is wrong is not among `identities`.
        let known = || self.names.iter().filter_map(|it| it.strip_prefix("identities."));
        if !known().any(|known| known == name) {
            let hint = nearest(&name, known()).map_or_else(
                || "there is no such identity".to_owned(),
                |nearest| format!("did you mean `{nearest}`?"),
            );
            self.wrong(path, hint);
        }
        identities.iter().position(|it| *it.name == *name).unwrap_or_default()
    }

    fn key_hashes(&mut self, path: &str, taken: &mut Taken) -> Vec<[u8; 32]> {
        let hashes = self.maybe(path, key_hashes).unwrap_or_default();
        for hash in &hashes {
            self.take(path, &format!("key {hash:?}"), "the same key", taken);
        }
        hashes
    }

    /// Something that belongs to one caller only.
    fn own<T: std::fmt::Debug>(
        &mut self,
        path: &str,
        parse: fn(&Value) -> Result<Option<T>, String>,
        taken: &mut Taken,
    ) -> Option<T> {
        let value = self.maybe(path, parse).flatten()?;
        let way = path.rsplit('.').next().unwrap_or_default();
        self.take(path, &format!("{way} {value:?}"), &format!("the same {way}"), taken);
        Some(value)
    }

    fn take(&mut self, path: &str, what: &str, same: &str, taken: &mut Taken) {
        if let Some(other) = taken.0.insert(what.to_owned(), path.to_owned()) {
            let other = other.split('.').nth(1).unwrap_or_default().to_owned();
            self.wrong(path, format!("another caller has {same}: `{other}`"));
        }
    }

    fn max_concurrent(&mut self, path: &str) -> Option<NonZeroU32> {
        let most = self.maybe(path, parse::count)?;
        if u32::try_from(most).is_err() {
            self.wrong(path, "expected a number from 0 (no limit) to 4294967295");
        }
        u32::try_from(most).ok().and_then(NonZeroU32::new)
    }

    pub(super) fn burst(&mut self, path: &str) -> Option<NonZeroU32> {
        let burst = self.maybe(path, parse::count)?;
        let burst = u32::try_from(burst).ok().and_then(NonZeroU32::new);
        if burst.is_none() {
            self.wrong(path, "expected a number from 1 to 4294967295");
        }
        burst
    }
}

/// What callers are recognised by, and where it is set.
#[derive(Default)]
struct Taken(HashMap<String, String>);

fn key_hashes(value: &Value) -> Result<Vec<[u8; 32]>, String> {
    let hashes = match value.as_array() {
        Some(hashes) => hashes.iter().map(parse::key_hash).collect::<Result<Vec<_>, _>>()?,
        None => vec![parse::key_hash(value)?],
    };
    match hashes.len() {
        1..=MOST_KEYS => Ok(hashes),
        _ => Err(format!("expected one key, or {MOST_KEYS} while one replaces the other")),
    }
}

fn spiffe_id(value: &Value) -> Result<Option<Box<str>>, String> {
    const HINT: &str = "expected a SPIFFE id such as \"spiffe://corp.test/billing\"";
    let text = parse::text(value)?;
    let rest = text.strip_prefix("spiffe://").unwrap_or_default();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte));
    match rest.split_once('/') {
        _ if text.is_empty() => Ok(None),
        Some((domain, path)) if is_plain && !domain.is_empty() && !path.is_empty() => {
            Ok(Some(text.into()))
        }
        _ => Err(HINT.to_owned()),
    }
}

/// Names are compared without their case, as DNS does; a URI (only it has a colon) is compared as it
/// is, for `/Media` and `/media` are two.
fn san(value: &Value) -> Result<Option<Box<str>>, String> {
    let text = parse::text(value)?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains('*');
    match text.as_str() {
        "" => Ok(None),
        _ if is_plain && text.contains(':') => Ok(Some(text.into())),
        _ if is_plain => Ok(Some(text.to_ascii_lowercase().into())),
        _ => Err("expected one DNS name, e-mail address or URI, written out".to_owned()),
    }
}

fn subject(value: &Value) -> Result<Option<Box<str>>, String> {
    let text = parse::text(value)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

fn uid(value: &Value) -> Result<Option<u32>, String> {
    let uid = parse::count(value).ok().and_then(|uid| u32::try_from(uid).ok());
    uid.map(Some).ok_or_else(|| "expected the number of a user, from 0 to 4294967295".to_owned())
}
