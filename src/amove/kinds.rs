//! What a route wants, does, takes and gives, in the words of the table.

use std::fmt;

use super::tags::Tags;

/// What a route wants to be shown.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AuthKind {
    /// Nothing: anybody may call it.
    None,
    /// A request token of the auth host, in the body.
    RequestToken,
    /// The token of a session, in `Authorization`.
    Bearer,
}

/// What a route does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Effect {
    /// Only looks.
    Read,
    /// Changes something.
    Write,
    /// Removes or stops something.
    Destructive,
    /// Makes a new bearer.
    Session,
}

/// What a route takes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BodyKind {
    /// No body.
    None,
    /// JSON: an object or an array.
    Json,
    /// A form in the manner of HTML.
    Form,
}

/// What a route gives when it succeeds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AnswerKind {
    /// No body.
    None,
    /// A JSON object, or `null`.
    Object,
    /// A JSON array.
    Array,
    /// One page of many, in an envelope.
    Paginated,
    /// A bare JSON boolean or number.
    Scalar,
    /// A string, with or without the quotes of JSON.
    String,
    /// A redirect.
    Redirect,
    /// A connection that stays open.
    WebSocket,
}

impl AuthKind {
    const ALL: [Self; 3] = [Self::None, Self::RequestToken, Self::Bearer];

    /// As in the table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::RequestToken => "request_token",
            Self::Bearer => "bearer",
        }
    }

    /// Reads a word of the table.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl Effect {
    const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Destructive, Self::Session];

    /// As in the table and in the audit log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::Session => "session",
        }
    }

    /// The tag that says the same.
    pub const fn tag(self) -> Tags {
        match self {
            Self::Read => Tags::READ,
            Self::Write => Tags::WRITE,
            Self::Destructive => Tags::DESTRUCTIVE,
            Self::Session => Tags::SESSION,
        }
    }

    /// The effect that is among `tags`.
    pub fn of(tags: Tags) -> Option<Self> {
        // The hub has no effect tag; it is documented to report, and to do nothing else.
        let silent = tags.contains(Tags::REALTIME).then_some(Self::Read);
        Self::ALL.into_iter().find(|effect| tags.contains(effect.tag())).or(silent)
    }
}

impl BodyKind {
    const ALL: [Self; 3] = [Self::None, Self::Json, Self::Form];

    /// As in the table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Json => "json",
            Self::Form => "form",
        }
    }

    /// Reads a word of the table.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl AnswerKind {
    const ALL: [Self; 8] = [
        Self::None,
        Self::Object,
        Self::Array,
        Self::Paginated,
        Self::Scalar,
        Self::String,
        Self::Redirect,
        Self::WebSocket,
    ];

    /// As in the table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Object => "json object",
            Self::Array => "json array",
            Self::Paginated => "paginated",
            Self::Scalar => "json scalar",
            Self::String => "string",
            Self::Redirect => "redirect",
            Self::WebSocket => "websocket",
        }
    }

    /// Reads a word of the table.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for AuthKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for BodyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for AnswerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_print_the_words_of_the_table() {
        assert_eq!(AuthKind::RequestToken.to_string(), "request_token");
        assert_eq!(Effect::Destructive.to_string(), "destructive");
        assert_eq!(format!("{:<12}|", Effect::Read), "read        |");
        assert_eq!(AnswerKind::Object.to_string(), "json object");
        assert_eq!(BodyKind::Form.to_string(), "form");
    }
    #[test]
    fn the_hub_only_reports_and_other_routes_say_what_they_do() {
        assert_eq!(Effect::of(Tags::REALTIME | Tags::NOT_REST), Some(Effect::Read));
        assert_eq!(Effect::of(Tags::SESSION | Tags::SELF), Some(Effect::Session));
        assert_eq!(Effect::of(Tags::SELF), None);
    }
}
