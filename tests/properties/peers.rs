//! Peers: nobody is taken for somebody else, whatever proof, key or claim they come with.

use std::{net::SocketAddr, sync::Arc};

use amove_gateway::{
    caller::{Callers, Unknown},
    clock::Clock,
    config::load::load_str,
    message::{Certificate, Peer},
};
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};
use tokio::runtime::Runtime;

use crate::{
    corpus::check,
    support::{TestGateway, USERINFO},
};

/// Names that are in somebody's way.
const NAMES: [&str; 6] = [
    "reports.corp.test",
    "Reports.Corp.TEST",
    "sync.corp.test",
    "media@corp.test",
    "https://corp.test/x",
    "spiffe://corp.test/media",
];
const IDS: [&str; 4] = [
    "spiffe://corp.test/media",
    "spiffe://corp.test/billing",
    "spiffe://corp.test/Media",
    "SPIFFE://corp.test/media",
];

/// A caller as it is configured.
#[derive(Clone, Debug, Default)]
struct Configured {
    spiffe_id: Option<&'static str>,
    san: Option<&'static str>,
    uid: Option<u32>,
    key: bool,
}

impl Configured {
    fn is_recognisable(&self) -> bool {
        self.spiffe_id.is_some() || self.san.is_some() || self.uid.is_some() || self.key
    }
}

fn callers() -> impl Strategy<Value = Vec<Configured>> {
    let id = prop::option::of(select(&IDS[..2]));
    let san = prop::option::of(select(&NAMES[..]));
    let caller = (id, san, prop::option::of(0_u32..3), any::<bool>())
        .prop_map(|(spiffe_id, san, uid, key)| Configured { spiffe_id, san, uid, key });
    prop::collection::vec(caller, 0..4)
}

