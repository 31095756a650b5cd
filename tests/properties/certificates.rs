//! Client certificates: whatever stands in one, it names whom it names, and nobody else.

use std::sync::Arc;

use proptest::{prelude::*, sample::select};
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
    corpus::{Seed, check, explore, mutants, seeds},
    support::{DEADLINE, Reply, TestGateway, USERINFO},
};

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

/// DER of one value.
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
const ADDRESS: u8 = 0x87;

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
    seeds("certificates").into_iter().map(decode).collect()
}

#[test]
fn no_certificate_names_whom_it_does_not_name() {
    let scene = Scene::new();
    explore(150, certificates(), WORDS, |names| {
        let taken_for = scene.taken_for(scene.certify(names));

        if let Some(alternatives) = alternatives_of(names) {
            prop_assert_eq!(taken_for, Some(whom(&alternatives)), "{:?}", alternatives);
            return Ok(());
        }
        // Of what is no plain list of names, this much is certain: whoever is recognised is
        // written there, whole, behind a length that says so.
        if let Some(Some(name)) = taken_for {
            let known = KNOWN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
            let known = known.expect("a caller that is known");
            let tag = match name.as_str() {
                "media" => vec![URI],
                _ => vec![DNS, MAIL, URI],
            };
            let is_same = <[u8]>::eq_ignore_ascii_case;
            let is_there = tag.into_iter().any(|tag| {
                let wanted = tlv(tag, known.as_bytes());
                // The reader does not mind a tag that says that there is more within.
                let is_it =
                    |it: &[u8]| it[0] | 0x20 == tag | 0x20 && is_same(&it[1..], &wanted[1..]);
                names.windows(wanted.len()).any(is_it)
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
    let good = tlv(URI, KNOWN[0].1.as_bytes());
    let good = scene.certify(&tlv(0x30, &good));
    assert_eq!(scene.taken_for(good.clone()), Some(Some("media".to_owned())));
    let seeds = vec![("good".to_owned(), good.to_vec())];
    check(150, &mutants(seeds, WORDS), |input| {
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
            "spiffe://corp.test/media", "spiffe://corp.test/media", "SPIFFE://corp.test/media", "spiffe://corp.test/other",
            "reports.corp.test", "REPORTS.corp.test", "mailer@corp.test", "other.corp.test",
        ]).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
        1 => "[a-z]{505,520}",
    ];
    prop::collection::vec((select(vec![MAIL, DNS, URI, URI]), text), 0..5)
}

/// The names in DER that is well formed, if all of them are texts or addresses.
fn alternatives_of(der: &[u8]) -> Option<Vec<(u8, String)>> {
    let (0x30, mut rest, []) = first_of(der)? else { return None };
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (tag, content, after) = first_of(rest)?;
        let is_text = [MAIL, DNS, URI].contains(&tag) && content.is_ascii();
        if !is_text && tag != ADDRESS {
            return None;
        }
        if is_text {
            names.push((tag, String::from_utf8(content.to_vec()).ok()?));
        }
        rest = after;
    }
    (!names.is_empty()).then_some(names)
}

/// The tag and the content of what comes first, and what comes behind it.
fn first_of(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (length, rest) = match *rest {
        [length, ref rest @ ..] if length < 0x80 => (usize::from(length), rest),
        [0x81, length @ 0x80..=0xff, ref rest @ ..] => (usize::from(length), rest),
        [0x82, high @ 1..=0xff, low, ref rest @ ..] => {
            (usize::from(high) << 8 | usize::from(low), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// Whom a certificate with these names names here.
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
    let named = alternatives.iter().filter(|(_, text)| is_plain(text)).take(32).filter_map(
        |(tag, text)| {
            let is_same =
                |known: &str| known == text || *tag != URI && known.eq_ignore_ascii_case(text);
            KNOWN[1..].iter().find(|(_, known)| is_same(known)).map(|(name, _)| *name)
        },
    );
    let mut named: Vec<_> = named.collect();
    named.dedup();
    if let [one] = named[..] { Some(one.to_owned()) } else { None }
}

#[test]
fn a_certificate_names_what_stands_in_it() {
    let scene = Scene::new();
    check(60, &alternatives(), |alternatives| {
        let names = alternatives.iter().flat_map(|(tag, text)| tlv(*tag, text.as_bytes()));
        let names: Vec<u8> = names.collect();

        let taken_for = scene.taken_for(scene.certify(&tlv(0x30, &names)));

        prop_assert_eq!(taken_for, Some(whom(&alternatives)));
        Ok(())
    });
    scene.end();
}
