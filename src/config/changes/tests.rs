//! What a reload takes over, setting by setting: all of them.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use toml_edit::{DocumentMut, Item, TableLike};

use crate::config::{
    load::{Loaded, load_str},
    settings::{SETTINGS, generic},
};

const HASHES: [&str; 2] = [
    "\"blake3:1111111111111111111111111111111111111111111111111111111111111111\"",
    "\"blake3:2222222222222222222222222222222222222222222222222222222222222222\"",
];

/// Sections that need others beside them, and every setting's own way to differ.
struct Case {
    path: &'static str,
    /// What stands around it in both configurations.
    text: &'static str,
    values: [&'static str; 2],
}

const fn case(path: &'static str, text: &'static str, values: [&'static str; 2]) -> Case {
    Case { path, text, values }
}

/// Of the second identity, whose settings differ.
const USER: &str = "[identities.main]\napi_token = \"t\"\n\
    [identities.x]\nusername = \"u\"\npassword = \"p\"\nuser_type = 4\n";
const MAIN: &str = "[identities.main]\napi_token = \"t\"\n";
const REDIS: &str = "[identities.main]\napi_token = \"t\"\n\
    [session_store]\nkind = \"redis\"\nurl = \"redis://a.test\"\nencryption_key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"\n\
    [rate_limit]\nstore = \"redis\"\nurl = \"redis://a.test\"\n";
const JWT: &str = "[identities.main]\napi_token = \"t\"\n[callers.a]\njwt_subject = \"s\"\n\
    [caller_jwt]\nissuer = \"i\"\naudience = \"a\"\njwks_url = \"https://keys.test/\"\n";
const POSTGRES: &str = "[identities.main]\napi_token = \"t\"\n\
    [audit.postgres]\nurl = \"postgres://u:p@a.test/d\"\n";
const TLS: &str = "[identities.main]\napi_token = \"t\"\n[callers.a]\nsan = \"a\"\n\
    [server.tls]\ncert_file = \"{1.crt}\"\nkey_file = \"{1.key}\"\nclient_auth = \"required\"\n\
    client_ca_file = \"{1.crt}\"\n";

/// `{name}` stands for a file.
#[rustfmt::skip] // a table reads in columns
const CASES: &[Case] = &[
    case("server.listen", MAIN, ["[\"127.0.0.1:1\"]", "[\"127.0.0.1:2\"]"]),
    case("server.admin_listen", MAIN, ["\"127.0.0.1:1\"", "\"\""]),
    case("server.admin_token_file", MAIN, ["\"{a}\"", "\"{b}\""]),
    case("server.health_listen", MAIN, ["\"127.0.0.1:1\"", "\"\""]),
    case("server.workers", MAIN, ["3", "5"]),
    case("server.drain_timeout", MAIN, ["\"1s\"", "\"2s\""]),
    case("server.header_timeout", MAIN, ["\"1s\"", "\"2s\""]),
    case("server.idle_timeout", MAIN, ["\"1s\"", "\"2s\""]),
    case("server.max_header_bytes", MAIN, ["\"4KiB\"", "\"8KiB\""]),
    case("server.max_body_bytes", MAIN, ["\"4KiB\"", "\"8KiB\""]),
    case("server.max_connections", MAIN, ["3", "5"]),
    case("server.tls.cert_file", TLS, ["\"{1.crt}\"", "\"{other.crt}\""]),
    case("server.tls.key_file", TLS, ["\"{1.key}\"", "\"{other.key}\""]),
    case("server.tls.client_auth", TLS, ["\"required\"", "\"optional\""]),
    case("server.tls.client_ca_file", TLS, ["\"{1.crt}\"", "\"{other.crt}\""]),
    case("server.tls.client_crl_file", TLS, ["\"\"", "\"{1.crl}\""]),
    case("upstream.api_url", MAIN, ["\"https://a.test\"", "\"https://b.test\""]),
    case("upstream.auth_url", MAIN, ["\"https://a.test\"", "\"https://b.test\""]),
    case("upstream.ca_file", MAIN, ["\"{a}\"", "\"{b}\""]),
    case("upstream.http2", MAIN, ["\"auto\"", "\"never\""]),
    case("upstream.connect_timeout", MAIN, ["\"1s\"", "\"2s\""]),
    case("upstream.response_timeout", MAIN, ["\"1s\"", "\"2s\""]),
    case("upstream.total_timeout", MAIN, ["\"0s\"", "\"2m\""]),
    case("upstream.max_connections", MAIN, ["3", "5"]),
    case("upstream.max_connection_age", MAIN, ["\"0s\"", "\"2m\""]),
    case("upstream.adaptive", MAIN, ["true", "false"]),
    case("upstream.max_waiting", MAIN, ["3", "5"]),
    case("upstream.max_wait", MAIN, ["\"1s\"", "\"2s\""]),
    case("upstream.retry_budget", MAIN, ["0.1", "0"]),
    case("upstream.breaker_failures", MAIN, ["3", "0"]),
    case("upstream.breaker_cooldown", MAIN, ["\"1s\"", "\"2s\""]),
    case("identities.x.username", USER, ["\"u\"", "\"v\""]),
    case("identities.x.password_file", USER, ["\"{a}\"", "\"{b}\""]),
    case("identities.x.user_type", USER, ["4", "8"]),
    case("identities.x.totp_secret_file", USER, ["\"{a}\"", "\"{b}\""]),
    case("identities.main.api_token_file", MAIN, ["\"{a}\"", "\"{b}\""]),
    case("identities.x.default", USER, ["false", "true"]),
    case("identities.x.refresh_ahead", USER, ["\"20%\"", "\"1m\""]),
    case("identities.x.max_age", USER, ["\"1h\"", "\"2h\""]),
    case("identities.x.replay_buffer", USER, ["\"4KiB\"", "\"8KiB\""]),
    case("identities.x.logout_on_shutdown", USER, ["true", "false"]),
    case("session_store.kind", MAIN, ["\"memory\"", "\"file\"\npath = \"x\"\nencryption_key_file = \"{seal}\""]),
    case("session_store.path", MAIN, ["\"a\"\nkind = \"file\"\nencryption_key_file = \"{seal}\"", "\"b\"\nkind = \"file\"\nencryption_key_file = \"{seal}\""]),
    case("session_store.url", REDIS, ["\"redis://a.test\"", "\"redis://b.test\""]),
    case("session_store.ca_file", REDIS, ["\"{a}\"", "\"{b}\""]),
    case("session_store.encryption_key_file", REDIS, ["\"{seal}\"", "\"{seal2}\""]),
    case("session_store.on_error", REDIS, ["\"local\"", "\"hold\""]),
    case("callers.a.identity", "[identities.main]\napi_token = \"t\"\n[identities.x]\napi_token = \"t\"\n", ["\"main\"", "\"x\""]),
    case("callers.a.api_key_hash", MAIN, [HASHES[0], HASHES[1]]),
    case("callers.a.spiffe_id", MAIN, ["\"spiffe://a.test/x\"", "\"spiffe://a.test/y\""]),
    case("callers.a.san", MAIN, ["\"a.test\"", "\"b.test\""]),
    case("callers.a.unix_uid", MAIN, ["3", "5"]),
    case("callers.a.jwt_subject", JWT, ["\"s\"", "\"z\""]),
    case("callers.a.allow", MAIN, ["[\"* *\"]", "[\"GET *\"]"]),
    case("callers.a.deny", MAIN, ["[\"* *\"]", "[\"GET *\"]"]),
    case("callers.a.rate", MAIN, ["\"1/s\"", "\"2/s\""]),
    case("callers.a.burst", MAIN, ["3\nrate = \"1/s\"", "5\nrate = \"1/s\""]),
    case("callers.a.max_concurrent", MAIN, ["3", "5"]),
    case("caller_jwt.issuer", JWT, ["\"i\"", "\"j\""]),
    case("caller_jwt.audience", JWT, ["\"a\"", "\"b\""]),
    case("caller_jwt.jwks_url", JWT, ["\"https://keys.test/\"", "\"https://keys.test/b\""]),
    case("caller_jwt.jwks_file", JWT, ["\"\"", "\"{a}\"\njwks_url = \"\""]),
    case("caller_jwt.ca_file", JWT, ["\"{a}\"", "\"{b}\""]),
    case("caller_jwt.leeway", JWT, ["\"1s\"", "\"2s\""]),
    case("policy.unknown_routes", MAIN, ["\"allow\"", "\"deny\""]),
    case("policy.deny_tags", MAIN, ["[\"self\"]", "[]"]),
    case("policy.request_token_routes", MAIN, ["\"mint\"", "\"deny\""]),
    case("policy.allow_unauthenticated_network", MAIN, ["false", "true"]),
    case("legacy.mode", MAIN, ["\"rewrite\"", "\"reject\""]),
    case("legacy.deprecated_since", MAIN, ["\"2026-01-01\"", "\"2026-01-02\""]),
    case("legacy.sunset", MAIN, ["\"\"", "\"2036-01-02\""]),
    case("rate_limit.global", MAIN, ["\"\"", "\"2/s\""]),
    case("rate_limit.per_identity", MAIN, ["\"\"", "\"2/s\""]),
    case("rate_limit.mode", MAIN, ["\"reject\"", "\"wait\""]),
    case("rate_limit.max_wait", MAIN, ["\"1s\"\nmode = \"wait\"", "\"2s\"\nmode = \"wait\""]),
    case("rate_limit.store", MAIN, ["\"memory\"", "\"redis\"\nurl = \"redis://a.test\""]),
    case("rate_limit.url", REDIS, ["\"redis://a.test\"", "\"redis://b.test\""]),
    case("rate_limit.ca_file", REDIS, ["\"{a}\"", "\"{b}\""]),
    case("rate_limit.on_store_error", REDIS, ["\"local\"", "\"deny\""]),
    case("rate_limit.routes.\"GET user/*\".rate", MAIN, ["\"1/s\"", "\"2/s\""]),
    case("rate_limit.routes.\"GET user/*\".burst", MAIN, ["3\nrate = \"1/s\"", "5\nrate = \"1/s\""]),
    case("rate_limit.routes.\"GET user/*\".weight", MAIN, ["3", "5"]),
    case("rate_limit.headers", MAIN, ["\"ietf\"", "\"off\""]),
    case("errors.mode", MAIN, ["\"problem\"", "\"passthrough\""]),
    case("errors.status.DUPLICATE", MAIN, ["409", "422"]),
    case("audit.store", MAIN, ["\"a\"", "\"b\""]),
    case("audit.on_failure", MAIN, ["\"deny\"", "\"allow\""]),
    case("audit.durability", MAIN, ["\"batch\"", "\"sync\""]),
    case("audit.retain", MAIN, ["\"1d\"", "\"2d\""]),
    case("audit.stdout", MAIN, ["false", "true"]),
    case("audit.postgres.url_file", MAIN, ["\"{pg}\"", "\"{pg2}\""]),
    case("audit.postgres.ca_file", POSTGRES, ["\"{a}\"", "\"{b}\""]),
    case("audit.signing.key_file", MAIN, ["\"{sign}\"", "\"{sign2}\""]),
    case("telemetry.log", MAIN, ["\"info\"", "\"debug\""]),
    case("telemetry.log_format", MAIN, ["\"json\"", "\"pretty\""]),
];

/// A folder with what the cases name.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    for (name, key) in [("1", &one), ("other", &other)] {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        write(&format!("{name}.crt"), &params.self_signed(key).unwrap().pem());
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(2060, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&Issuer::new(params, key)).unwrap();
        write(&format!("{name}.crl"), &list.pem().unwrap());
        write(&format!("{name}.key"), &key.serialize_pem());
    }
    for name in ["a", "b"] {
        write(name, "JBSWY3DPEHPK3PXP\n");
    }
    write("seal", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    write("seal2", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    write("pg", "postgres://u:p@a.test/d");
    write("pg2", "postgres://u:p@b.test/d");
    for name in ["sign", "sign2"] {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        write(name, &key.serialize_pem());
    }
    folder
}

/// The configuration of `case` with one of its values.
fn loaded(case: &Case, value: &str, folder: &Path) -> Loaded {
    let (section, key) = case.path.rsplit_once('.').unwrap();
    let mut text: DocumentMut = case.text.parse().unwrap();
    let setting: DocumentMut = format!("[{section}]\n{key} = {value}\n").parse().unwrap();
    merge(text.as_table_mut(), setting.as_table());
    if section == "server.tls" && value.contains("other") && key != "client_ca_file" {
        // A certificate goes with its key.
        text["server"]["tls"]["cert_file"] = toml_edit::value("{other.crt}");
        text["server"]["tls"]["key_file"] = toml_edit::value("{other.key}");
    }
    let text = text.to_string();
    let folder = folder.display().to_string();
    let text = text.replace("\"{", &format!("\"{folder}/")).replace('}', "");
    load_str(&text, &[]).unwrap_or_else(|report| panic!("{}: {text}\n{report}", case.path))
}

/// Puts the settings of `from` in the place of those in `into`, and of their other form.
fn merge(into: &mut dyn TableLike, from: &dyn TableLike) {
    for (name, item) in from.iter() {
        match (into.get_mut(name).and_then(Item::as_table_like_mut), item.as_table_like()) {
            (Some(into), Some(from)) => merge(into, from),
            _ => {
                into.remove(name.trim_end_matches("_file"));
                into.insert(name, item.clone());
            }
        }
    }
}

#[test]
fn every_setting_is_taken_over_or_named() {
    let folder = files();
    for case in CASES {
        let [before, after] = case.values.map(|value| loaded(case, value, folder.path()));
        let generic = generic(&case.path.replace('"', ""));
        let setting = SETTINGS.iter().find(|setting| setting.path == generic).expect(case.path);
        let (then, now) = (format!("{:?}", before.config), format!("{:?}", after.config));

        let (in_force, changes) = after.after(&before);

        let config = format!("{:?}", in_force.config);
        let path = case.path;
        if setting.at_start {
            assert_eq!(config, then, "{path} is kept");
            assert!(changes.at_start().any(|name| name == path), "{path}: {changes:?}");
            assert_eq!(changes.taken().count(), 0, "{path}: {changes:?}");
            assert_eq!(in_force.show(), before.show());
        } else {
            assert_ne!(then, now, "{path} makes a difference");
            assert_eq!(config, now, "{path} is taken over");
            let section = path.rsplit_once('.').unwrap().0;
            let is_named = |name: &str| name == path || name == section;
            assert!(changes.taken().any(is_named), "{path}: {changes:?}");
            assert_eq!(changes.at_start().count(), 0, "{path}: {changes:?}");
        }
    }
    let known: Vec<_> = CASES.iter().map(|case| generic(&case.path.replace('"', ""))).collect();
    let all: Vec<_> = SETTINGS.iter().map(|setting| setting.path.to_owned()).collect();
    assert_eq!(known, all, "each setting has its case");
}

const IDENTITY: &str = "[identities.main]\napi_token = \"t\"\n";

fn changes(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let load = |text: &str| load_str(&format!("{IDENTITY}{text}"), &[]).expect("a configuration");
    let (_, changes) = load(after).after(&load(before));
    (changes.taken().map(str::to_owned).collect(), changes.at_start().map(str::to_owned).collect())
}

#[test]
fn what_comes_or_goes_is_told_by_its_section_and_what_differs_by_its_setting() {
    let (a, b) = ("[callers.a]\nrate = \"1/s\"\nburst = 3\n", "[callers.\"b b\"]\nsan = \"x\"\n");

    assert_eq!(changes(a, a).0, Vec::<String>::new());
    assert_eq!(changes(a, &format!("{a}{b}")).0, ["callers.\"b b\""]);
    assert_eq!(changes(&format!("{a}{b}"), a).0, ["callers.\"b b\""]);
    assert_eq!(changes(a, &a.replace("3", "4")).0, ["callers.a.burst"]);
    let both = changes("", "[server]\nworkers = 7\nidle_timeout = \"1s\"\n");
    assert_eq!(both, (vec!["server.idle_timeout".to_owned()], vec!["server.workers".to_owned()]));
}

#[test]
fn another_default_identity_is_told_also_when_only_the_order_has_changed() {
    let (x, y) = ("[identities.x]\napi_token = \"x\"\n", "[identities.y]\napi_token = \"y\"\n");
    let load = |text: String| load_str(&text, &[]).expect("a configuration");

    let (_, changes) = load(format!("{y}{x}")).after(&load(format!("{x}{y}")));

    assert_eq!(changes.taken().collect::<Vec<_>>(), ["identities.y.default"]);
}

#[test]
fn a_value_that_was_kept_is_named_again_until_it_is_put_back() {
    let load = |workers: u32| {
        load_str(&format!("{IDENTITY}[server]\nworkers = {workers}\n"), &[]).expect("it loads")
    };

    let (in_force, first) = load(3).after(&load(2));
    let (in_force, second) = load(3).after(&in_force);
    let (in_force, third) = load(2).after(&in_force);

    assert_eq!(in_force.config.server.workers, 2);
    for (changes, expected) in [(first, 1), (second, 1), (third, 0)] {
        assert_eq!(changes.at_start().count(), expected, "{changes:?}");
    }
}

#[test]
fn tls_is_neither_switched_on_nor_off_but_its_files_change() {
    let folder = files();
    let case = case("server.tls.cert_file", TLS, ["\"{1.crt}\"", "\"{other.crt}\""]);
    let [one, other] = case.values.map(|value| loaded(&case, value, folder.path()));
    let plain = || load_str(&format!("{IDENTITY}[callers.a]\nsan = \"a\"\n"), &[]).unwrap();

    let (off, changes) = plain().after(&one);
    assert!(off.config.server.tls.is_some() && off.show().contains("cert_file"));
    assert_eq!(changes.at_start().collect::<Vec<_>>(), ["server.tls"]);
    let (on, changes) = one.after(&plain());
    assert!(on.config.server.tls.is_none() && !on.show().contains("cert_file"));
    assert_eq!(changes.at_start().collect::<Vec<_>>(), ["server.tls"]);
    let again = loaded(&case, case.values[0], folder.path());
    let (moved, changes) = other.after(&again);
    assert!(changes.touch("server.tls") && !changes.touch("server.tl"), "{changes:?}");
    assert_eq!(changes.at_start().count(), 0);
    assert!(moved.show().contains("other.crt"));
}

#[test]
fn other_roots_in_the_same_file_are_a_change_and_so_is_another_secret_that_is_read_once() {
    let folder = files();
    let path = folder.path().join("file");
    let url = folder.path().join("url");
    let load = |roots: &str, redis: &str| {
        std::fs::write(&path, roots).unwrap();
        std::fs::write(&url, redis).unwrap();
        let text = format!(
            "{IDENTITY}[upstream]\nca_file = {path:?}\n[rate_limit]\nstore = \"redis\"\nurl_file = {url:?}\n"
        );
        load_str(&text, &[]).expect("a configuration")
    };
    let before = load("one", "redis://a.test");

    let (_, changes) = load("two", "redis://b.test").after(&before);

    assert_eq!(changes.taken().collect::<Vec<_>>(), ["upstream.ca_file"]);
    assert_eq!(changes.at_start().collect::<Vec<_>>(), ["rate_limit.url_file"]);
    assert!(!format!("{before:?}").contains("redis://"));
}