fn peers() -> impl Strategy<Value = Peer> {
    let address = select(vec!["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "10.0.0.1:1"]);
    let address = address.prop_map(|it| it.parse::<SocketAddr>().expect("an address"));
    let certificate =
        (prop::option::of(select(&IDS[..3])), prop::collection::vec(select(&NAMES[..]), 0..4));
    let certificate = certificate.prop_map(|(id, names)| {
        // As the reader of certificates hands them on.
        let written =
            |name: &str| if name.contains(':') { name.into() } else { name.to_lowercase() };
        let names = names.into_iter().map(|name| written(name).into()).collect();
        Arc::new(Certificate { spiffe_id: id.map(Into::into), names })
    });
    prop_oneof![
        address.clone().prop_map(Peer::Tcp),
        prop::option::of(prop_oneof![0_u32..4, any::<u32>()]).prop_map(|uid| Peer::Unix { uid }),
        (address, prop::option::of(certificate))
            .prop_map(|(address, certificate)| Peer::Tls { address, certificate }),
    ]
}

/// URIs are compared as they are, other names without their case.
fn is_same(own: &str, other: &str) -> bool {
    if own.contains(':') { own == other } else { own.eq_ignore_ascii_case(other) }
}

/// The rules of interface section 4 and README, one after the other.
fn expected(callers: &[Configured], key: Option<usize>, peer: &Peer) -> Result<String, Unknown> {
    let name = |at: usize| format!("c{at}");
    let find = |is: &dyn Fn(&Configured) -> bool| callers.iter().position(is);
    let proven = match peer {
        Peer::Tcp(_) | Peer::Tls { certificate: None, .. } => None,
        Peer::Unix { uid } => uid.and_then(|uid| find(&|it| it.uid == Some(uid))),
        Peer::Tls { certificate: Some(certificate), .. } => {
            let by_id = certificate.spiffe_id.as_deref();
            let by_id = by_id.and_then(|id| find(&|it| it.spiffe_id == Some(id)));
            let named = |name: &str| find(&|it| it.san.is_some_and(|san| is_same(san, name)));
            let mut named: Vec<_> =
                certificate.names.iter().filter_map(|name| named(name)).collect();
            named.dedup();
            by_id.or(if let [one] = named[..] { Some(one) } else { None })
        }
    };
    if let Some(at) = proven {
        return Ok(name(at));
    }
    if let Some(at) = key {
        return if callers.get(at).is_some_and(|it| it.key) {
            Ok(name(at))
        } else {
            Err(Unknown::Wrong)
        };
    }
    let is_here = match peer {
        Peer::Unix { .. } => true,
        Peer::Tcp(address) | Peer::Tls { address, .. } => address.ip().to_canonical().is_loopback(),
    };
    let nameless = find(&|it| !it.is_recognisable()).map(name);
    let local = if callers.is_empty() { Some("local".to_owned()) } else { nameless };
    let is_certified = matches!(peer, Peer::Tls { certificate: Some(_), .. });
    let nobody = if is_certified { Unknown::Unmapped } else { Unknown::Missing };
    local.filter(|_| is_here).ok_or(nobody)
}

#[test]
fn who_calls_is_who_the_rules_say() {
    let asked = (prop::option::of(0_usize..5), peers());
    check(300, &(callers(), prop::collection::vec(asked, 1..8)), |(configured, asked)| {
        let mut text = "[identities.main]\napi_token = \"x\"\n".to_owned();
        for (at, caller) in configured.iter().enumerate() {
            text.push_str(&format!("[callers.c{at}]\nidentity = \"main\"\n"));
            let mut set = |key: &str, value: String| text.push_str(&format!("{key} = {value}\n"));
            caller.spiffe_id.iter().for_each(|id| set("spiffe_id", format!("{id:?}")));
            caller.san.iter().for_each(|san| set("san", format!("{san:?}")));
            caller.uid.iter().for_each(|uid| set("unix_uid", uid.to_string()));
            if caller.key {
                let hash = blake3::hash(format!("key-{at}").as_bytes()).to_hex();
                set("api_key_hash", format!("\"blake3:{hash}\""));
            }
        }
        // Two callers with the same sign are refused, which is another test's business.
        let Ok(loaded) = load_str(&text, &[]) else { return Ok(()) };
        let callers = Callers::new(&loaded.config, &Clock::system()).expect("callers");
        for (key, peer) in asked {
            let shown = key.map(|at| format!("key-{at}"));
            let found = callers.recognise(shown.as_deref().map(str::as_bytes), &peer);

            let found = found.map(|caller| caller.name.to_string());
            prop_assert_eq!(found, expected(&configured, key, &peer), "{:?} {:?}", key, peer);
        }
        Ok(())
    });
}

/// What a caller says about itself, or about those behind it.
fn claims() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = select(vec![
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-FORWARDED-PROTO",
        "X-Forwarded-Client-Cert",
        "Forwarded",
        "X-Real-IP",
        "True-Client-IP",
        "X-Client-IP",
        "Via",
        "Authorization",
        "Cookie",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Client-Cert",
        "X-Original-URL",
        "X-HTTP-Method-Override",
        "X-Api-Key",
        "X-Rewrite-Url",
        "Traceparent",
    ]);
    let value = prop_oneof![
        Just("canary".to_owned()),
        "canary[ -~]{0,20}".prop_map(|it| it.trim_end().to_owned()),
        Just("for=canary;host=evil.test".to_owned()),
    ];
    prop::collection::vec((name.prop_map(str::to_owned), value), 1..6)
}

#[test]
fn nothing_that_a_caller_claims_about_itself_goes_up() {
    let runtime = Runtime::new().expect("a runtime");
    let gateway = runtime.block_on(async { TestGateway::without_mfa("").await.logged_in().await });
    let holds = |claims: Vec<(String, String)>| -> TestCaseResult {
        let headers: Vec<_> = claims.iter().map(|(name, value)| (&**name, &**value)).collect();

        let reply = runtime.block_on(gateway.get_with(USERINFO, &headers));

        let seen = gateway.seen();
        gateway.amove.forget_requests();
        prop_assert!(seen.len() <= 1);
        for seen in seen {
            prop_assert!(
                seen.headers.iter().all(|(_, value)| !value.contains("canary")),
                "{seen:?}"
            );
            prop_assert_eq!((&*seen.method, &*seen.target), ("GET", USERINFO));
        }
        prop_assert!([200, 400, 401].contains(&reply.status), "{reply:?}");
        Ok(())
    };
    check(150, &claims(), holds);
    runtime.block_on(gateway.drain());
}
