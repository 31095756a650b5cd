//! The policy: what the table says is what the rules say, read one by one.

use amove_gateway::{
    amove::{
        catalogue::{Catalogue, Lookup, Route, Tags},
        paths,
        patterns::RoutePattern,
    },
    config::load::load_str,
    policy::Policy,
};
use http::Method;
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};

use crate::{
    corpus::{check, explore, lines},
    paths::pairs,
};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "PATCH", "delete"];

/// Pieces of patterns.
const WORDS: &[&str] = &[
    "*",
    " ",
    "GET",
    "get",
    "DELETE",
    "POST",
    "@",
    "@self",
    "@costs",
    "@session",
    "@read",
    "/",
    "/*",
    "//",
    "/api/v1/",
    "user/",
    "user/*",
    "user/userinfo",
    "/api/rm",
    "{userId}",
    "project/*",
    "\t",
    "%2f",
    "..",
    "?",
    "é",
    "authentication/*",
    "/api/v2/*",
];

/// One rule as an operator writes it.
#[derive(Clone, Debug)]
struct Written(String);

/// Some routes that rules are about more often: guarded ones, neighbours, and the odd ones.
const NEAR: [&str; 8] = [
    "/api/v1/user/reset_password",
    "/api/v1/user/userinfo",
    "/api/v1/user/set_mfa",
    "/api/v1/transfer/transfer",
    "/api/v1/desktop/google_signin",
    "/api/v1/fastrsettings/get_all",
    "/api/v1/fastrsettings/get_all/{userId}",
    "/api/rm",
];

/// A route of the catalogue, rather one of [`NEAR`]: so rules and requests meet.
fn routes() -> impl Strategy<Value = &'static Route> {
    let all: Vec<_> = Catalogue::get().routes().iter().collect();
    let near = all.iter().copied().filter(|route| NEAR.contains(&route.template));
    prop_oneof![3 => select(near.collect::<Vec<_>>()), 2 => select(all)]
}

/// Rules that mean something.
fn rules() -> impl Strategy<Value = Written> {
    let path = (routes(), 0_u8..8).prop_map(|(route, how)| {
        let whole = route.template;
        let short = whole.strip_prefix("/api/v1/").unwrap_or(whole);
        let folder = short.rsplit_once('/').map_or(short, |(folder, _)| folder);
        match how {
            0 => "*".to_owned(),
            1 => whole.to_owned(),
            2 => whole.to_uppercase(),
            3 | 4 => format!("{folder}/*"),
            _ => short.to_owned(),
        }
    });
    let method = select(vec!["*", "*", "GET", "get", "POST", "PUT", "DELETE"]);
    let tag = select(vec!["@self", "@session", "@costs", "@read", "@destructive", "@write"]);
    let rule = prop_oneof![
        6 => (method.clone(), path).prop_map(|(method, path)| format!("{method} {path}")),
        1 => tag.clone().prop_map(str::to_owned),
        1 => (method, tag).prop_map(|(method, tag)| format!("{method} {tag}")),
    ];
    rule.prop_filter("means nothing", |rule| rule.parse::<RoutePattern>().is_ok()).prop_map(Written)
}

/// The rules of one caller, and those for all.
#[derive(Clone, Debug)]
struct Rules {
    allow: Option<Vec<Written>>,
    deny: Vec<Written>,
    guarded: Vec<&'static str>,
    unknown_routes: bool,
}

fn policies() -> impl Strategy<Value = Rules> {
    let list = |most| prop::collection::vec(rules(), 0..most);
    let guarded = prop::sample::subsequence(vec!["self", "session", "costs", "destructive"], 0..3);
    (prop::option::of(list(5)), list(3), guarded, any::<bool>()).prop_map(
        |(allow, deny, guarded, unknown_routes)| Rules { allow, deny, guarded, unknown_routes },
    )
}

