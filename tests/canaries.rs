//! Secrets that must be found nowhere, at the most talkative log level, whatever is done with them.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::time::Duration;

use amove_gateway::{
    clock::Clock,
    config::load::load_str,
    emulator::{self, DeadSession, Emulator, Fault, Host, Options},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use process_support::{
    Gateway, call, emulator, get,
    pki::{Authority, Certified, FUTURE, PAST, VERSIONS, connect},
    request, run, soon, stdout,
};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

mod process_support;

const USERINFO: &str = "/api/v1/user/userinfo";
const ECHO: &str = "/api/v1/emulator/echo";
/// Stands in every secret of the tests' own making.
const MARK: &str = "c4nary";

/// Every way in which a secret might be written down.
fn spellings(secret: &[u8]) -> Vec<String> {
    let mut spellings = Vec::new();
    spellings.extend(std::str::from_utf8(secret).ok().map(str::to_owned));
    // Of long ones a part in the middle will do.
    let from = secret.len().saturating_sub(24) / 2;
    let part = &secret[from..secret.len().min(from + 24)];
    spellings.push(part.iter().map(|byte| format!("{byte:02x}")).collect());
    spellings.push(part.iter().map(|byte| format!("{byte:02X}")).collect());
    spellings.push(part.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
    spellings.push(part.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
    // Base 64 depends on what stands before, and on that only.
    for before in 0..3 {
        let padded = [&[0; 2][..before.min(2)], part].concat();
        let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for text in [BASE64_STANDARD.encode(&padded), BASE64_URL_SAFE_NO_PAD.encode(&padded)] {
            spellings.push(text[first..end].to_owned());
        }
    }
    spellings.retain(|spelling| spelling.len() > 5);
    spellings
}

/// Where a secret was looked for.
type Places = Vec<(String, String)>;

/// Which of `secrets` is found in one of `places`, and where.
fn found(secrets: &[(&str, Vec<u8>)], places: &Places) -> Option<String> {
    for (what, secret) in secrets {
        for spelling in spellings(secret) {
            for (place, text) in places {
                if let Some(line) = text.lines().find(|line| line.contains(&spelling)) {
                    return Some(format!("{what} ({spelling}) is found in {place}: {line}"));
                }
            }
        }
    }
    None
}

/// What a running gateway tells operators.
async fn told_to_operators(gateway: &Gateway, token: &str) -> Places {
    let mut places = Vec::new();
    for path in ["/metrics", "/-/status.json", "/-/config", "/readyz?verbose", "/nothing"] {
        let mut asked = request("GET", path);
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("a token");
        asked.headers_mut().insert("authorization", bearer);
        let answer = call(gateway.admin, asked).await.expect("an answer");
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        // Who is known by a certificate stands in the configuration, and is no secret.
        let text: Vec<_> = text.lines().filter(|line| !line.starts_with("spiffe_id = ")).collect();
        let text = text.join("\n");
        places.push((path.to_owned(), format!("{:?}\n{text}", answer.headers())));
    }
    places
}

/// Ends a gateway; what it has written, down to this level.
async fn end(gateway: &mut Gateway, lowest: &str) -> Places {
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.exit_code().await, Some(0));
    let (log, records) = (gateway.process.stderr(), gateway.process.stdout());
    assert!(log.contains(lowest) && records.contains("\"outcome\""), "{log} {records}");
    vec![("the log".to_owned(), log), ("the records".to_owned(), records)]
}

/// Writes `head` and reads until the gateway ends the connection.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &[u8]) -> String {
    let mut answer = Vec::new();
    let saying = async {
        // The gateway may have ended it already.
        let _ = stream.write_all(head).await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    soon("the end of the connection", saying).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends `fields` by HTTP/2; the answer, or why there is none.
async fn say_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    fields: &[(HeaderName, HeaderValue)],
) -> String {
    let answered = async {
        let io = TokioIo::new(stream);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let uri = format!("http://localhost{ECHO}");
        let mut request: Request<Full<Bytes>> = Request::new(Full::default());
        *request.uri_mut() = uri.parse().expect("a target");
        request
            .headers_mut()
            .extend(fields.iter().map(|(name, value)| (Some(name.clone()), value.clone())));
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, hyper::Error>(format!("{head:?} {}", String::from_utf8_lossy(&body)))
    };
    soon("an answer", answered).await.unwrap_or_else(|error| format!("{error:?}"))
}

/// An issuer's key, and tokens that it signs.
struct Issuer(KeyPair);

impl Issuer {
    fn jwks(&self) -> String {
        let point = self.0.der_bytes();
        let part = |range| BASE64_URL_SAFE_NO_PAD.encode(point.get(range).expect("a point"));
        let key = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "one",
            "x": part(1..33), "y": part(33..65),
        });
        json!({ "keys": [key] }).to_string()
    }

    /// A token that ends in so many seconds, with this `sub` and a mark in its `jti`.
    fn sign(&self, audience: &str, subject: &str, seconds: i64) -> String {
        let now = Clock::system().now().as_second();
        let claims = json!({
            "iss": "https://issuer.test", "aud": audience, "sub": subject,
            "exp": now + seconds, "jti": format!("{MARK}-{seconds}"),
        });
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.0.serialize_der());
        encode(&header, &claims, &key).expect("a token")
    }
}

