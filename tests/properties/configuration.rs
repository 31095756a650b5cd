//! The configuration: any text is taken or refused with a report that helps and gives nothing away.

use amove_gateway::config::{
    Changes,
    load::{Loaded, load_str},
    report::Report,
};
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};

use crate::corpus::{Seed, check, explore, seeds};

const REFERENCE: &str = include_str!("../../config/gateway.toml");

/// An identity, so that a text can be about something else.
const IDENTITY: &str = "[identities.main]\napi_token = \"token\"\n";

/// Pieces of TOML, and settings.
const WORDS: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    "\"",
    "'''",
    "\"\"\"",
    "\n",
    "\r\n",
    "\r",
    "#",
    ",",
    ".",
    "\\",
    "\\u0000",
    "\\uD800",
    "\u{feff}",
    "\0",
    "é",
    "\u{2028}",
    "true",
    "1e999",
    "nan",
    "-1",
    "0",
    "0x7f",
    "99999999999999999999",
    "9223372036854775807",
    "1979-05-27T07:32:00Z",
    "\"-1s\"",
    "\"1h1h\"",
    "\"99999999999999h\"",
    "\"18446744073709551615B\"",
    "\"17179869184GiB\"",
    "\"0/s\"",
    "\"4294967296/s\"",
    "\"unix:\"",
    "\"unix:/\"",
    "\"[::]:0\"",
    "\"127.0.0.1:99999\"",
    "\"200%\"",
    "\"NaN%\"",
    "\"blake3:\"",
    "[server]\n",
    "[server.tls]\n",
    "[upstream]\n",
    "[identities.main]\n",
    "[identities.\"a.b\"]\n",
    "[callers.x]\n",
    "[callers.\"x.y\"]\n",
    "[errors.status]\n",
    "[rate_limit.routes.\"GET user/*\"]\n",
    "listen = ",
    "password = ",
    "api_url = ",
    "rate = ",
    "user_type = ",
    "allow = ",
    "deny = ",
    "status = ",
    "log = ",
    "retain = ",
    "sunset = ",
    "workers = ",
];

fn text_seeds() -> Vec<Seed> {
    let mut all = seeds("configuration");
    all.push(("gateway.toml".to_owned(), REFERENCE.as_bytes().to_vec()));
    all.push(("sidecar.toml".to_owned(), include_bytes!("../../config/sidecar.toml").to_vec()));
    // The reference with its examples, which are comments.
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_alphanumeric()) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let whole: Vec<_> = REFERENCE.lines().map(uncommented).collect();
    all.push(("examples".to_owned(), whole.join("\n").into_bytes()));
    all
}

/// What `config show` prints, without where it comes from.
fn body(loaded: &Loaded) -> Vec<String> {
    let shown = loaded.show();
    let lines = shown.lines().map(|line| line.rsplit_once("  # ").map_or(line, |it| it.0));
    lines.map(str::to_owned).collect()
}

/// What a configuration means: names stand in another order when it is printed, and elsewhere, and
/// that means nothing but which identity is the default.
fn meaning(loaded: &Loaded) -> String {
    let mut config = loaded.config.clone();
    let names: Vec<_> = config.identities.iter().map(|identity| identity.name.clone()).collect();
    if let [_, others @ ..] = &mut config.identities[..] {
        others.sort_by_key(|identity| identity.name.clone());
    }
    config.callers.sort_by_key(|caller| caller.name.clone());
    let mut of = String::new();
    for caller in &mut config.callers {
        of.push_str(&format!(
            "{} is {}, ",
            caller.name,
            names[std::mem::take(&mut caller.identity)]
        ));
        let rules = caller.allow.iter_mut().flatten().chain(&mut caller.deny);
        rules.for_each(|rule| rule.place = None);
    }
    format!("{of}{config:?}")
}

/// Findings that are about no line: something is missing, or a default is in somebody's way.
fn has_no_place(message: &str) -> bool {
    message.starts_with("there is no identity")
        || message.contains("has a name that is empty, too long or not printable")
        || message.contains(" lacks `")
        || message.contains("cannot be used: ")
        || message.starts_with("configuration cannot be read")
        || message.starts_with("the settings cannot be put together")
}

