//! What is wrong, where, and what was meant: all of it at once.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// Keys whose values must never be drawn.
const SECRETS: [&str; 7] =
    ["password", "totp_secret", "api_token", "admin_token", "encryption_key", "key", "url"];

/// Whether values of that key must never be drawn.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// A text that settings come from.
#[derive(Clone)]
pub(super) struct Source {
    /// A file's path, or where else it comes from.
    pub(super) name: String,
    /// The text, secrets blotted out byte by byte so that places in it stay what they are.
    text: String,
    /// Where its lines end: each rule of each caller is looked up.
    ends: Vec<usize>,
}

impl Source {
    pub(super) fn new(name: impl Into<String>, text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at).collect();
        Self { name: name.into(), text: blotted(text), ends }
    }

    /// Its name and the line of this place, as editors take it.
    pub(super) fn line(&self, at: usize) -> String {
        let line = self.ends.partition_point(|end| *end < at) + 1;
        format!("{}:{line}", self.name)
    }

    /// Blots out what stands at `span`.
    pub(super) fn blot(&mut self, span: Range<usize>) {
        let (Some(before), Some(hidden), Some(after)) =
            (self.text.get(..span.start), self.text.get(span.clone()), self.text.get(span.end..))
        else {
            return;
        };
        let mut text = before.to_owned();
        blot(hidden, &mut text);
        self.text = text + after;
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// What is wrong, in a few words.
    pub(super) message: String,
    /// Which source, and where in it.
    pub(super) place: Option<(usize, Range<usize>)>,
    /// What is said right there.
    pub(super) label: String,
    /// What to do, if it takes a sentence.
    pub(super) help: Option<String>,
}

/// Everything that is wrong with a configuration.
#[derive(Clone)]
pub struct Report {
    pub(super) sources: Vec<Source>,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// For people, with or without colour.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut findings: Vec<_> = self.findings.iter().collect();
        findings.sort_by_key(|finding| finding.place.as_ref().map(|(at, span)| (*at, span.start)));
        let mut text = String::new();
        for finding in findings {
            text.push_str(&renderer.render(&[self.group(finding)]));
            text.push_str("\n\n");
        }
        let count = self.findings.len();
        let things = if count == 1 { "1 error" } else { &format!("{count} errors") };
        text + &format!("error: the configuration cannot be used: {things}\n")
    }

    /// How many things are wrong.
    pub fn len(&self) -> usize {
        self.findings.len()
    }

    /// Whether nothing is wrong, which a report never says.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    fn group<'a>(&'a self, finding: &'a Finding) -> annotate_snippets::Group<'a> {
        let title = Level::ERROR.primary_title(finding.message.as_str());
        let source =
            finding.place.as_ref().and_then(|(at, span)| Some((self.sources.get(*at)?, span)));
        let group = match source {
            Some((source, span)) => {
                let end = span.end.min(source.text.len());
                let span = span.start.min(end)..end;
                let there = AnnotationKind::Primary.span(span).label(finding.label.as_str());
                title.element(
                    Snippet::source(source.text.as_str())
                        .path(source.name.as_str())
                        .annotation(there),
                )
            }
            None => annotate_snippets::Group::with_title(title),
        };
        match &finding.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Report {
    /// The same as for people: a report has no other meaning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}

/// Blots out what follows the name of a secret: to the end of its line, and of the lines after it
/// that belong to the same text in triple quotes.
fn blotted(text: &str) -> String {
    let mut blotted = String::with_capacity(text.len());
    let mut within: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        if let Some(quotes) = within {
            if line.contains(quotes) {
                within = None;
            }
            blot(line, &mut blotted);
            continue;
        }
        let Some(start) = secret_in(line) else {
            blotted.push_str(line);
            continue;
        };
        let (shown, hidden) = line.split_at(start);
        blotted.push_str(shown);
        within = ["\"\"\"", "'''"].into_iter().find(|quotes| hidden.matches(quotes).count() == 1);
        blot(hidden, &mut blotted);
    }
    blotted
}

/// Where the value of a secret begins in `line`.
fn secret_in(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let starts = SECRETS.iter().filter_map(|name| {
        lower.match_indices(name).find_map(|(at, _)| {
            let after = at + name.len();
            let rest = lower.get(after..)?;
            let gap = rest.len() - rest.trim_start_matches([' ', '\t', '"', '\'']).len();
            rest.get(gap..)?.starts_with('=').then_some(after + gap + 1)
        })
    });
    starts.min()
}

fn blot(hidden: &str, into: &mut String) {
    into.extend(hidden.bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blotted_out_and_places_stay_what_they_are() {
        let text = "a = 1\npassword = \"canäry\" # x\n'api_token'=  'canary'\nb = 2\n\
                    x = { username = 1, password = \"canary\" }\ntotp_secret = \"\"\"\ncanary\n\"\"\"\n\
                    AMOVE_PASSWORD = canary\npassword_file = \"/run/x\"\nc = 3\n";

        let blotted = blotted(text);

        assert!(!blotted.contains("can"), "{blotted}");
        assert_eq!(blotted.len(), text.len());
        assert_eq!(blotted.find("c = 3"), text.find("c = 3"));
        assert!(blotted.contains("password_file = \"/run/x\""));
    }
}
