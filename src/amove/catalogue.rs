//! The documented routes of the API, and what may be done with each.

use std::{collections::HashMap, sync::LazyLock};

use csv::StringRecord;
use http::Method;

use super::paths;
pub use super::{
    host::Host,
    kinds::{AnswerKind, AuthKind, BodyKind, Effect},
    tags::Tags,
};

/// One row for each route: the contract's own table.
const TABLE: &str = include_str!("routes.csv");

/// Bearer routes where a refusal is about somebody else's consent (contract section 4.7).
const JUDGE_SOMETHING_ELSE: [&str; 2] = [
    "/api/v1/desktop/onedrive_authorization_callback",
    "/api/v1/desktop/googledrive_authorization_callback",
];

/// Writes that come to the same when they are made twice (contract section 9).
const REPEATABLE_WRITES: [&str; 4] = [
    "/api/v1/fastrsettings/insert",
    "/api/v1/fastrsettings/insert_for_user",
    "/api/v1/project/assign_sharedclouddrive",
    "/api/v1/usergroup/assign_users",
];

/// What SignalR asks the hub for.
static HUB: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];

static RECORDS: LazyLock<Vec<StringRecord>> = LazyLock::new(|| {
    csv::Reader::from_reader(TABLE.as_bytes()).into_records().filter_map(Result::ok).collect()
});
static ROUTES: LazyLock<Vec<Route>> =
    LazyLock::new(|| RECORDS.iter().enumerate().filter_map(Route::from_record).collect());
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::new(&ROUTES));

/// A documented route.
#[derive(Debug)]
pub struct Route {
    /// Its position in the catalogue.
    pub index: usize,
    /// Who serves it.
    pub host: Host,
    /// The hub's row says GET, but it is found for every method SignalR uses.
    pub method: Method,
    /// As documented, with its parameters in braces: what logs and metrics may show.
    pub template: &'static str,
    /// What it wants to be shown.
    pub auth: AuthKind,
    /// What it does.
    pub effect: Effect,
    /// What else is known about it; holds the effect too.
    pub tags: Tags,
    /// What it takes.
    pub body: BodyKind,
    /// What it gives when it succeeds.
    pub answer: AnswerKind,
    /// Whether it takes `page` and `pagesize`.
    pub paginated: bool,
    /// The page of the documentation.
    pub page: &'static str,
    /// What a person should know.
    pub notes: &'static str,
    /// Whether a 401, or a 499 `TOKEN` or `SESSION`, is about the bearer.
    pub judges_token: bool,
    /// Whether it may be sent once more, with a new token, after a 401.
    pub replayable: bool,
    /// Whether it may be sent once more after silence.
    pub retryable: bool,
}

/// All documented routes, and a way to find one.
#[derive(Debug)]
pub struct Catalogue {
    routes: &'static [Route],
    index: HashMap<String, Entry>,
}

/// What [`Catalogue::find`] found.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// The route, or the one that the path lies below: its rules hold.
    Found(&'static Route),
    /// The path is documented, but only for these methods.
    OtherMethod(&'static [Method]),
    /// Nothing is documented there.
    Unknown,
}

impl Catalogue {
    /// The catalogue: there is only one.
    pub fn get() -> &'static Self {
        &CATALOGUE
    }

    /// All routes, in the order of the contract.
    pub fn routes(&self) -> &'static [Route] {
        self.routes
    }

    /// Finds the route for `key`, which [`paths::read`] made.
    ///
    /// A path below a documented one counts as that one: were the API to serve it after all (with
    /// an optional parameter, say), it would still be no way around a rule.
    pub fn find(&'static self, method: &Method, key: &str) -> Lookup {
        let (name, deeper) = split(key);
        let Some(entry) = self.index.get(name) else { return Lookup::Unknown };
        if deeper && !entry.below.methods.is_empty() {
            entry.below.find(method)
        } else {
            entry.exact.find(method)
        }
    }

    /// What is known of the path `key`, whatever the method.
    pub fn tags_at(&self, key: &str) -> Tags {
        let (name, deeper) = split(key);
        let Some(entry) = self.index.get(name) else { return Tags::default() };
        let choice =
            if deeper && !entry.below.methods.is_empty() { &entry.below } else { &entry.exact };
        choice.routes.iter().map(|route| route.tags).collect()
    }

    fn new(routes: &'static [Route]) -> Self {
        let mut index: HashMap<String, Entry> = HashMap::new();
        for route in routes {
            let Ok(place) = paths::read(route.template) else { continue };
            let (name, deeper) = split(&place.key);
            let entry = index.entry(name.to_owned()).or_default();
            let choice = if deeper { &mut entry.below } else { &mut entry.exact };
            for method in route.methods() {
                choice.methods.push(method.clone());
                choice.routes.push(route);
            }
        }
        Self { routes, index }
    }
}

