//! What may be called, and by which rule not.
//!
//! Of a caller's rules, the first of these decides: its `deny`; `policy.deny_tags`, unless its
//! `allow` names the route itself; its `allow`; for what is not in the catalogue,
//! `policy.unknown_routes`. All of it is worked out beforehand for each documented route, so a
//! request costs one look into a table, however many rules there are.

use std::{fmt, sync::Arc};

use http::Method;

use crate::{
    amove::{
        catalogue::{Catalogue, Route},
        tags::Tags,
    },
    config::{self, Rule, UnknownRoutes},
};

/// The rule that forbids a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// As a person would look for it in the configuration, for example
    /// `callers.billing.deny: DELETE *`.
    pub rule: Arc<str>,
    /// The file and the line, if it was written in one.
    pub place: Option<Arc<str>>,
}

/// What each caller may call.
#[derive(Debug)]
pub struct Policy {
    /// By the position of the caller.
    callers: Vec<Rules>,
    unknown_routes: UnknownRoutes,
}

/// What one caller may call.
#[derive(Debug)]
struct Rules {
    name: Arc<str>,
    /// `None`: everything.
    allow: Option<Vec<Rule>>,
    deny: Vec<Rule>,
    guarded: Vec<Tags>,
    /// By the position of the route in the catalogue, and of the method among those of the route.
    decided: Vec<Box<[Option<Arc<Denial>>]>>,
}

impl Policy {
    /// The policy that `config` describes.
    pub fn new(config: &config::Config) -> Self {
        let guarded = &config.policy.deny_tags;
        let rules = |name: &Arc<str>, allow: &Option<Vec<Rule>>, deny: &[Rule]| {
            Rules::new(Arc::clone(name), allow.clone(), deny.to_vec(), guarded.clone())
        };
        let configured = config.callers.iter();
        let mut callers: Vec<_> =
            configured.map(|caller| rules(&caller.name, &caller.allow, &caller.deny)).collect();
        if callers.is_empty() {
            callers.push(rules(&"local".into(), &None, &[]));
        }
        Self { callers, unknown_routes: config.policy.unknown_routes }
    }

    /// Whether the caller at this place may call `route` by `method`, which is one of the route's.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn check(&self, caller: usize, method: &Method, route: &Route) -> Result<(), Arc<Denial>> {
        let Some(rules) = self.callers.get(caller) else { return Err(nobody()) };
        let same = |own: &Method| own.as_str().eq_ignore_ascii_case(method.as_str());
        let at = route.methods().iter().position(same);
        match at.and_then(|at| rules.decided.get(route.index)?.get(at)) {
            Some(None) => Ok(()),
            Some(Some(denial)) => Err(Arc::clone(denial)),
            None => Err(nobody()),
        }
    }

    /// Whether the caller at this place may call what is not in the catalogue. `key` is the path as
    /// [`crate::amove::paths::read`] understands it.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn check_unknown(
        &self,
        caller: usize,
        method: &Method,
        key: &str,
    ) -> Result<(), Arc<Denial>> {
        let Some(rules) = self.callers.get(caller) else { return Err(nobody()) };
        // Another method on a documented path is no way around what holds for the path.
        let tags = Catalogue::get().tags_at(key);
        let means = |rule: &Rule| rule.pattern.matches_unknown(method, key, tags);
        rules.decide(means, tags).map_or(Ok(()), |denial| Err(Arc::new(denial)))?;
        match self.unknown_routes {
            UnknownRoutes::Allow => Ok(()),
            UnknownRoutes::Deny => {
                Err(Arc::new(Denial { rule: "policy.unknown_routes".into(), place: None }))
            }
        }
    }
}

impl Rules {
    fn new(name: Arc<str>, allow: Option<Vec<Rule>>, deny: Vec<Rule>, guarded: Vec<Tags>) -> Self {
        let mut rules = Self { name, allow, deny, guarded, decided: Vec::new() };
        let routes = Catalogue::get().routes().iter();
        let decide = |route: &Route, method: &Method| {
            rules.decide(|rule| rule.pattern.matches_by(route, method), route.tags).map(Arc::new)
        };
        let decide =
            |route: &Route| route.methods().iter().map(|method| decide(route, method)).collect();
        rules.decided = routes.map(decide).collect();
        rules
    }

    /// The rule that forbids what `means` and `tags` describe, if one does.
    fn decide(&self, means: impl Fn(&Rule) -> bool, tags: Tags) -> Option<Denial> {
        if let Some(rule) = self.deny.iter().find(|rule| means(rule)) {
            return Some(Denial {
                rule: format!("callers.{}.deny: {}", self.name, rule.pattern).into(),
                place: rule.place.clone(),
            });
        }
        let mut allow = self.allow.iter().flatten();
        let is_named = allow.any(|rule| rule.pattern.names_a_route() && means(rule));
        if let Some(tag) = self.guarded.iter().find(|tag| tags.intersects(**tag) && !is_named) {
            return Some(Denial { rule: format!("policy.deny_tags: {tag}").into(), place: None });
        }
        let allow = self.allow.as_ref()?;
        if allow.iter().any(means) {
            return None;
        }
        let rule = format!("callers.{}.allow", self.name).into();
        Some(Denial { rule, place: allow.first().and_then(|rule| rule.place.clone()) })
    }
}

