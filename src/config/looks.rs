//! When files that have changed are to be taken over: not while they are still changing.

/// Tells files from one another.
pub type Fingerprint = [u8; 32];

/// Tells files with these contents from all others.
pub fn fingerprint<'a>(contents: impl IntoIterator<Item = &'a [u8]>) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    for content in contents {
        hasher.update(&(content.len() as u64).to_le_bytes()).update(content);
    }
    *hasher.finalize().as_bytes()
}

/// What was seen so far.
#[derive(Debug)]
pub struct Looks {
    /// What is in use.
    used: Fingerprint,
    /// What was seen last.
    last: Option<Fingerprint>,
    /// What was tried, and could not be used.
    refused: Option<Fingerprint>,
}

impl Looks {
    /// Files that look like `used` are in use.
    pub const fn new(used: Fingerprint) -> Self {
        Self { used, last: None, refused: None }
    }

    /// Whether files that look like `seen` are to be tried: they are new, and the same as before.
    pub fn are_settled(&mut self, seen: Fingerprint) -> bool {
        let is_same = self.last.replace(seen) == Some(seen);
        is_same && seen != self.used && self.refused != Some(seen)
    }

    /// The files could not be read.
    pub const fn failed(&mut self) {
        self.last = None;
    }

    /// What was tried is in use now.
    pub const fn took(&mut self, tried: Fingerprint) {
        self.used = tried;
        self.refused = None;
    }

    /// What was tried cannot be used: it is not tried again until it changes.
    pub const fn refused(&mut self, tried: Fingerprint) {
        self.refused = Some(tried);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Fingerprint = [0; 32];
    const NEW: Fingerprint = [1; 32];
    const HALF: Fingerprint = [2; 32];

    fn check(looks: &mut Looks, seen: &[(Fingerprint, bool)]) {
        for (at, (seen, expected)) in seen.iter().enumerate() {
            assert_eq!(looks.are_settled(*seen), *expected, "look {at}");
        }
    }

    #[test]
    fn what_has_changed_is_tried_once_it_looks_the_same_twice() {
        let mut looks = Looks::new(OLD);

        check(&mut looks, &[(OLD, false), (OLD, false), (HALF, false), (NEW, false), (NEW, true)]);
        looks.took(NEW);
        check(&mut looks, &[(NEW, false), (NEW, false), (OLD, false), (OLD, true)]);
    }

    #[test]
    fn what_was_refused_is_tried_again_only_after_it_has_changed() {
        let mut looks = Looks::new(OLD);

        check(&mut looks, &[(HALF, false), (HALF, true)]);
        looks.refused(HALF);
        check(&mut looks, &[(HALF, false), (OLD, false), (OLD, false)]);
        check(&mut looks, &[(HALF, false), (HALF, false), (NEW, false), (NEW, true)]);
        looks.took(NEW);
        check(&mut looks, &[(HALF, false), (HALF, true)]);
    }

    #[test]
    fn files_that_were_gone_meanwhile_have_to_settle_again() {
        let mut looks = Looks::new(OLD);

        check(&mut looks, &[(NEW, false)]);
        looks.failed();
        check(&mut looks, &[(NEW, false), (NEW, true)]);
    }
}
