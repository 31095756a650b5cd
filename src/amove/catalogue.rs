//! The documented routes: what each does, what it wants, what may be repeated.

use std::{collections::HashMap, fmt, sync::LazyLock};

use http::Method;

pub use crate::upstream::Host;

/// The contract's table of routes (contract section 12).
const TABLE: &str = include_str!("routes.csv");

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::parse(TABLE));

/// What a route wants to be called with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthKind {
    /// Nothing.
    None,
    /// A one-shot request token in the JSON body.
    RequestToken,
    /// A token in `Authorization`.
    Bearer,
}

/// What a route does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Effect {
    /// It changes nothing.
    Read,
    /// It changes something.
    Write,
    /// It takes something away.
    Destructive,
    /// It makes a new token.
    Session,
}

impl Effect {
    /// The word for it in the table, in policies and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Session => "session",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for AuthKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::RequestToken => "request_token",
            Self::Bearer => "bearer",
        })
    }
}

/// A set of the contract's tags.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tags(u16);

impl Tags {
    /// The names of all tags but the effects; a tag's bit is its position.
    const NAMES: [&str; 14] = [
        "secret-req",
        "secret-resp",
        "secret-url",
        "maybe-secret-resp",
        "pii",
        "one-shot",
        "self",
        "costs",
        "mail",
        "slow",
        "site-dropped",
        "2024-only",
        "realtime",
        "not-rest",
    ];

    /// Spends a credential that works once.
    pub const ONE_SHOT: Self = Self(1 << 5);

    /// Whether all of `other` is in here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names, in the order of the contract.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let is_set = move |bit: &usize| self.0 & (1 << bit) != 0;
        Self::NAMES.into_iter().enumerate().filter(move |(bit, _)| is_set(bit)).map(|(_, name)| name)
    }

    fn with(self, name: &str) -> Self {
        let bit = Self::NAMES.iter().position(|known| *known == name);
        Self(self.0 | bit.map_or(0, |bit| 1 << bit))
    }
}

/// A documented route.
#[derive(Debug)]
pub struct Route {
    /// The host that serves it.
    pub host: Host,
    /// The method.
    pub method: Method,
    /// The path, with parameters in braces.
    pub template: Box<str>,
    /// What it wants to be called with.
    pub auth: AuthKind,
    /// What it does.
    pub effect: Effect,
    /// What else is to be known about it.
    pub tags: Tags,
    /// Whether a 401, or a 499 `TOKEN` or `SESSION`, says something about our token (contract
    /// section 4.7).
    pub judges_token: bool,
    /// Whether the same request may be sent again with another token: after such an answer the API
    /// has not acted (contract section 9).
    pub replayable: bool,
    /// Whether the same request may be sent again after silence: it changes nothing, or the same
    /// thing (contract section 9).
    pub retryable: bool,
    /// The contract's remarks.
    pub notes: Box<str>,
}

/// What is known of a method and a path.
#[derive(Debug)]
pub enum Lookup {
    /// It is a documented route.
    Found(&'static Route),
    /// The path is documented, for these routes only.
    OtherMethod(Vec<&'static Route>),
    /// It is not documented.
    Unknown,
}

/// All documented routes.
#[derive(Debug)]
pub struct Catalogue {
    routes: Vec<Route>,
    /// Positions in `routes`, by the path's key.
    exact: HashMap<String, Vec<usize>>,
    /// The same for paths that end in a parameter, by what stands before it.
    with_parameter: HashMap<String, Vec<usize>>,
}

impl Catalogue {
    /// The catalogue of the contract.
    pub fn get() -> &'static Self {
        &CATALOGUE
    }

    /// All routes, in the order of the contract.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Looks up a normalised path (see [`super::paths::Place::key`]).
    pub fn find(&'static self, method: &Method, key: &str) -> Lookup {
        let (mut found, mut others) = (None, false);
        for &at in self.candidates(key) {
            match self.routes.get(at) {
                Some(route) if route.method == *method => found = Some(route),
                _ => others = true,
            }
        }
        match found {
            Some(route) => Lookup::Found(route),
            None if others => {
                Lookup::OtherMethod(self.candidates(key).iter().filter_map(|at| self.routes.get(*at)).collect())
            }
            None => Lookup::Unknown,
        }
    }

    fn candidates(&self, key: &str) -> &[usize] {
        let exact = self.exact.get(key);
        let before_parameter = || key.rsplit_once('/').and_then(|(before, _)| self.with_parameter.get(before));
        exact.or_else(before_parameter).map_or(&[], Vec::as_slice)
    }

    /// Rows that cannot be understood are left out; a test counts those that can.
    fn parse(table: &str) -> Self {
        let mut catalogue =
            Self { routes: Vec::new(), exact: HashMap::new(), with_parameter: HashMap::new() };
        for row in csv::Reader::from_reader(table.as_bytes()).records().flatten() {
            let Some(route) = Route::parse(&row) else { continue };
            let at = catalogue.routes.len();
            let key = key_of(&route.template);
            let (index, key) = match key.split_once("/{") {
                Some((before, _)) => (&mut catalogue.with_parameter, before.to_owned()),
                None => (&mut catalogue.exact, key),
            };
            index.entry(key).or_default().push(at);
            catalogue.routes.push(route);
        }
        catalogue
    }
}

impl Route {
    /// Columns: host, method, path, auth, paginated, request_body, response, notes.
    fn parse(row: &csv::StringRecord) -> Option<Self> {
        let template = row.get(2)?;
        let auth = match row.get(3)? {
            "none" => AuthKind::None,
            "request_token" => AuthKind::RequestToken,
            "bearer" => AuthKind::Bearer,
            _ => return None,
        };
        let notes = row.get(7)?;
        let words = notes.split_once("tags=")?.1.split(';').next()?.split_whitespace();
        let tags = words.clone().fold(Tags::default(), Tags::with);
        // The hub is the only route without an effect: to listen changes nothing.
        let effect = words.clone().find_map(effect_of).unwrap_or(Effect::Read);
        let one_shot = tags.contains(Tags::ONE_SHOT);
        let key = key_of(template);
        let judges_token = auth == AuthKind::Bearer && !JUDGES_SOMETHING_ELSE.contains(&&*key);
        Some(Self {
            host: if row.get(0)? == "auth" { Host::Auth } else { Host::Api },
            method: row.get(1)?.parse().ok()?,
            auth,
            effect,
            tags,
            judges_token,
            replayable: judges_token && !one_shot,
            retryable: !one_shot
                && (effect == Effect::Read || CHANGES_THE_SAME_THING.contains(&&*key)),
            template: template.into(),
            notes: notes.into(),
        })
    }
}

/// Routes with a bearer where a 401 means something else: the consent at a storage provider was
/// refused (contract section 4.7).
const JUDGES_SOMETHING_ELSE: [&str; 2] =
    ["desktop/onedrive_authorization_callback", "desktop/googledrive_authorization_callback"];

/// Writes that do nothing new when they come twice (contract section 9).
const CHANGES_THE_SAME_THING: [&str; 4] = [
    "fastrsettings/insert",
    "fastrsettings/insert_for_user",
    "project/assign_sharedclouddrive",
    "usergroup/assign_users",
];

fn effect_of(word: &str) -> Option<Effect> {
    [Effect::Read, Effect::Write, Effect::Destructive, Effect::Session]
        .into_iter()
        .find(|effect| effect.name() == word)
}

/// What a template is found by: the same as [`super::paths::Place::key`] of a path.
fn key_of(template: &str) -> String {
    let path = template.strip_prefix("/api/v1/").or(template.strip_prefix("/api/"));
    path.unwrap_or(template).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn route(method: &str, key: &str) -> &'static Route {
        match Catalogue::get().find(&method.parse().unwrap(), key) {
            Lookup::Found(route) => route,
            other => panic!("{method} {key}: {other:?}"),
        }
    }