/// Who is in no table may do nothing.
fn nobody() -> Arc<Denial> {
    Arc::new(Denial { rule: "callers".into(), place: None })
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.rule),
            None => f.write_str(&self.rule),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{amove::catalogue::Lookup, config::load};

    fn policy(settings: &str) -> Policy {
        let text = format!("[identities.main]\napi_token = \"x\"\n{settings}");
        Policy::new(&load::load_str(&text, &[]).expect("a configuration").config)
    }

    /// The rule that forbids it, if one does.
    fn rule(policy: &Policy, method: &Method, key: &str) -> Option<String> {
        let verdict = match Catalogue::get().find(method, key) {
            Lookup::Found(route) => policy.check(0, method, route),
            _ => policy.check_unknown(0, method, key),
        };
        verdict.err().map(|denial| denial.to_string())
    }

    #[track_caller]
    fn check(settings: &str, method: &Method, key: &str, expected: Option<&str>) {
        assert_eq!(rule(&policy(settings), method, key).as_deref(), expected, "{settings}");
    }

    const BILLING: &str = "[callers.billing]\n";

    #[test]
    fn what_turns_the_identity_against_itself_is_guarded_unless_it_is_named() {
        let (post, key) = (&Method::POST, "user/reset_password");
        let guard = Some("policy.deny_tags: self");

        check("", post, key, guard);
        check(&format!("{BILLING}allow = [\"* *\"]"), post, key, guard);
        check(&format!("{BILLING}allow = [\"POST user/*\"]"), post, key, guard);
        check(&format!("{BILLING}allow = [\"@self\"]"), post, key, guard);
        check(
            &format!("{BILLING}allow = [\"GET user/userinfo\", \"* user/reset_password\"]"),
            post,
            key,
            None,
        );
        check("[policy]\ndeny_tags = []", post, key, None);
        check("", &Method::POST, "desktop/google_signin", Some("policy.deny_tags: session"));
    }

    #[test]
    fn another_method_or_a_deeper_path_is_no_way_around() {
        check("", &Method::PUT, "user/reset_password", Some("policy.deny_tags: self"));
        check("", &Method::POST, "user/reset_password/x", Some("policy.deny_tags: self"));
        let deny = format!("{BILLING}deny = [\"* transfer/*\"]");
        let rule = Some("callers.billing.deny: * transfer/* (configuration:4)");
        check(&deny, &Method::POST, "transfer/transfer", rule);
        check(&deny, &Method::GET, "transfer/new_in_2027", rule);
    }

    #[test]
    fn deny_comes_before_allow_and_what_is_not_allowed_is_denied() {
        let rules = format!(
            "{BILLING}allow = [\"* project/*\", \"GET user/userinfo\"]\ndeny = [\n  \"DELETE *\",\n  \"@costs\",\n]"
        );
        check(&rules, &Method::GET, "project/get_all", None);
        check(&rules, &Method::GET, "user/userinfo", None);
        check(&rules, &Method::GET, "sync/get", Some("callers.billing.allow (configuration:4)"));
        let deny = Some("callers.billing.deny: DELETE * (configuration:6)");
        check(&rules, &Method::DELETE, "project/delete", deny);
        let costs = Some("callers.billing.deny: @costs (configuration:7)");
        check(&rules, &Method::POST, "transfer/transfer", costs);
    }

    #[test]
    fn a_rule_about_one_method_of_the_hub_is_about_no_other() {
        let (hub, send) = ("/api/rm", "/api/rm/negotiate");
        let deny = format!("{BILLING}deny = [\"DELETE *\"]");
        let rule = Some("callers.billing.deny: DELETE * (configuration:4)");
        check(&deny, &Method::DELETE, hub, rule);
        check(&deny, &Method::GET, hub, None);
        check(&deny, &Method::POST, send, None);
        let allow = format!("{BILLING}allow = [\"GET *\"]");
        check(&allow, &Method::GET, hub, None);
        check(&allow, &Method::POST, send, Some("callers.billing.allow (configuration:4)"));
    }

    #[test]
    fn what_is_not_documented_is_let_in_only_where_that_is_wanted() {
        check("", &Method::GET, "news/get_all", None);
        check(
            "[policy]\nunknown_routes = \"deny\"",
            &Method::GET,
            "news/get_all",
            Some("policy.unknown_routes"),
        );
        let rules = format!("{BILLING}allow = [\"* project/*\"]");
        check(&rules, &Method::GET, "project/new_in_2027", None);
        check(
            &rules,
            &Method::GET,
            "news/get_all",
            Some("callers.billing.allow (configuration:4)"),
        );
    }
}
