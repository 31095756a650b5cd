//! What may be called: `[policy]`, and `allow` and `deny` of each caller.

use std::sync::Arc;

use figment::value::Value;

use super::{Policy, RequestTokenRoutes, Rule, UnknownRoutes, load::value_at, parse, read::Reader};
use crate::amove::{patterns::RoutePattern, tags::Tags};

impl Reader<'_> {
    pub(super) fn policy(&mut self) -> Policy {
        let unknown = [("allow", UnknownRoutes::Allow), ("deny", UnknownRoutes::Deny)];
        let tokens = [("mint", RequestTokenRoutes::Mint), ("deny", RequestTokenRoutes::Deny)];
        Policy {
            unknown_routes: self
                .word("policy.unknown_routes", &unknown)
                .unwrap_or(UnknownRoutes::Deny),
            deny_tags: self.read("policy.deny_tags", tags).unwrap_or_default(),
            request_token_routes: self
                .word("policy.request_token_routes", &tokens)
                .unwrap_or(RequestTokenRoutes::Deny),
            allow_unauthenticated_network: self
                .read("policy.allow_unauthenticated_network", parse::boolean)
                .unwrap_or(false),
        }
    }

    /// The rules of a list; `None` if there is no such list.
    pub(super) fn rules(&mut self, path: &str) -> Option<Vec<Rule>> {
        let value = value_at(self.values, path)?;
        let Some(texts) = texts(value) else {
            self.wrong(path, format!("expected {HINT}"));
            return None;
        };
        let mut rules = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let element = format!("{path}.{at}");
            match text.parse::<RoutePattern>() {
                Ok(pattern) => {
                    let place = self.origins.line(&element, path, value).map(Arc::from);
                    rules.push(Rule { pattern, place });
                }
                Err(error) => self.wrong_element(path, &element, &format!("`{text}`: {error}")),
            }
        }
        Some(rules)
    }
}

const HINT: &str = "a list of patterns such as [\"GET project/*\", \"* transfer/*\", \"@costs\"]";

fn texts(value: &Value) -> Option<Vec<String>> {
    match (value.as_array(), value.as_str()) {
        (Some(values), _) => values.iter().map(|it| it.as_str().map(str::to_owned)).collect(),
        // As the environment writes lists.
        (None, Some(text)) => Some(text.split(',').map(|it| it.trim().to_owned()).collect()),
        _ => None,
    }
}

fn tags(value: &Value) -> Result<Vec<Tags>, String> {
    let words = texts(value).ok_or("expected a list of tags such as [\"self\", \"session\"]")?;
    let words = words.iter().filter(|word| !word.is_empty());
    words.map(|word| word.parse::<Tags>().map_err(|error| error.to_string())).collect()
}