    #[test]
    fn every_row_of_the_contract_is_a_route() {
        let routes = Catalogue::get().routes();
        let count = |wanted: fn(&&Route) -> bool| routes.iter().filter(wanted).count();

        assert_eq!(routes.len(), TABLE.lines().count() - 1);
        assert_eq!(routes.len(), 174);
        assert_eq!(count(|it| it.host == Host::Auth), 6);
        assert_eq!(count(|it| it.auth == AuthKind::None), 10);
        assert_eq!(count(|it| it.auth == AuthKind::RequestToken), 10);
        assert_eq!(count(|it| it.effect == Effect::Destructive), 29);
        assert_eq!(count(|it| it.tags.contains(Tags(1 << 7))), 13);
        assert_eq!(count(|it| it.tags.contains(Tags(1 << 8))), 8);
    }

    #[test]
    fn every_word_of_the_table_is_known() {
        for row in csv::Reader::from_reader(TABLE.as_bytes()).records() {
            let notes = row.unwrap()[7].to_owned();
            for word in notes.split("tags=").nth(1).unwrap().split(';').next().unwrap().split(' ') {
                let known = Tags::NAMES.contains(&word) || effect_of(word).is_some();
                assert!(known, "{word:?} in {notes}");
            }
        }
    }

    #[test]
    fn one_path_may_have_several_methods() {
        let key = "permission/users_project_permission";

        assert_eq!(route("POST", key).effect, Effect::Write);
        assert_eq!(route("DELETE", key).effect, Effect::Destructive);
        let other = Catalogue::get().find(&Method::GET, key);
        assert!(matches!(other, Lookup::OtherMethod(routes) if routes.len() == 3));
    }

    #[test]
    fn deeper_paths_are_found_and_only_as_deep_as_documented() {
        assert_eq!(
            route("GET", "fastrlicense/info/abc").template.as_ref(),
            "/api/v1/fastrLicense/info/{licenseKey}"
        );
        assert!(!route("GET", "fastrsettings/get_all").template.contains('{'));
        assert!(route("GET", "fastrsettings/get_all/7").template.contains("{userId}"));
        let deeper = Catalogue::get().find(&Method::GET, "fastrlicense/info/a/b");
        assert!(matches!(deeper, Lookup::Unknown));
    }

    #[test]
    fn the_method_does_not_tell_what_may_be_repeated() {
        assert!(route("POST", "cloudaccount/list_buckets").retryable);
        assert!(!route("GET", "sso/get_user_usergroups").retryable);
        assert!(!route("GET", "sso/get_user_usergroups").replayable);
        assert!(!route("POST", "transfer/transfer").retryable);
        assert!(route("POST", "transfer/transfer").replayable);
        assert!(route("POST", "fastrsettings/insert").retryable);
    }

    #[test]
    fn some_denials_are_not_about_our_token() {
        assert!(route("GET", "user/userinfo").judges_token);
        assert!(route("POST", "desktop/box_authorization_callback").judges_token);
        for (method, key) in [
            ("POST", "desktop/onedrive_authorization_callback"),
            ("POST", "desktop/googledrive_authorization_callback"),
            ("GET", "user/signupinfo"),
            ("POST", "user/signup"),
            ("POST", "desktop/signup"),
        ] {
            assert!(!route(method, key).judges_token, "{key}");
            assert!(!route(method, key).replayable, "{key}");
        }
    }
}
