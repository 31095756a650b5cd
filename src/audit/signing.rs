//! Signed heads (Ed25519): whoever rewrites the chain from some record on needs the key as well.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::chain::Head;

/// Signs heads of the chain.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
}

/// Checks signatures of heads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicKey(Vec<u8>);

impl Signer {
    /// A signer with the private key in `pkcs8`; `None` if it is not one of Ed25519.
    pub(super) fn new(pkcs8: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_pkcs8(pkcs8).ok().map(|pair| Self { pair })
    }

    /// The public key.
    pub(super) fn key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The signature of `gateway` under `head`.
    pub(super) fn sign(&self, gateway: &str, head: Head) -> Vec<u8> {
        self.pair.sign(&message(gateway, head)).as_ref().to_vec()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl PublicKey {
    /// The public key in a PEM file that holds it, or the private one (PKCS #8).
    pub fn from_pem(pem: &str) -> Option<Self> {
        use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
        let private = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok();
        if let Some(signer) = private.and_then(|key| Signer::new(key.secret_pkcs8_der())) {
            return Some(Self(signer.key().to_vec()));
        }
        // The head of a SubjectPublicKeyInfo of Ed25519 (RFC 8410 section 4); the key follows.
        const HEAD: [u8; 12] =
            [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
        let public = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?;
        let key = public.as_ref().strip_prefix(&HEAD).filter(|key| key.len() == 32)?;
        Some(Self(key.to_vec()))
    }

    /// Whether it is this key.
    pub(super) fn is(&self, key: &[u8]) -> bool {
        self.0 == key
    }
}

/// Whether `key` has signed `head` for `gateway`.
pub(super) fn verifies(key: &[u8], gateway: &str, head: Head, signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(&message(gateway, head), signature).is_ok()
}

fn message(gateway: &str, head: Head) -> Vec<u8> {
    let begin = format!("amove-gateway audit head 1\n{gateway}\n{}\n", head.seq);
    [begin.as_bytes(), &head.hash].concat()
}
