//! Callers that are known by the token of an issuer.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use amove_gateway::clock::Clock;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{TestGateway, USERINFO, hash_of, until};

const ISSUER: &str = "https://issuer.corp.test";
const AUDIENCE: &str = "amove-gateway";
const SUBJECT: &str = "system:serviceaccount:billing:default";

/// A key of an issuer.
struct Key {
    id: &'static str,
    pair: KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate().expect("a key") }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.der_bytes();
        let part = |range| BASE64_URL_SAFE_NO_PAD.encode(point.get(range).expect("a point"));
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": part(1..33), "y": part(33..65),
        })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        encode(&header, claims, &key).expect("a token")
    }
}

fn now() -> u64 {
    u64::try_from(Clock::system().now().as_second()).expect("after 1970")
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": now() + 600, "nbf": now() - 10 })
}

/// The claims, with one of them changed.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// Shows its keys; nothing at all while it is away.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/jwks.json?x=1", listener.local_addr().expect("an address"));
        let shown = Arc::new(Mutex::new(None));
        let asked = Arc::new(AtomicUsize::new(0));
        let issuer = Self { url, keys: shown, asked };
        issuer.show(keys);
        let (keys, asked) = (Arc::clone(&issuer.keys), Arc::clone(&issuer.asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                assert!(request[..read].starts_with(b"GET /jwks.json?x=1 HTTP/1.1\r\n"));
                asked.fetch_add(1, SeqCst);
                let Some(keys) = keys.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
                    continue;
                };
                let body = keys.to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    fn show(&self, keys: &[&Key]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(json!({ "keys": keys }));
    }

    fn go_away(&self) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

async fn gateway(keys: &str) -> TestGateway {
    let settings = format!(
        "[callers.billing]\njwt_subject = \"{SUBJECT}\"\n\
         [callers.other]\napi_key_hash = \"{}\"\n\
         [caller_jwt]\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\n{keys}\n",
        hash_of("key")
    );
    TestGateway::with(&settings).await.logged_in().await
}

async fn status(gateway: &TestGateway, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    gateway.get_with(USERINFO, &[("authorization", &*bearer)]).await.status
}

#[tokio::test]
async fn a_good_token_tells_who_calls_and_any_other_is_nobodys() {
    let (key, foreign) = (Key::new("one"), Key::new("one"));
    let issuer = Issuer::start(&[&key]).await;
    let gateway = gateway(&format!("jwks_url = \"{}\"", issuer.url)).await;
    let good = key.sign(&claims());
    let unsigned = {
        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(json!({ "alg": "none", "kid": "one" })), part(claims()))
    };
    // The public key taken for a shared secret.
    let confused = {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
        let secret = EncodingKey::from_secret(key.pair.der_bytes());
        encode(&header, &claims(), &secret).expect("a token")
    };

    assert_eq!(status(&gateway, &good).await, 200);
    // From memory.
    assert_eq!(status(&gateway, &good).await, 200);
    assert_eq!(status(&gateway, "key").await, 200);
    for (what, token) in [
        ("another issuer", key.sign(&with("iss", "https://evil.test".into()))),
        ("for somebody else", key.sign(&with("aud", "another".into()))),
        ("for nobody", key.sign(&with("aud", Value::Null))),
        ("expired", key.sign(&with("exp", (now() - 120).into()))),
        ("never expires", key.sign(&with("exp", Value::Null))),
        ("not yet good", key.sign(&with("nbf", (now() + 120).into()))),
        ("another subject", key.sign(&with("sub", "system:serviceaccount:x:y".into()))),
        ("no subject", key.sign(&with("sub", Value::Null))),
        ("a time that is none", key.sign(&with("exp", "tomorrow".into()))),
        ("a key of the same name", foreign.sign(&claims())),
        ("unsigned", unsigned),
        ("confused", confused),
        ("changed", format!("{}x", &good[..good.len() - 1])),
        ("cut off", good[..good.len() - 20].to_owned()),
        ("half", good.rsplit_once('.').expect("parts").0.to_owned()),
        ("long", format!("{good}{}", "A".repeat(20_000))),
        ("dots", "eyJ..".to_owned()),
        ("nothing", "eyJ.eyJ.eyJ".to_owned()),
    ] {
        assert_eq!(status(&gateway, &token).await, 401, "{what}");
    }
    // A little late is not too late: clocks differ.
    assert_eq!(status(&gateway, &key.sign(&with("exp", (now() - 20).into()))).await, 200);
    assert!(
        gateway
            .seen()
            .iter()
            .all(|seen| { seen.headers.iter().all(|(_, value)| !value.contains(&good)) })
    );
}

#[tokio::test]
async fn a_new_key_is_found_as_soon_as_it_signs_and_an_old_one_proves_nothing_any_more() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jwks.json");
    let write = |keys: &[&Key]| {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        std::fs::write(&file, json!({ "keys": keys }).to_string()).expect("a file");
    };
    write(&[&old]);
    let gateway = gateway(&format!("jwks_file = \"{}\"", file.display())).await;
    let (first, second) = (old.sign(&claims()), new.sign(&claims()));
    assert_eq!(status(&gateway, &first).await, 200);
    assert_eq!(status(&gateway, &second).await, 401);

    write(&[&old, &new]);
    assert_eq!(status(&gateway, &second).await, 200);
    assert_eq!(status(&gateway, &first).await, 200);

    write(&[&new]);
    until("the old key is gone", async || status(&gateway, &first).await == 401).await;
    // A file that is being written takes nothing away.
    std::fs::write(&file, "{").expect("a file");
    assert_eq!(status(&gateway, &second).await, 200);
}

#[tokio::test]
async fn an_issuer_that_is_away_takes_nothing_from_those_who_are_known() {
    let (key, other) = (Key::new("one"), Key::new("two"));
    let issuer = Issuer::start(&[&key]).await;
    let gateway = gateway(&format!("jwks_url = \"{}\"", issuer.url)).await;
    assert_eq!(status(&gateway, &key.sign(&claims())).await, 200);
    issuer.go_away();

    assert_eq!(status(&gateway, &key.sign(&with("jti", 1.into()))).await, 200);
    for _ in 0..20 {
        assert_eq!(status(&gateway, &other.sign(&claims())).await, 401);
    }

    // Whoever makes keys up does not make us ask each time.
    assert!(issuer.asked.load(SeqCst) <= 3, "{}", issuer.asked.load(SeqCst));
}
