//! API keys: how they look, and how they are kept.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

/// Tells a key from other secrets, for people and for scanners of leaked ones.
const PREFIX: &str = "amgw_";
const RANDOM: usize = 32;
const CHECKSUM: usize = 4;

/// A key that nobody has seen yet: 256 random bits, and a checksum that tells a misspelt one.
///
/// # Errors
///
/// When the system has no randomness.
pub fn generate() -> Result<SecretString, aws_lc_rs::error::Unspecified> {
    let mut bytes = Zeroizing::new([0; RANDOM + CHECKSUM]);
    let (random, checksum) = bytes.split_at_mut(RANDOM);
    aws_lc_rs::rand::fill(random)?;
    checksum.copy_from_slice(&checksum_of(random));
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    Ok(SecretString::from(format!("{PREFIX}{}", text.as_str())))
}

/// What is kept of a key: it has too much randomness to be guessed, so a fast hash is enough.
pub fn hash(key: &[u8]) -> [u8; 32] {
    *blake3::hash(key).as_bytes()
}

/// As the configuration writes it.
pub fn written_hash(key: &SecretString) -> String {
    format!("blake3:{}", blake3::hash(key.expose_secret().as_bytes()).to_hex())
}

/// Whether it looks like one of ours and is misspelt; says nothing about whose it is.
pub fn is_misspelt(key: &[u8]) -> bool {
    let Some(text) = key.strip_prefix(PREFIX.as_bytes()) else { return false };
    let bytes = URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new);
    let parts = bytes.as_ref().ok().and_then(|bytes| bytes.split_at_checked(RANDOM));
    parts.is_none_or(|(random, checksum)| checksum != checksum_of(random))
}

fn checksum_of(random: &[u8]) -> [u8; CHECKSUM] {
    let mut checksum = [0; CHECKSUM];
    let mut hasher = blake3::Hasher::new_derive_key("amove-gateway API key checksum 1");
    hasher.update(random).finalize_xof().fill(&mut checksum);
    checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_long_recognisable_and_never_the_same() {
        let keys = [generate().expect("a key"), generate().expect("a key")];

        for key in &keys {
            let key = key.expose_secret();
            assert!(key.starts_with("amgw_") && key.len() == 53, "{}", key.len());
            assert!(!is_misspelt(key.as_bytes()));
        }
        assert_ne!(keys[0].expose_secret(), keys[1].expose_secret());
    }

    proptest! {
        #[test]
        fn one_letter_that_is_wrong_is_noticed(at in 5_usize..52, letter in "[A-Za-z0-9_-]") {
            let key = generate().expect("a key");
            let mut wrong = key.expose_secret().to_owned();
            wrong.replace_range(at..=at, &letter);

            prop_assert_eq!(is_misspelt(wrong.as_bytes()), wrong != key.expose_secret());
        }

        #[test]
        fn whatever_is_shown_nothing_breaks(key in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = is_misspelt(&key);
        }
    }
}