fn helps(report: &Report, text: &str) -> TestCaseResult {
    prop_assert!(!report.is_empty());
    let rendered = report.render(false);
    prop_assert!(!report.render(true).is_empty());
    let lines = text.split('\n').count();
    let mut places = Vec::new();
    for line in rendered.lines() {
        if let Some(message) = line.strip_prefix("error: ") {
            places.push((message.to_owned(), None));
        } else if let Some((_, place)) = line.split_once("--> configuration:")
            && let Some((_, found)) = places.last_mut()
        {
            *found = place.split(':').next().and_then(|line| line.parse::<usize>().ok());
        }
    }
    // The last line only counts them.
    let (count, _) = places.pop().expect("a count");
    prop_assert!(count.starts_with("the configuration cannot be used: "), "{rendered}");
    prop_assert!(places.len() >= report.len(), "{rendered}");
    for (message, place) in places {
        match place {
            Some(line) => prop_assert!((1..=lines + 1).contains(&line), "{message}: {line}"),
            None => prop_assert!(has_no_place(&message), "{rendered}"),
        }
    }
    Ok(())
}

fn holds(input: &[u8]) -> TestCaseResult {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
    // A file that is named would be read, and what is at `/dev` would never end.
    if text.contains("/dev/") || text.contains("/proc/") {
        return Ok(());
    }
    let loaded = match load_str(text, &[]) {
        Ok(loaded) => loaded,
        Err(report) => return helps(&report, text),
    };

    // What it prints is read as the same.
    let shown = loaded.show();
    let again = load_str(&shown, &[]);
    let again = again.map_err(|report| TestCaseError::fail(format!("{report}\n{shown}")))?;
    prop_assert_eq!(body(&loaded), body(&again));
    // Secrets aside, which are not printed, so is what it means.
    if !shown.contains("\"***\"") || !text.contains("_file") {
        prop_assert_eq!(meaning(&loaded), meaning(&again));
    }
    // The same text once more changes nothing.
    let once_more = load_str(text, &[]).expect("the same configuration");
    prop_assert_eq!(once_more.after(&loaded).1, Changes::default());
    Ok(())
}

#[test]
fn any_text_is_taken_or_refused() {
    explore(400, text_seeds(), WORDS, holds);
}

#[test]
fn with_an_identity_it_is_taken_more_often() {
    let with_identity = |(name, mut text): Seed| {
        text.extend_from_slice(b"\n[identities.fuzzed]\napi_token = \"token\"\n");
        (name, text)
    };
    explore(300, text_seeds().into_iter().map(with_identity).collect(), WORDS, holds);
}