/// The routes whose resource and action are the same.
#[derive(Debug, Default)]
struct Entry {
    exact: Choice,
    /// With a parameter after them.
    below: Choice,
}

/// The routes of one path.
#[derive(Debug, Default)]
struct Choice {
    methods: Vec<Method>,
    /// As many as there are methods, in the same order.
    routes: Vec<&'static Route>,
}

impl Choice {
    fn find(&'static self, method: &Method) -> Lookup {
        // As the API's router compares methods: `delete` is no way around what holds for `DELETE`.
        let same = |own: &Method| own.as_str().eq_ignore_ascii_case(method.as_str());
        let mut pairs = self.methods.iter().zip(&self.routes);
        match pairs.find(|(own, _)| same(own)) {
            Some((_, route)) => Lookup::Found(route),
            None if self.methods.is_empty() => Lookup::Unknown,
            None => Lookup::OtherMethod(&self.methods),
        }
    }
}

/// The first two segments, and whether there are more.
fn split(key: &str) -> (&str, bool) {
    // A key with a leading slash is a whole path.
    let skipped = usize::from(key.starts_with('/'));
    let slash = key.bytes().enumerate().skip(skipped).filter(|(_, byte)| *byte == b'/').nth(1);
    match slash.and_then(|(at, _)| key.get(..at)) {
        Some(name) => (name, true),
        None => (key, false),
    }
}

impl Route {
    fn from_record((index, record): (usize, &'static StringRecord)) -> Option<Self> {
        let [host, method, template, auth, paginated, body, answer, notes]: [&str; 8] =
            record.deserialize(None).ok()?;
        let host = match host {
            "auth" => Host::Auth,
            "main" => Host::Api,
            _ => return None,
        };
        let (page, notes) = notes.strip_prefix("doc=")?.split_once("; tags=")?;
        let (tags, notes) = notes.split_once(';').unwrap_or((notes, ""));
        let tags = tags.split_whitespace().map(str::parse).collect::<Result<Tags, _>>().ok()?;
        let auth = AuthKind::from_word(auth)?;
        let effect = Effect::of(tags)?;
        let judges_token = auth == AuthKind::Bearer && !JUDGE_SOMETHING_ELSE.contains(&template);
        let harmless = effect == Effect::Read || REPEATABLE_WRITES.contains(&template);
        Some(Self {
            index,
            host,
            method: method.parse().ok()?,
            template,
            auth,
            effect,
            tags: tags | effect.tag(),
            body: BodyKind::from_word(body)?,
            answer: AnswerKind::from_word(answer)?,
            paginated: paginated == "yes",
            page,
            notes: notes.trim(),
            judges_token,
            replayable: judges_token && !tags.contains(Tags::ONE_SHOT),
            retryable: harmless && !tags.intersects(Tags::NEVER_TWICE),
        })
    }

    /// The methods that it is found for. The hub is one row, but SignalR negotiates, sends and
    /// hangs up with others.
    pub fn methods(&self) -> &[Method] {
        if self.tags.contains(Tags::REALTIME) { &HUB } else { std::slice::from_ref(&self.method) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &Method, key: &str) -> Option<&'static Route> {
        match Catalogue::get().find(method, key) {
            Lookup::Found(route) => Some(route),
            Lookup::OtherMethod(_) | Lookup::Unknown => None,
        }
    }

    fn route(method: &Method, key: &str) -> &'static Route {
        find(method, key).unwrap_or_else(|| panic!("{method} {key} is unknown"))
    }