impl Rules {
    fn policy(&self) -> Policy {
        let list = |rules: &[Written]| {
            let rules: Vec<_> = rules.iter().map(|rule| format!("{:?}", rule.0)).collect();
            format!("[{}]", rules.join(", "))
        };
        let allow = self.allow.as_deref().map(|allow| format!("allow = {}\n", list(allow)));
        let text = format!(
            "[identities.main]\napi_token = \"x\"\n[callers.billing]\n{}deny = {}\n\
             [policy]\ndeny_tags = {:?}\nunknown_routes = \"{}\"\n",
            allow.unwrap_or_default(),
            list(&self.deny),
            self.guarded,
            if self.unknown_routes { "allow" } else { "deny" },
        );
        Policy::new(&load_str(&text, &[]).expect("a configuration").config)
    }

    /// The kind of the rule that forbids it, as interface and README put it: rule by rule, in order.
    fn denial(&self, asked: &Asked<'_>) -> Option<&'static str> {
        let allow = self.allow.as_deref();
        if self.deny.iter().any(|rule| asked.is_meant_by(&rule.0)) {
            return Some("callers.billing.deny");
        }
        let names_it = |rule: &&Written| !rule.0.contains('@') && !rule.0.ends_with('*');
        let mut named = allow.into_iter().flatten().filter(names_it);
        let is_guarded = self.guarded.iter().any(|tag| has_tag(asked.tags, tag));
        if is_guarded && !named.any(|rule| asked.is_meant_by(&rule.0)) {
            return Some("policy.deny_tags");
        }
        if allow.is_some_and(|allow| !allow.iter().any(|rule| asked.is_meant_by(&rule.0))) {
            return Some("callers.billing.allow");
        }
        (asked.route.is_none() && !self.unknown_routes).then_some("policy.unknown_routes")
    }
}

fn has_tag(tags: Tags, tag: &str) -> bool {
    tags.contains(tag.parse().expect("a tag"))
}

/// A request as a rule sees it.
struct Asked<'a> {
    method: &'a str,
    /// What rules are compared with.
    key: String,
    route: Option<&'static Route>,
    tags: Tags,
}

impl<'a> Asked<'a> {
    /// Finds the route by going through all of them.
    fn new(method: &'a str, key: &str) -> Self {
        let routes = Catalogue::get().routes().iter();
        let key_of = |route: &Route| {
            let template = route.template.to_lowercase();
            let short = template.replacen("/api/v1/", "", 1);
            short.replacen("/api/authentication/", "authentication/", 1)
        };
        let parts = |key: &str| key.trim_start_matches('/').split('/').map(str::to_owned).collect();
        let (own, is_whole): (Vec<String>, _) = (parts(key), key.starts_with('/'));
        let near: Vec<_> = routes
            .filter(|route| {
                let template = key_of(route);
                let parts: Vec<String> = parts(&template);
                template.starts_with('/') == is_whole && parts[..2] == own[..own.len().min(2)]
            })
            .collect();
        // With a parameter, where there is something behind the name and a route has one.
        let wants = |route: &Route| route.template.contains('{');
        let deeper = own.len() > 2 && near.iter().any(|route| wants(route));
        let here = near.into_iter().filter(|route| wants(route) == deeper);
        let here: Vec<_> = here.collect();
        let answers = |route: &Route| {
            let is_hub = has_tag(route.tags, "realtime");
            let methods: &[&str] =
                if is_hub { &["GET", "POST", "DELETE"] } else { &[route.method.as_str()] };
            methods.iter().any(|own| own.eq_ignore_ascii_case(method))
        };
        let route = here.iter().find(|route| answers(route)).copied();
        let tags = match route {
            Some(route) => route.tags,
            None => here.iter().map(|route| route.tags).collect(),
        };
        Self { method, key: route.map_or_else(|| key.to_owned(), key_of), route, tags }
    }

    fn is_meant_by(&self, rule: &str) -> bool {
        let (method, what) = rule.trim().split_once(' ').unwrap_or(("*", rule));
        if method != "*" && !method.eq_ignore_ascii_case(self.method) {
            return false;
        }
        if let Some(tag) = what.strip_prefix('@') {
            return has_tag(self.tags, tag);
        }
        let what = what.to_lowercase();
        let what = what.strip_prefix("/api/v1/").unwrap_or(&what);
        match what.strip_suffix('*') {
            Some(folder) => self.key.starts_with(folder),
            None => self.key == what,
        }
    }
}