/// One setting with a value that may suit it.
fn settings() -> impl Strategy<Value = String> {
    let name = || {
        prop_oneof![
            4 => "[a-z]{1,8}",
            1 => "\"[a-z. é\\-]{1,8}\"",
            1 => "\"\\\\\"[a-z]\\\\\\\\\"",
            1 => Just("\"\"".to_owned()),
        ]
    };
    let text = || "\"[ -!#-\\[\\]-~é]{0,12}\"";
    let duration = || "\"[0-9]{1,4}(ms|s|m|h|d)\"";
    let size = || "(\"[0-9]{1,4}(KiB|MiB|B)\"|[0-9]{1,6})";
    let number = || "[0-9]{1,5}";
    let rule = select(vec!["* *", "GET user/*", "@costs", "POST user/reset_password", "* /api/rm"]);
    let rules = prop::collection::vec(rule, 0..3).prop_map(|rules| format!("{rules:?}"));
    prop_oneof![
        ("(drain|header|idle)_timeout", duration()).prop_map(|(key, value)| format!("[server]\n{key} = {value}\n")),
        ("max_(header|body)_bytes", size()).prop_map(|(key, value)| format!("[server]\n{key} = {value}\n")),
        ("workers|max_connections", number()).prop_map(|(key, value)| format!("[server]\n{key} = {value}\n")),
        ("connect_timeout|response_timeout|breaker_cooldown", duration())
            .prop_map(|(key, value)| format!("[upstream]\n{key} = {value}\n")),
        "0\\.[0-9]{1,17}|1|0|1e-[0-9]{1,2}".prop_map(|value| format!("[upstream]\nretry_budget = {value}\n")),
        "https://[a-z]{1,5}\\.test(:[0-9]{1,5})?/?".prop_map(|url| format!("[upstream]\napi_url = \"{url}\"\n")),
        (name(), text()).prop_map(|(name, text)| format!("[identities.{name}]\napi_token = {text}\n")),
        (name(), text(), "[1248]").prop_map(|(name, text, role)| {
            format!("[identities.{name}]\nusername = {text}\npassword = {text}\nuser_type = {role}\n")
        }),
        (name(), duration(), "[0-9]{1,2}%").prop_map(|(name, age, ahead)| {
            format!("[identities.{name}]\napi_token = \"t\"\nmax_age = {age}\nrefresh_ahead = \"{ahead}\"\n")
        }),
        (name(), rules.clone(), rules).prop_map(|(name, allow, deny)| {
            format!("[callers.{name}]\nallow = {allow}\ndeny = {deny}\n")
        }),
        (name(), "[0-9]{1,4}/[smh]", number()).prop_map(|(name, rate, burst)| {
            format!("[callers.{name}]\nrate = \"{rate}\"\nburst = {burst}\nunix_uid = {burst}\n")
        }),
        (name(), text()).prop_map(|(name, san)| format!("[callers.{name}]\nsan = {san}\n")),
        ("[A-Z_]{1,9}|\"[a-z.\\-]{1,9}\"", "[1-6][0-9]{2}")
            .prop_map(|(code, status)| format!("[errors.status]\n{code} = {status}\n")),
        ("global|per_identity", "[0-9]{1,4}/[smh]").prop_map(|(key, rate)| format!("[rate_limit]\n{key} = \"{rate}\"\n")),
        ("@costs|GET user/\\*|POST transfer/transfer", number())
            .prop_map(|(route, weight)| format!("[rate_limit.routes.\"{route}\"]\nweight = {weight}\n")),
        "20[0-9]{2}-(0[1-9]|1[0-2])-[0-3][0-9]".prop_map(|date| format!("[legacy]\nsunset = \"{date}\"\n")),
        "(info|debug|warn)(,[a-z]{1,5}=(info|trace))?".prop_map(|log| format!("[telemetry]\nlog = \"{log}\"\n")),
    ]
}

#[test]
fn what_is_printed_is_read_as_the_same() {
    check(150, &prop::collection::vec(settings(), 1..5), |settings| {
        // A table that is there twice is no TOML, which is another test's business.
        let mut text = IDENTITY.to_owned();
        for setting in settings {
            let (section, _) = setting.split_once('\n').expect("two lines");
            if !text.contains(section) {
                text.push_str(&setting);
            }
        }
        holds(text.as_bytes())
    });
}

/// A secret whose name is misspelt is still one.
#[test]
fn no_report_gives_a_secret_away() {
    const CANARY: &str = "c4n4ry";
    let secrets = vec![
        ("identities.main", "password"),
        ("identities.main", "totp_secret"),
        ("identities.main", "api_token"),
        ("server", "admin_token"),
        ("session_store", "encryption_key"),
        ("session_store", "url"),
        ("rate_limit", "url"),
        ("audit.postgres", "url"),
        ("audit.signing", "key"),
    ];
    let edit = (any::<prop::sample::Index>(), "[a-z_]", 0_u8..5);
    let quote = select(vec!["\"", "'", "\"\"\"", "'''"]);
    let spoil = select(WORDS);
    check(600, &(select(secrets), edit, quote, spoil, any::<bool>()), |case| {
        let ((section, key), (at, letter, how), quote, spoil, is_spoilt) = case;
        let mut key: Vec<char> = key.chars().collect();
        let at = at.index(key.len());
        let letter = letter.chars().next().expect("a letter");
        match how {
            0 => drop(key.remove(at)),
            1 => key.insert(at, letter),
            2 => key[at] = letter,
            3 if at > 0 => key.swap(at - 1, at),
            _ => {}
        }
        let key: String = key.into_iter().collect();
        let mut text =
            format!("[{section}]\n{key} = {quote}{CANARY}{quote}\n[server]\nwrong = 1\n");
        if is_spoilt {
            text.push_str(spoil);
        }
        // With this name, it is the name of a file.
        if key.ends_with("_file") || key.is_empty() {
            return Ok(());
        }

        let report = load_str(&text, &[]).expect_err("a report");

        let (plain, debug) = (report.render(false), format!("{report:?}"));
        prop_assert!(!plain.contains(CANARY) && !debug.contains(CANARY), "{text}\n{plain}");
        Ok(())
    });
}
