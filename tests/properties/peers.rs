//! Peers: nobody is taken for somebody else, whatever certificate, user id or header they come with.

use std::{net::SocketAddr, sync::Arc};

use amove_gateway::{
    caller::{Callers, Unknown},
    clock::Clock,
    config::load::load_str,
    message::{Certificate, Peer},
};
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    sign::CertifiedKey,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    corpus::{Seed, check, explore, seeds},
    support::{DEADLINE, Reply, TestGateway, USERINFO},
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

/// A gateway that knows its callers by their certificates, and an authority that it trusts.
struct Scene {
    runtime: Runtime,
    gateway: TestGateway,
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    roots: Arc<RootCertStore>,
    _folder: TempDir,
}

/// Whom a certificate may name here, and what it has to have in it.
const KNOWN: [(&str, &str); 3] = [
    ("media", "spiffe://corp.test/media"),
    ("reports", "reports.corp.test"),
    ("mailer", "mailer@corp.test"),
];

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let ca = params.self_signed(&authority).expect("a certificate");
        let issuer = Issuer::new(params, authority);
        let key = KeyPair::generate().expect("a key");
        let own = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        let own = own.signed_by(&key, &issuer).expect("a certificate");
        let path = |name: &str| folder.path().join(name);
        for (name, content) in
            [("ca.pem", ca.pem()), ("own.crt", own.pem()), ("own.key", key.serialize_pem())]
        {
            std::fs::write(path(name), content).expect("a file");
        }
        let settings = format!(
            "[server.tls]\ncert_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n\
             client_auth = \"required\"\n\
             [callers.media]\nspiffe_id = \"{}\"\ndeny = [\"* *\"]\n\
             [callers.reports]\nsan = \"{}\"\ndeny = [\"* *\"]\n\
             [callers.mailer]\nsan = \"{}\"\ndeny = [\"* *\"]\n",
            path("own.crt"),
            path("own.key"),
            path("ca.pem"),
            KNOWN[0].1,
            KNOWN[1].1,
            KNOWN[2].1,
        );
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).expect("an authority");
        let runtime = Runtime::new().expect("a runtime");
        let gateway = runtime.block_on(TestGateway::without_mfa(&settings));
        Self { runtime, gateway, issuer, key, roots: Arc::new(roots), _folder: folder }
    }

    /// A certificate with these bytes for its alternative names.
    fn certify(&self, names: &[u8]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "fuzzed");
        params.not_after = date_time_ymd(2060, 1, 1);
        let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], names.to_vec());
        params.custom_extensions.push(names);
        let certificate = params.signed_by(&self.key, &self.issuer).expect("a certificate");
        certificate.der().clone()
    }

    /// Whom the gateway takes the holder of `certificate` for: nothing if it refuses the handshake,
    /// nobody if it knows nobody by that.
    fn taken_for(&self, certificate: CertificateDer<'static>) -> Option<Option<String>> {
        self.runtime.block_on(async {
            timeout(DEADLINE, self.ask(certificate)).await.expect("an end in time")
        })
    }

    async fn ask(&self, certificate: CertificateDer<'static>) -> Option<Option<String>> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key");
        let shown = Arc::new(Shown(Arc::new(CertifiedKey::new(vec![certificate], key))));
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(Arc::clone(&self.roots))
                .with_client_cert_resolver(shown);
        config.resumption = Resumption::disabled();
        let tcp = TcpStream::connect(self.gateway.address()).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
        let head =
            format!("GET {USERINFO} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        // A handshake of TLS 1.3 is refused after the client takes it for done.
        let _ = stream.read_to_end(&mut answer).await;
        let reply = Reply::parse(&answer)?;
        let rule = reply.json()["rule"].as_str().map(str::to_owned);
        assert_eq!(reply.status, if rule.is_some() { 403 } else { 401 }, "{reply:?}");
        let name = rule.and_then(|rule| rule.split('.').nth(1).map(str::to_owned));
        Some(name.map(|name| name.trim_end_matches(".deny").to_owned()))
    }

    fn end(self) {
        self.runtime.block_on(self.gateway.drain());
    }
}