/// Credentials in every place, good and bad: field and value, and whether they are let in.
fn credentials(key: &str, tokens: &[(&'static str, String)]) -> Vec<(&'static str, Vec<u8>)> {
    let other = if key.ends_with('x') { 'y' } else { 'x' };
    let misspelt = format!("{}{other}", &key[..key.len() - 1]);
    let values = [key.to_owned(), misspelt, format!("{MARK}-key"), format!(" {MARK} \"'<>\\u0000")];
    let long = format!("{MARK}{}", "x".repeat(6000));
    let mut fields = Vec::new();
    for value in values.iter().chain([&long]) {
        fields.push(("x-api-key", value.clone().into_bytes()));
        fields.push(("authorization", format!("Bearer {value}").into_bytes()));
        fields.push(("authorization", value.clone().into_bytes()));
    }
    fields.push(("x-api-key", [b"\xff\xfe", MARK.as_bytes()].concat()));
    fields.push(("authorization", [b"Bearer \xc3\x28", MARK.as_bytes()].concat()));
    for (_, token) in tokens {
        fields.push(("authorization", format!("Bearer {token}").into_bytes()));
        fields.push(("x-api-key", token.clone().into_bytes()));
    }
    let basic = BASE64_STANDARD.encode(format!("user:{MARK}-basic"));
    fields.push(("authorization", format!("Basic {basic}").into_bytes()));
    fields.push(("authorization", format!("Digest response=\"{MARK}\"").into_bytes()));
    fields.push(("proxy-authorization", format!("Basic {basic}").into_bytes()));
    fields.push(("cookie", format!("session={MARK}").into_bytes()));
    fields
}

/// The ways to say it all that are no HTTP, or none that we take.
fn malformed(key: &str) -> Vec<String> {
    vec![
        format!(
            "GET {ECHO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {key}\r\n {MARK}\r\n\r\n"
        ),
        format!("GET {ECHO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx_api_key: {MARK}\r\n\r\n"),
        format!("GET {ECHO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{MARK}\r\n\r\n"),
        format!(
            "GET {ECHO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {key}\r\nx-api-key: {MARK}\r\n\r\n"
        ),
        format!(
            "GET {ECHO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\u{0}{MARK}\r\n\r\n"
        ),
        format!(
            "GET {ECHO}?api_key={MARK}&access_token={key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ),
        format!(
            "GET /api/user/../{MARK}?token={key} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {key}\r\n\r\n"
        ),
        format!("GET http://{MARK}:{key}@x{ECHO} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("{MARK} {key}\r\n\r\n"),
        format!(
            "GET {ECHO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {MARK}{}\r\n\r\n",
            "x".repeat(70_000)
        ),
    ]
}

/// The gateway under test, over TLS if there is an authority.
async fn doors(
    emulator: &Emulator,
    authority: Option<&Authority>,
    key: &str,
    jwks: &str,
) -> Gateway {
    let hash = format!("blake3:{}", blake3::hash(key.as_bytes()).to_hex());
    let mut settings = vec![
        ("AMOVE_GATEWAY_TELEMETRY__LOG", "trace".to_owned()),
        ("AMOVE_GATEWAY_AUDIT__STDOUT", "true".to_owned()),
        ("AMOVE_GATEWAY_CALLERS__KEYS__API_KEY_HASH", hash),
        ("AMOVE_GATEWAY_CALLERS__TOKENS__JWT_SUBJECT", "subject".to_owned()),
        ("AMOVE_GATEWAY_CALLER_JWT__ISSUER", "https://issuer.test".to_owned()),
        ("AMOVE_GATEWAY_CALLER_JWT__AUDIENCE", "amove-gateway".to_owned()),
        ("AMOVE_GATEWAY_CALLER_JWT__JWKS_FILE", jwks.to_owned()),
    ];
    if let Some(authority) = authority {
        authority.keep("server", &authority.certify("gateway", FUTURE));
        let spiffe_id = format!("spiffe://corp.test/{MARK}-known");
        settings.extend([
            ("AMOVE_GATEWAY_SERVER__TLS__CERT_FILE", authority.text("server.crt")),
            ("AMOVE_GATEWAY_SERVER__TLS__KEY_FILE", authority.text("server.key")),
            ("AMOVE_GATEWAY_SERVER__TLS__CLIENT_AUTH", "optional".to_owned()),
            ("AMOVE_GATEWAY_SERVER__TLS__CLIENT_CA_FILE", authority.text("ca.pem")),
            ("AMOVE_GATEWAY_CALLERS__CERTIFIED__SPIFFE_ID", spiffe_id),
        ]);
    }
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
    Gateway::ready(emulator, &settings).await
}

/// Says `head` over TLS, as whom the certificate proves.
async fn say_tls(
    gateway: &Gateway,
    authority: &Authority,
    own: Option<&Certified>,
    head: &[u8],
) -> String {
    let mut answers = String::new();
    for version in VERSIONS {
        let client = authority.client(own, &[version], &["http/1.1"]);
        answers += &match connect(&client, gateway.address).await {
            Ok(stream) => say(stream, head).await,
            Err(error) => format!("{error}"),
        };
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_callers_show_is_found_nowhere() {
    let made = run(&["key", "new", "keys"], &[]).await;
    let key = stdout(&made).split_whitespace().find(|word| word.starts_with("amgw_"));
    let key = key.expect("a key");
    let issuers = [(); 2].map(|()| Issuer(KeyPair::generate().expect("a key")));
    let [issuer, foreign] = &issuers;
    let folder = tempfile::tempdir().expect("a folder");
    let jwks = folder.path().join("jwks.json");
    std::fs::write(&jwks, issuer.jwks()).expect("a file");
    let good = issuer.sign("amove-gateway", "subject", 600);
    let marked = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"none\",\"kid\":\"{MARK}\"}}"));
    let tokens = [
        ("an expired token", issuer.sign("amove-gateway", "subject", -600)),
        ("a foreign token", foreign.sign("amove-gateway", "subject", 600)),
        ("a token of nobody", issuer.sign("amove-gateway", &format!("{MARK}-sub"), 600)),
        ("a token for others", issuer.sign("others", "subject", 600)),
        ("a token that is cut off", good[..good.len() - 9].to_owned()),
        ("a token without a key", format!("{marked}.{marked}.")),
        ("no token", format!("eyJ.{MARK}.{MARK}")),
        ("a good token", good),
    ];
    let authority = Authority::new();
    let [known, unknown] =
        ["known", "unknown"].map(|name| authority.certify(&format!("{MARK}-{name}"), FUTURE));
    let expired = authority.certify(&format!("{MARK}-known"), PAST);
    let foreign = Authority::new().certify(&format!("{MARK}-known"), FUTURE);
    let mut secrets = vec![("a mark", MARK.as_bytes().to_vec()), ("the key", key.into())];
    secrets.push(("part of the key", key.as_bytes()[8..32].to_vec()));
    for (what, token) in &tokens {
        secrets.extend(
            token.split('.').skip(1).filter(|it| it.len() > 20).map(|it| (*what, it.into())),
        );
    }
    for certified in [&known, &unknown, &expired, &foreign] {
        secrets.push(("a client's private key", certified.key.serialize_der()[36..68].to_vec()));
    }

    for authority in [None, Some(&authority)] {
        let emulator = emulator(Options::default()).await;
        let mut gateway = doors(&emulator, authority, key, &jwks.display().to_string()).await;
        let mut places = Vec::new();
        let mut let_in = 0;
        for (name, value) in credentials(key, &tokens) {
            let head = format!("GET {ECHO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{name}: ");
            let head = [head.as_bytes(), &value, b"\r\n\r\n"].concat();
            let answer = match authority {
                None => {
                    say(TcpStream::connect(gateway.address).await.expect("a connection"), &head)
                        .await
                }
                Some(authority) => say_tls(&gateway, authority, None, &head).await,
            };
            let_in += answer.matches("HTTP/1.1 200 ").count();
            places.push((format!("the answer to {name}"), answer));
            let Ok(field) = HeaderValue::from_bytes(&value) else { continue };
            let field = [(HeaderName::from_static(name), field)];
            let answer = match authority {
                None => {
                    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
                    say_http2(stream, &field).await
                }
                Some(authority) => {
                    let client = authority.client(None, VERSIONS, &["h2"]);
                    let stream = connect(&client, gateway.address).await.expect("a handshake");
                    say_http2(stream, &field).await
                }
            };
            places.push((format!("the answer to {name} by HTTP/2"), answer));
        }
        for head in malformed(key) {
            let answer = match authority {
                None => {
                    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
                    say(stream, head.as_bytes()).await
                }
                Some(authority) => say_tls(&gateway, authority, None, head.as_bytes()).await,
            };
            places.push((format!("the answer to {head:.30}"), answer));
        }
        if let Some(authority) = authority {
            let head = format!("GET {USERINFO} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            for (own, served) in [(&known, 2), (&unknown, 0), (&expired, 0), (&foreign, 0)] {
                let answers = say_tls(&gateway, authority, Some(own), head.as_bytes()).await;
                assert_eq!(answers.matches("HTTP/1.1 200 ").count(), served, "{answers}");
                places.push(("the answer to a certificate".to_owned(), answers));
            }
            // A key where only TLS is spoken.
            let stream = TcpStream::connect(gateway.address).await.expect("a connection");
            let head = format!("GET {ECHO} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n");
            places.push(("the answer in the clear".to_owned(), say(stream, head.as_bytes()).await));
        }
        // Key and token, in one field and in the other; TLS is spoken in two versions.
        assert_eq!(let_in, if authority.is_some() { 8 } else { 4 });
        places.extend(told_to_operators(&gateway, "").await);
        places.push(("what reached Amove".to_owned(), format!("{:?}", emulator.requests())));
        places.extend(end(&mut gateway, "TRACE").await);

        assert_eq!(found(&secrets, &places), None);
    }
}

/// The string members of JSON that are secrets, wherever they are.
fn secret_members(value: &Value, found: &mut Vec<(&'static str, Vec<u8>)>) {
    const NAMES: [&str; 6] =
        ["requestToken", "jwtToken", "session", "password", "token", "newToken"];
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match (NAMES.iter().find(|it| *it == name), value.as_str()) {
                    (Some(name), Some(text)) if text.len() > 6 => found.push((*name, text.into())),
                    _ => secret_members(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| secret_members(value, found)),
        _ => {}
    }
}

/// With a second factor there is one login: the next would have to wait for its next code.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_signs_in_with_is_found_nowhere() {
    tokio::join!(sign_in(true), sign_in(false));
}

async fn sign_in(mfa: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("sessions");
    let sealing_key = BASE64_STANDARD.encode(format!("{MARK}-sealing-key-of-32-bytes--"));
    let (api_token, admin_token) = (format!("{MARK}-api-token"), format!("{MARK}-admin-token"));
    let settings = [
        ("AMOVE_GATEWAY_TELEMETRY__LOG", "trace"),
        // Only HTTP/2 is that talkative.
        ("AMOVE_GATEWAY_UPSTREAM__HTTP2", if mfa { "always" } else { "never" }),
        ("AMOVE_GATEWAY_AUDIT__STDOUT", "true"),
        ("AMOVE_GATEWAY_SESSION_STORE__KIND", "file"),
        ("AMOVE_GATEWAY_SESSION_STORE__PATH", store.to_str().expect("text")),
        ("AMOVE_GATEWAY_SESSION_STORE__ENCRYPTION_KEY", &sealing_key),
        ("AMOVE_GATEWAY_IDENTITIES__MAIN__DEFAULT", "true"),
        ("AMOVE_GATEWAY_IDENTITIES__ROBOT__API_TOKEN", &api_token),
        ("AMOVE_GATEWAY_CALLERS__PEOPLE__IDENTITY", "main"),
        ("AMOVE_GATEWAY_CALLERS__ROBOT__IDENTITY", "robot"),
        (
            "AMOVE_GATEWAY_CALLERS__ROBOT__API_KEY_HASH",
            &format!("blake3:{}", blake3::hash(b"robot").to_hex()),
        ),
        ("AMOVE_GATEWAY_SERVER__ADMIN_TOKEN", &admin_token),
    ];
    let emulator =
        emulator(Options { mfa, token_ttl: Duration::from_secs(3600), ..Options::default() }).await;
    let mut gateway = Gateway::ready(&emulator, &settings).await;
    let mut places = Vec::new();
    let order = async |path: &str, token: &str| {
        let mut order = request("POST", path);
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("a token");
        order.headers_mut().insert("authorization", bearer);
        let answer = call(gateway.admin, order).await.expect("an answer");
        (path.to_owned(), String::from_utf8_lossy(answer.body()).into_owned())
    };
    for target in [USERINFO, "/api/v1/nowhere", "/api//x", "/api/v1/sync/get?id=nobody"] {
        let answer = get(gateway.address, target).await;
        places.push((target.to_owned(), format!("{answer:?}")));
    }
    // The emulator does not know that token: it is sent, and refused.
    let mut as_robot = request("GET", USERINFO);
    as_robot.headers_mut().insert("x-api-key", HeaderValue::from_static("robot"));
    let answer = call(gateway.address, as_robot).await.expect("an answer");
    assert_eq!(answer.status(), 502);
    places.push(("the answer to the robot".to_owned(), format!("{answer:?}")));
    if !mfa {
        emulator.inject(Fault::DeadSession { how: DeadSession::Plain, count: 1 });
        assert_eq!(get(gateway.address, USERINFO).await.status(), 200);
        places.push(order("/-/token/refresh", &admin_token).await);
        places.push(order("/-/token/refresh", &format!("{MARK}-wrong")).await);
        places.push(order("/-/token/revoke", &admin_token).await);
        let raw = |text: &str| Fault::Raw {
            text: text.into(),
            count: 1,
            host: Some(Host::Auth),
            route: None,
        };
        emulator
            .inject(raw(&format!("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n\"{MARK}-token")));
        places.push(order("/-/token/refresh", &admin_token).await);
        emulator.inject(Fault::AuthDown { on: true });
        places.push(order("/-/token/refresh", &admin_token).await);
        emulator.inject(Fault::AuthDown { on: false });
    }
    places.extend(told_to_operators(&gateway, &admin_token).await);
    let kept = std::fs::read(&store).expect("a store");
    places.push(("the store".to_owned(), String::from_utf8_lossy(&kept).into_owned()));
    places.extend(end(&mut gateway, if mfa { "TRACE" } else { "DEBUG" }).await);
    let environment = process_support::environment_with(&emulator, &settings);
    let shown = run(&["config", "show"], &process_support::borrowed(&environment)).await;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    places.push(("`config show`".to_owned(), stdout(&shown).to_owned()));

    let mut secrets = vec![
        ("a mark", MARK.as_bytes().to_vec()),
        ("the password", emulator::PASSWORD.into()),
        ("the TOTP secret", emulator::TOTP_SECRET.into()),
        ("the sealing key", sealing_key.clone().into()),
    ];
    let mut bearers = 0;
    for seen in emulator.requests() {
        if let Some(bearer) = seen.header("authorization") {
            let token = bearer.strip_prefix("Bearer ").expect("a bearer");
            secrets.extend(token.split('.').skip(1).map(|part| ("a bearer", part.into())));
            bearers += 1;
        }
        if let Ok(body) = serde_json::from_slice(&seen.body) {
            secret_members(&body, &mut secrets);
        }
    }
    assert!(bearers >= 3 && secrets.len() > 6, "secrets were in use: {}", secrets.len());
    secrets.sort();
    secrets.dedup();
    assert_eq!(found(&secrets, &places), None);
}

#[test]
fn the_settings_tell_no_secret_in_any_form() {
    let sealing_key = BASE64_STANDARD.encode(format!("{MARK}-sealing-key-of-32-bytes--"));
    let text = format!(
        "[server]\nadmin_token = \"{MARK}-admin\"\n\
         [session_store]\nkind = \"redis\"\nurl = \"redis://user:{MARK}-redis@localhost:1\"\n\
         encryption_key = \"{sealing_key}\"\n\
         [identities.main]\nusername = \"svc\"\npassword = \"{MARK}-password\"\n\
         user_type = \"AccountAdmin\"\ntotp_secret = \"{}\"\n\
         [identities.robot]\napi_token = \"{MARK}-api-token\"\n",
        emulator::TOTP_SECRET
    );
    let loaded = load_str(&text, &[]).expect("a configuration");
    let secrets = [
        ("a mark", MARK.as_bytes().to_vec()),
        ("the TOTP secret", emulator::TOTP_SECRET.into()),
        ("the sealing key", sealing_key.into()),
    ];

    let config = &loaded.config;
    let places = vec![
        ("Debug".to_owned(), format!("{config:?}")),
        ("Debug, at length".to_owned(), format!("{config:#?}")),
        ("Debug of what was loaded".to_owned(), format!("{loaded:?}")),
    ];

    assert_eq!(found(&secrets, &places), None);
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    let secret = [("a mark", MARK.as_bytes().to_vec())];
    let bytes = MARK.as_bytes();

    for text in [
        format!("key={MARK};"),
        format!("{:?}", Bytes::from_static(b"c4nary")),
        format!("{bytes:?}"),
        format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        BASE64_STANDARD.encode(format!("{MARK}=")),
        BASE64_STANDARD.encode(format!("u:{MARK}=")),
        BASE64_URL_SAFE_NO_PAD.encode(format!("u{MARK}{MARK}")),
    ] {
        let places = vec![("here".to_owned(), format!("one line\n{text}\n"))];
        assert!(
            found(&secret, &places).is_some_and(|it| it.contains("is found in here")),
            "{text}"
        );
    }
    assert_eq!(found(&secret, &vec![("there".to_owned(), "c4n4ry Q2FuYXJ5".to_owned())]), None);
}
