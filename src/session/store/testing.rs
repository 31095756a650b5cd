//! What the tests of stores have in common: entries, a log, and what they ask of a real Redis.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretBox};
use uuid::Uuid;

use super::{Binding, Claim, Entry, Lease, Shelf, Store, Stored};
pub(super) use crate::redis::testing::RedisServer;
use crate::{
    clock::Clock,
    config::{SealingKey, SessionStore, StoreError, StoreKind, UserType},
    session::login::Fingerprint,
};

pub(super) fn key(byte: u8) -> SealingKey {
    Arc::new(SecretBox::new(Box::new([byte; 32])))
}

pub(super) fn binding(identity: &str) -> Binding {
    Binding {
        identity: identity.into(),
        username: "svc@corp.test".to_owned(),
        user_type: UserType::AccountAdmin,
        auth_url: "https://auth.test".to_owned(),
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

/// With a session of this token.
pub(super) fn entry(jwt: &str) -> Entry {
    let session = Stored {
        id: Uuid::now_v7(),
        jwt: jwt.into(),
        issued: at(1_800_000_000),
        expires: Some(at(1_800_000_900)),
        second_factor: true,
        secrets: Fingerprint::of(&["password"]),
    };
    Entry { session: Some(session), ..Entry::default() }
}

/// The token of the session in there.
pub(super) fn jwt(entry: &Entry) -> Option<&str> {
    entry.session.as_ref().map(|session| session.jwt.expose_secret())
}

pub(super) fn store(kind: StoreKind) -> Store {
    Store::open(&SessionStore { kind, on_error: StoreError::Local }).expect("a store")
}

impl Store {
    /// The place of the identity `main`.
    pub(super) fn main(&self) -> Shelf {
        self.shelf(&binding("main"), &Clock::system())
    }
}

impl Shelf {
    pub(super) async fn claim_mine(&self) -> (Lease, Entry) {
        match self.claim().await.expect("an answer") {
            Claim::Mine(lease, entry) => (lease, *entry),
            Claim::Others => panic!("the lease is another's"),
        }
    }

    pub(super) async fn write(&self, entry: &Entry) {
        let (lease, _) = self.claim_mine().await;
        self.put(lease, entry).await.expect("an answer");
    }

    /// The entry as it stands.
    pub(super) async fn read(&self) -> Entry {
        self.look(None).await.expect("an answer").entry.expect("an entry")
    }
}

/// What `work` logs.
pub(super) fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = lines.0.lock().expect("nobody panics").clone();
    String::from_utf8(bytes).expect("text")
}

impl RedisServer {
    pub(super) fn store(&self, key: SealingKey) -> Store {
        store(StoreKind::Redis { url: self.url().into(), ca_file: None, key })
    }

    /// The key that ends so.
    pub(super) fn key_of(&self, what: &str) -> String {
        self.keys().into_iter().find(|key| key.ends_with(what)).expect("a key")
    }

    /// Makes it long ago that any member was here.
    pub(super) fn age_members(&self) {
        let key = self.key_of(":members");
        let members = self.ask(&["ZRANGE", &key, "0", "-1"]);
        for member in redis::from_redis_value::<Vec<String>>(members).expect("members") {
            self.ask(&["ZADD", &key, "1000", &member]);
        }
    }
}
