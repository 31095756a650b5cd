//! `routes`: the catalogue, and what the gateway would do with one request.

use std::fmt::Write;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::{Exit, Failure, Global, print};
use crate::{
    amove::{
        catalogue::{AuthKind, Catalogue, Lookup, Route},
        paths::{self, Form},
    },
    config::{Config, LegacyMode, RequestTokenRoutes, load},
    policy::Policy,
    upstream::Host,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// All documented routes
    List {
        /// Only routes with this effect or tag, for example `destructive` or `self`
        #[arg(long, value_name = "WORD")]
        tag: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What the gateway would do with one request, and why; asks nobody
    Explain {
        /// The method, for example GET
        method: Method,
        /// The path, for example /api/user/userinfo
        path: String,
        /// Who asks; without it, the first caller that is configured
        #[arg(long, value_name = "NAME")]
        caller: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Prints what `verb` asks for.
pub(super) fn run(verb: &Verb, global: &Global) -> Result<(), Failure> {
    match verb {
        Verb::List { tag, json } => list(tag.as_deref(), *json),
        Verb::Explain { method, path, caller, json } => {
            explain(method, path, caller.as_deref(), *json, global)
        }
    }
}

fn list(tag: Option<&str>, json: bool) -> Result<(), Failure> {
    let wanted = |route: &&Route| tag.is_none_or(|tag| words(route).any(|word| word == tag));
    let routes: Vec<_> = Catalogue::get().routes().iter().filter(wanted).collect();
    if routes.is_empty() {
        let known =
            "the words are read, write, destructive, session, and the tags of the last column";
        let tag = tag.unwrap_or_default();
        return Err(Failure::new(Exit::Usage, format!("no route is tagged `{tag}`; {known}")));
    }
    if json {
        let routes: Vec<_> = routes.into_iter().map(describe).collect();
        return print(format!("{:#}\n", Value::from(routes)));
    }
    let width = routes.iter().map(|route| route.template.len()).max().unwrap_or_default();
    let mut text =
        format!("{:7} {:width$}  {:13}  {:11}  TAGS\n", "METHOD", "ROUTE", "AUTH", "EFFECT");
    for route in &routes {
        let tags: Vec<_> = tags(route).collect();
        let (method, template) = (route.method.as_str(), route.template);
        let (auth, effect) = (route.auth.to_string(), route.effect.to_string());
        let _ = writeln!(
            text,
            "{method:7} {template:width$}  {auth:13}  {effect:11}  {}",
            tags.join(" ")
        );
    }
    let _ = writeln!(text, "{} routes", routes.len());
    // The last column is often empty.
    let text: String = text.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    print(text)
}

/// Its effect, and its tags.
fn words(route: &Route) -> impl Iterator<Item = String> {
    std::iter::once(route.effect.to_string()).chain(tags(route).map(str::to_owned))
}

/// Its tags without the effect, which has a column of its own.
fn tags(route: &Route) -> impl Iterator<Item = &'static str> {
    let effect = route.effect.word();
    route.tags.iter().filter(move |tag| *tag != effect)
}

fn describe(route: &Route) -> Value {
    json!({
        "method": route.method.as_str(),
        "route": route.template,
        "host": match route.host { Host::Api => "api", Host::Auth => "auth" },
        "auth": route.auth.to_string(),
        "effect": route.effect.to_string(),
        "tags": tags(route).collect::<Vec<_>>(),
        "replayed_after_401": route.replayable,
        "retried_after_silence": route.retryable,
        "notes": route.notes,
    })
}

/// What becomes of a request: the answer, and the steps that lead to it.
struct Explanation {
    answer: String,
    route: Option<&'static Route>,
    forwarded_as: Option<String>,
    steps: Vec<String>,
}

fn explain(
    method: &Method,
    path: &str,
    caller: Option<&str>,
    json: bool,
    global: &Global,
) -> Result<(), Failure> {
    let config = configuration(global)?;
    let caller = position(&config, caller)?;
    let (path, query) =
        path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut explanation = judge(method, path, caller, &config);
    if let (Some(target), Some(query)) = (&mut explanation.forwarded_as, query) {
        target.push('?');
        target.push_str(query);
    }
    if json {
        let value = json!({
            "answer": explanation.answer,
            "forwarded_as": explanation.forwarded_as,
            "route": explanation.route.map(describe),
            "steps": explanation.steps,
        });
        return print(format!("{value:#}\n"));
    }
    let mut text = format!("{method} {path}\n");
    for step in &explanation.steps {
        let _ = writeln!(text, "  {step}");
    }
    match &explanation.forwarded_as {
        Some(target) => {
            let _ = writeln!(text, "→ {}: {method} {target}", explanation.answer);
        }
        None => {
            let _ = writeln!(text, "→ {}", explanation.answer);
        }
    }
    print(text)
}

/// The configuration that was named, or else the defaults: to explain a route needs no identity.
fn configuration(global: &Global) -> Result<Config, Failure> {
    if !global.files.is_empty() {
        return Ok(global.load()?.config);
    }
    const NOBODY: &str = "[identities.main]\napi_token = \"none\"\n";
    let environment = Vec::new();
    load::load_str(NOBODY, &environment)
        .map(|loaded| loaded.config)
        .map_err(|report| Failure { exit: Exit::Internal, message: report.to_string() })
}

/// The place of a caller among those that are configured.
fn position(config: &Config, caller: Option<&str>) -> Result<usize, Failure> {
    let Some(name) = caller else { return Ok(0) };
    let mut names: Vec<_> = config.callers.iter().map(|caller| &*caller.name).collect();
    if names.is_empty() {
        names.push("local");
    }
    names.iter().position(|known| *known == name).ok_or_else(|| {
        let known = names.join(", ");
        Failure::new(Exit::Usage, format!("there is no caller `{name}`; there are: {known}"))
    })
}

fn judge(method: &Method, path: &str, caller: usize, config: &Config) -> Explanation {
    let mut steps = Vec::new();
    let policy = Policy::new(config);
    let name = config.callers.get(caller).map_or("local", |caller| &*caller.name);
    let refused = |answer: &str, steps, route| {
        let answer = answer.to_owned();
        Explanation { answer, route, forwarded_as: None, steps }
    };
    let place = match paths::read(path) {
        Ok(place) => place,
        Err(ambiguity) => {
            steps.push(format!("the path is ambiguous: {ambiguity}"));
            return refused("400 malformed", steps, None);
        }
    };
    if place.form == Form::AuthManaged {
        steps.push("logins are the gateway's business (contract section 4)".into());
        return refused("403 auth-managed", steps, None);
    }
    let route = match Catalogue::get().find(method, &place.key) {
        Lookup::Found(route) => Some(route),
        Lookup::OtherMethod(methods) => {
            let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
            steps.push(format!("the path is documented for {} only", methods.join(", ")));
            None
        }
        Lookup::Unknown => None,
    };
    let mut target = path.to_owned();
    if place.form == Form::Legacy {
        steps.push("the path has no version: a deprecated alias (contract section 5)".into());
        if config.legacy.mode == LegacyMode::Reject {
            return refused("410 legacy-rejected, by legacy.mode", steps, route);
        }
        target = paths::successor(path);
        steps.push(format!("moved to {target}; the answer carries Deprecation and Link"));
    }
    let Some(route) = route else {
        steps.push("not in the catalogue".into());
        if let Err(denial) = policy.check_unknown(caller, method, &place.key) {
            steps.push(format!("{name} may not call it: {denial}"));
            return refused(&format!("403 policy-denied, by {}", denial.rule), steps, None);
        }
        steps.push(format!("{name} may call it; it is sent with the session's token"));
        return Explanation {
            answer: "forwarded".to_owned(),
            route: None,
            forwarded_as: Some(target),
            steps,
        };
    };
    let tags: Vec<_> = words(route).collect();
    steps.push(format!("route {} {} ({})", route.method, route.template, tags.join(", ")));
    if let Err(denial) = policy.check(caller, method, route) {
        steps.push(format!("{name} may not call it: {denial}"));
        return refused(&format!("403 policy-denied, by {}", denial.rule), steps, Some(route));
    }
    steps.push(format!("{name} may call it"));
    steps.push(match route.auth {
        AuthKind::Bearer => "signed in with the session's token".into(),
        AuthKind::None => "sent without a token: the route is anonymous".into(),
        AuthKind::RequestToken
            if config.policy.request_token_routes == RequestTokenRoutes::Deny =>
        {
            steps.push("the route wants a request token in its body".into());
            return refused(
                "403 policy-denied, by policy.request_token_routes",
                steps,
                Some(route),
            );
        }
        AuthKind::RequestToken => "a fresh request token is put into its body".into(),
    });
    if route.auth == AuthKind::Bearer {
        steps.push(match (route.judges_token, route.replayable) {
            (false, _) => {
                "a 401 of this route says nothing about our token: it is passed on".into()
            }
            (true, true) => "after a 401: one new login, one replay".into(),
            (true, false) => {
                "after a 401: one new login, but no replay (it works only once)".into()
            }
        });
    }
    Explanation {
        answer: "forwarded".to_owned(),
        route: Some(route),
        forwarded_as: Some(target),
        steps,
    }
}