/// Shows what it is told to show.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// DER of one alternative name.
fn general_name(tag: u8, text: &[u8]) -> Vec<u8> {
    tlv(tag, text)
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut bytes = vec![tag];
    match length {
        0..0x80 => bytes.push(length as u8),
        0x80..0x100 => bytes.extend([0x81, length as u8]),
        _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    bytes.extend_from_slice(content);
    bytes
}

const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;

/// Pieces of alternative names.
const WORDS: &[&str] = &[
    "\u{82}",
    "0",
    "reports.corp.test",
    "spiffe://corp.test/media",
    "SPIFFE://corp.test/media",
    "mailer@corp.test",
    "spiffe://corp.test/other",
    "*.corp.test",
    "\0",
    ".",
    "/",
    "é",
];

/// Seeds: their bytes are hexadecimal, for they would be unreadable otherwise.
fn certificates() -> Vec<Seed> {
    let decode = |(name, text): Seed| {
        let digits: Vec<u8> = text.into_iter().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks_exact(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        (name, pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect())
    };
    seeds("peers").into_iter().map(decode).collect()
}

#[test]
fn no_certificate_names_whom_it_does_not_name() {
    let scene = Scene::new();
    explore(150, certificates(), WORDS, |names| {
        let taken_for = scene.taken_for(scene.certify(names));

        // Whoever is recognised is written there, whole, behind a length that says so.
        if let Some(Some(name)) = taken_for {
            let known = KNOWN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
            let known = known.expect("a caller that is known");
            let tag = match name.as_str() {
                "media" => vec![URI],
                _ => vec![DNS, MAIL, URI],
            };
            let is_there = tag.into_iter().any(|tag| {
                let wanted = general_name(tag, known.as_bytes());
                names.windows(wanted.len()).any(|it| it.eq_ignore_ascii_case(&wanted))
            });
            prop_assert!(is_there, "{name}: {}", names.escape_ascii());
        }
        Ok(())
    });
    scene.end();
}

#[test]
fn a_certificate_that_was_changed_is_worth_nothing() {
    let scene = Scene::new();
    let good = general_name(URI, KNOWN[0].1.as_bytes());
    let good = scene.certify(&tlv(0x30, &good));
    assert_eq!(scene.taken_for(good.clone()), Some(Some("media".to_owned())));
    let seeds = vec![("good".to_owned(), good.to_vec())];
    check(150, &crate::corpus::mutants(seeds, WORDS), |input| {
        let is_same = input.0 == good.to_vec();

        let taken_for = scene.taken_for(CertificateDer::from(input.0));

        let expected = is_same.then(|| Some("media".to_owned()));
        prop_assert_eq!(taken_for, expected);
        Ok(())
    });
    assert_eq!(scene.taken_for(good), Some(Some("media".to_owned())), "the gateway lives on");
    scene.end();
}

/// Alternative names that are well formed, so that it can be told whom they name.
fn alternatives() -> impl Strategy<Value = Vec<(u8, String)>> {
    let text = prop_oneof![
        6 => select(vec![
            "spiffe://corp.test/media", "SPIFFE://corp.test/media", "spiffe://corp.test/other",
            "reports.corp.test", "REPORTS.corp.test", "mailer@corp.test", "other.corp.test",
        ]).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
        1 => "[a-z]{505,520}",
    ];
    prop::collection::vec((select(vec![MAIL, DNS, URI, URI]), text), 0..5)
}

fn whom(alternatives: &[(u8, String)]) -> Option<String> {
    let is_plain = |text: &str| {
        (1..=512).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic())
    };
    let is_id = |text: &str| text.to_ascii_lowercase().starts_with("spiffe://");
    let ids: Vec<_> =
        alternatives.iter().filter(|(tag, text)| *tag == URI && is_id(text)).collect();
    if let [(_, id)] = ids[..]
        && id == KNOWN[0].1
    {
        return Some("media".to_owned());
    }
    let named = alternatives.iter().filter(|(_, text)| is_plain(text)).filter_map(|(tag, text)| {
        let is_same =
            |known: &str| known == text || *tag != URI && known.eq_ignore_ascii_case(text);
        KNOWN[1..].iter().find(|(_, known)| is_same(known)).map(|(name, _)| *name)
    });
    let mut named: Vec<_> = named.collect();
    named.dedup();
    if let [one] = named[..] { Some(one.to_owned()) } else { None }
}

#[test]
fn a_certificate_names_what_stands_in_it() {
    let scene = Scene::new();
    check(60, &alternatives(), |alternatives| {
        let names = alternatives.iter().flat_map(|(tag, text)| general_name(*tag, text.as_bytes()));
        let names: Vec<u8> = names.collect();

        let taken_for = scene.taken_for(scene.certify(&tlv(0x30, &names)));

        prop_assert_eq!(taken_for, Some(whom(&alternatives)));
        Ok(())
    });
    scene.end();
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