/// The kind of the rule that forbids it.
fn denial(policy: &Policy, method: &str, key: &str) -> Option<String> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let verdict = match Catalogue::get().find(&method, key) {
        Lookup::Found(route) => policy.check(0, &method, route),
        Lookup::OtherMethod(_) | Lookup::Unknown => policy.check_unknown(0, &method, key),
    };
    let rule = &verdict.err()?.rule;
    Some(rule.split(':').next().unwrap_or_default().to_owned())
}

/// Keys of documented paths, of others beside and below them, and of anything.
fn keys() -> impl Strategy<Value = String> {
    let ending = select(vec!["", "", "", "/", "/below", "/a/b", "x"]);
    let near = (routes(), ending)
        .prop_map(|(route, ending)| format!("{}{ending}", route.template.replace(['{', '}'], "")));
    let paths = prop_oneof![4 => near, 1 => pairs().prop_map(|(path, _)| path)];
    paths.prop_filter_map("not the policy's business", |path| {
        let place = paths::read(&path).ok()?;
        let is_ours = place.form == paths::Form::AuthManaged;
        (!is_ours).then(|| place.key.into_owned())
    })
}

#[test]
fn the_table_says_what_the_rules_say() {
    let asked = prop::collection::vec((select(&METHODS[..]), keys()), 1..24);
    check(96, &(policies(), asked), |(rules, asked)| {
        let policy = rules.policy();
        for (method, key) in asked {
            let expected = rules.denial(&Asked::new(method, &key)).map(str::to_owned);
            prop_assert_eq!(denial(&policy, method, &key), expected, "{} {}", method, key);
        }
        Ok(())
    });
}

#[test]
fn a_rule_more_that_denies_allows_nothing() {
    let asked = prop::collection::vec((select(&METHODS[..]), keys()), 1..24);
    check(48, &(policies(), rules(), asked), |(rules, more, asked)| {
        let policy = rules.policy();
        let mut stricter = rules.clone();
        stricter.deny.push(more.clone());
        let stricter = stricter.policy();
        for (method, key) in asked {
            let was_denied = denial(&policy, method, &key).is_some();
            let is_denied = denial(&stricter, method, &key).is_some();
            prop_assert!(!was_denied || is_denied, "{method} {key} by {more:?}");
        }
        Ok(())
    });
}

#[test]
fn what_is_denied_is_denied_however_it_is_spelt() {
    check(128, &(policies(), pairs(), select(&METHODS[..])), |(rules, (path, other), method)| {
        let policy = rules.policy();
        let verdict = |method: &str, path: &str| {
            let place = paths::read(path).expect("a path that is not refused");
            denial(&policy, method, &place.key)
        };

        let expected = verdict(method, &path);

        prop_assert_eq!(verdict(method, &other), expected.clone(), "{}", other);
        let lower = method.to_lowercase();
        prop_assert_eq!(verdict(&lower, &other), expected, "{} {}", lower, other);
        Ok(())
    });
}

fn pattern_holds(text: &[u8]) -> TestCaseResult {
    let Ok(text) = std::str::from_utf8(text) else { return Ok(()) };
    let pattern = match text.parse::<RoutePattern>() {
        Ok(pattern) => pattern,
        Err(error) => {
            prop_assert!(!error.to_string().is_empty());
            return Ok(());
        }
    };
    let written = pattern.to_string();

    // It is read as it is written, whatever the case and the blanks.
    prop_assert_eq!(written.parse(), Ok(pattern.clone()), "{}", written);
    let routes = Catalogue::get().routes();
    prop_assert!(routes.iter().any(|route| pattern.matches(route)), "{written} means nothing");
    if !written.contains('@') {
        let upper: RoutePattern = written.to_uppercase().parse().expect("the same");
        prop_assert!(routes.iter().all(|route| upper.matches(route) == pattern.matches(route)));
    }
    Ok(())
}

#[test]
fn a_pattern_is_read_or_refused() {
    explore(1_000, lines("patterns"), WORDS, pattern_holds);
}
