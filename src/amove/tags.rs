//! What the contract says about a route in one word each.

use std::{fmt, ops::BitOr, str::FromStr};

/// A set of tags.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Tags(u32);

/// A word that is no tag.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a tag: expected one of {all}", all = Tags::all())]
pub struct UnknownTag(pub String);

impl Tags {
    /// Only looks.
    pub const READ: Self = Self(1);
    /// Changes something.
    pub const WRITE: Self = Self(1 << 1);
    /// Removes or stops something.
    pub const DESTRUCTIVE: Self = Self(1 << 2);
    /// Makes a new bearer.
    pub const SESSION: Self = Self(1 << 3);
    /// Takes a secret in its body.
    pub const SECRET_REQUEST: Self = Self(1 << 4);
    /// Gives a secret away, in its body or in `Location`.
    pub const SECRET_RESPONSE: Self = Self(1 << 5);
    /// Has a secret in its path or query.
    pub const SECRET_URL: Self = Self(1 << 6);
    /// May give a secret away: nobody says that it is masked.
    pub const MAYBE_SECRET_RESPONSE: Self = Self(1 << 7);
    /// Carries data about people.
    pub const PERSONAL: Self = Self(1 << 8);
    /// Spends something that can be used once.
    pub const ONE_SHOT: Self = Self(1 << 9);
    /// Can turn the identity against itself.
    pub const SELF: Self = Self(1 << 10);
    /// May spend money.
    pub const COSTS: Self = Self(1 << 11);
    /// Sends mail to people.
    pub const MAIL: Self = Self(1 << 12);
    /// Waits for a storage provider.
    pub const SLOW: Self = Self(1 << 13);
    /// No longer on the hosted documentation.
    pub const SITE_DROPPED: Self = Self(1 << 14);
    /// Only in the first edition of the documentation.
    pub const ONLY_2024: Self = Self(1 << 15);
    /// Stays open and reports as things happen.
    pub const REALTIME: Self = Self(1 << 16);
    /// Not one request and one answer.
    pub const NOT_REST: Self = Self(1 << 17);

    /// No request that may have arrived is sent again.
    pub const NEVER_TWICE: Self =
        Self(Self::ONE_SHOT.0 | Self::COSTS.0 | Self::MAIL.0 | Self::REALTIME.0);

    /// The words of the table, in the order they are printed.
    const WORDS: [(&'static str, Self); 18] = [
        ("read", Self::READ),
        ("write", Self::WRITE),
        ("destructive", Self::DESTRUCTIVE),
        ("session", Self::SESSION),
        ("secret-req", Self::SECRET_REQUEST),
        ("secret-resp", Self::SECRET_RESPONSE),
        ("secret-url", Self::SECRET_URL),
        ("maybe-secret-resp", Self::MAYBE_SECRET_RESPONSE),
        ("pii", Self::PERSONAL),
        ("one-shot", Self::ONE_SHOT),
        ("self", Self::SELF),
        ("costs", Self::COSTS),
        ("mail", Self::MAIL),
        ("slow", Self::SLOW),
        ("site-dropped", Self::SITE_DROPPED),
        ("2024-only", Self::ONLY_2024),
        ("realtime", Self::REALTIME),
        ("not-rest", Self::NOT_REST),
    ];

    /// Every tag there is.
    pub fn all() -> Self {
        Self::WORDS.into_iter().map(|(_, tag)| tag).collect()
    }

    /// Whether all of `tags` are in this set.
    pub const fn contains(self, tags: Self) -> bool {
        self.0 & tags.0 == tags.0
    }

    /// Whether any of `tags` is in this set.
    pub const fn intersects(self, tags: Self) -> bool {
        self.0 & tags.0 != 0
    }

    /// The words of this set.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(_, tag)| self.contains(*tag)).map(|(word, _)| word)
    }
}

impl BitOr for Tags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Self> for Tags {
    fn from_iter<I: IntoIterator<Item = Self>>(tags: I) -> Self {
        tags.into_iter().fold(Self::default(), Self::bitor)
    }
}

impl FromStr for Tags {
    type Err = UnknownTag;

    /// Reads one word.
    fn from_str(word: &str) -> Result<Self, UnknownTag> {
        let known = Self::WORDS.into_iter().find(|(own, _)| *own == word);
        known.map(|(_, tag)| tag).ok_or_else(|| UnknownTag(word.to_owned()))
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, word) in self.iter().enumerate() {
            if count > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_tag_of_its_own() {
        for (word, tag) in Tags::WORDS {
            assert_eq!(word.parse(), Ok(tag));
            assert_eq!(tag.to_string(), word);
            assert_eq!(tag.0.count_ones(), 1, "{word}");
        }
        assert_eq!(Tags::all().0.count_ones() as usize, Tags::WORDS.len());
    }

    #[test]
    fn a_set_prints_its_words_and_knows_what_it_holds() {
        let tags = Tags::SELF | Tags::READ | Tags::SECRET_RESPONSE;

        assert_eq!(tags.to_string(), "read secret-resp self");
        assert!(tags.contains(Tags::SELF | Tags::READ));
        assert!(!tags.contains(Tags::SELF | Tags::MAIL));
        assert!(tags.intersects(Tags::SELF | Tags::MAIL));
        assert!(!tags.intersects(Tags::MAIL));
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        let error = "selfish".parse::<Tags>().expect_err("no such tag").to_string();

        assert!(
            error.starts_with("`selfish` is not a tag: expected one of read write "),
            "{error}"
        );
    }
}