    fn templates(chosen: impl Fn(&Route) -> bool) -> Vec<&'static str> {
        let chosen = Catalogue::get().routes().iter().filter(|route| chosen(route));
        chosen.map(|route| route.template).collect()
    }

    fn count(tag: Tags) -> usize {
        templates(|route| route.tags.contains(tag)).len()
    }

    #[test]
    fn every_row_of_the_table_is_a_route() {
        assert_eq!(Catalogue::get().routes().len(), TABLE.lines().count() - 1);
        assert_eq!(Catalogue::get().routes().len(), 174);
    }

    #[test]
    fn the_columns_are_the_ones_we_read() {
        let heading = TABLE.lines().next();

        let columns = "host,method,path,auth,paginated,request_body,response,notes";
        assert_eq!(heading, Some(columns));
    }

    #[test]
    fn the_routes_add_up_to_what_the_contract_says() {
        assert_eq!(templates(|route| route.host == Host::Auth).len(), 6);
        assert_eq!(templates(|route| route.auth == AuthKind::None).len(), 10);
        assert_eq!(templates(|route| route.auth == AuthKind::RequestToken).len(), 10);
        assert_eq!(templates(|route| route.answer == AnswerKind::None).len(), 55);
        assert_eq!(templates(|route| route.body == BodyKind::Form).len(), 1);
        assert_eq!(templates(|route| route.paginated).len(), 27);
        assert_eq!(templates(|route| route.effect == Effect::Destructive).len(), 29);
        assert_eq!(count(Tags::COSTS), 13);
        assert_eq!(count(Tags::MAIL), 8);
        assert_eq!(count(Tags::SITE_DROPPED), 13);
    }

    #[test]
    fn every_route_is_found_under_its_own_template() {
        for own in Catalogue::get().routes() {
            let place = paths::read(own.template).expect("a documented path is a plain one");

            assert!(std::ptr::eq(route(&own.method, &place.key), own), "{}", own.template);
        }
    }

    #[test]
    fn a_parameter_makes_another_route() {
        let all = "/api/v1/fastrsettings/get_all";
        let one = "/api/v1/fastrsettings/get_all/{userId}";

        assert_eq!(route(&Method::GET, "fastrsettings/get_all").template, all);
        assert_eq!(route(&Method::GET, "fastrsettings/get_all/7f").template, one);
        assert_eq!(
            route(&Method::GET, "fastrlicense/info/k").tags,
            Tags::READ | Tags::SECRET_URL | Tags::SECRET_RESPONSE
        );
        assert!(matches!(
            Catalogue::get().find(&Method::GET, "fastrlicense/info"),
            Lookup::Unknown
        ));
    }

    #[test]
    fn a_path_below_a_route_is_no_way_around_its_rules() {
        let below = route(&Method::POST, "user/reset_password/anything/else");

        assert_eq!(below.template, "/api/v1/user/reset_password");
        assert!(below.tags.contains(Tags::SELF));
    }

    #[test]
    fn a_method_in_other_letters_is_no_way_around_its_rules() {
        let lower = Method::from_bytes(b"delete").expect("a token is a method");

        assert_eq!(route(&lower, "user/delete_user").effect, Effect::Destructive);
    }

    #[test]
    fn an_undocumented_method_is_answered_with_the_documented_ones() {
        let Lookup::OtherMethod(methods) = Catalogue::get().find(&Method::PATCH, "user/userinfo")
        else {
            panic!("PATCH is not documented");
        };
        assert_eq!(methods, [Method::GET]);
    }

    #[test]
    fn what_is_not_documented_is_unknown() {
        for key in ["", "/", "user", "user/", "users/userinfo", "/api", "/api/v2/user/userinfo"] {
            assert!(matches!(Catalogue::get().find(&Method::GET, key), Lookup::Unknown), "{key}");
        }
    }

    #[test]
    fn the_hub_takes_what_signalr_sends() {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            assert_eq!(route(&method, "/api/rm").answer, AnswerKind::WebSocket);
            assert_eq!(route(&method, "/api/rm/negotiate").effect, Effect::Read);
        }
        assert!(find(&Method::PUT, "/api/rm").is_none());
        assert!(find(&Method::GET, "rm").is_none());
    }

    #[test]
    fn every_bearer_route_judges_the_token_but_for_consent_refused_elsewhere() {
        let silent = templates(|route| route.auth == AuthKind::Bearer && !route.judges_token);

        assert_eq!(silent, JUDGE_SOMETHING_ELSE);
        assert!(templates(|route| route.auth != AuthKind::Bearer && route.judges_token).is_empty());
    }

    #[test]
    fn what_spends_something_is_not_replayed() {
        let judged_but_spent = templates(|route| route.judges_token && !route.replayable);

        assert_eq!(
            judged_but_spent,
            [
                "/api/v1/desktop/dropbox_authorization_callback",
                "/api/v1/desktop/box_authorization_callback",
                "/api/v1/sso/get_user_usergroups",
            ]
        );
        assert!(templates(|route| route.replayable && !route.judges_token).is_empty());
    }

    #[test]
    fn reads_are_retried_whatever_their_method_but_for_those_that_spend_a_code_or_stay_open() {
        let not_retried = templates(|route| route.effect == Effect::Read && !route.retryable);

        assert_eq!(not_retried, ["/api/v1/sso/get_user_usergroups", "/api/rm"]);
        assert!(route(&Method::POST, "desktop/list_objects").retryable);
        assert!(route(&Method::POST, "transfer/calculate_cost").retryable);
    }

    #[test]
    fn of_the_others_only_those_are_retried_that_come_to_the_same() {
        let retried = templates(|route| route.effect != Effect::Read && route.retryable);

        assert_eq!(retried.len(), REPEATABLE_WRITES.len());
        assert!(REPEATABLE_WRITES.iter().all(|template| retried.contains(template)));
        assert!(
            templates(|route| route.retryable && route.tags.intersects(Tags::NEVER_TWICE))
                .is_empty()
        );
    }

    #[test]
    fn a_note_keeps_neither_its_page_nor_its_tags() {
        let userinfo = route(&Method::GET, "user/userinfo");

        assert_eq!(userinfo.page, "user");
        assert_eq!(userinfo.notes, "cheap call to probe the session");
        assert_eq!(userinfo.tags, Tags::READ | Tags::PERSONAL);
    }
}
