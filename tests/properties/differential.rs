//! What the gateway has decided about is what ASP.NET Core would serve.

use std::sync::{Arc, Mutex};

use amove_gateway::{
    amove::catalogue::{Catalogue, Lookup, Route},
    amove::paths,
    config::{Legacy, LegacyMode},
    exchange::{Arrival, Exchange},
    message::{Body, Peer, Request, Response},
    middleware::{Answer, Middleware, Next, find_route::FindRoute},
};
use futures_util::FutureExt;
use http::{HeaderMap, Method, Uri, uri::PathAndQuery};
use proptest::{prelude::*, sample::select, test_runner::TestCaseResult};

use crate::{
    aspnet::{endpoint, request_path},
    corpus::{check, explore, lines, mutants},
    paths::WORDS,
    support::TestGateway,
};

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "delete", "Post"];

/// What goes on to the API, and the route whose rules it was measured by.
#[derive(Debug)]
struct Forwarded {
    path: String,
    route: Option<&'static Route>,
}

/// What the layer that finds routes makes of a request; nothing if it refuses it.
fn forwarded(method: &str, path: &str) -> Option<Forwarded> {
    struct Api(Mutex<Option<String>>);

    impl Next for Api {
        async fn run(&self, _: &Arc<Exchange>, request: Request) -> Answer {
            *self.0.lock().expect("a lock") = Some(request.uri().path().to_owned());
            Ok(Response::new(Body::empty()))
        }
    }

    let target = PathAndQuery::try_from(path).ok()?;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from(target);
    let arrival = Arrival { peer: Peer::Unix { uid: None }, origin: "unix".into(), refusal: None };
    let exchange = Exchange::open(request.method(), &HeaderMap::new(), arrival);
    let deprecated_since = jiff::civil::date(2026, 1, 1);
    let layer =
        FindRoute::new(&Legacy { mode: LegacyMode::Rewrite, deprecated_since, sunset: None });
    let api = Api(Mutex::default());

    let answer = layer.handle(&exchange, request, &api).now_or_never();

    answer.expect("it waits for nothing").ok()?;
    let path = api.0.into_inner().expect("a lock").expect("what was answered was sent on");
    Some(Forwarded { path, route: exchange.destination().expect("a destination").route })
}

/// Makes another path of a path.
type Reader = fn(&str) -> String;

/// What somebody between us and the API, or another server in its place, may make of a path before
/// it is read as documented.
const READERS: [(&str, Reader); 9] = [
    ("as documented", str::to_owned),
    ("escaped slashes are slashes", |path| path.replace("%2f", "/").replace("%2F", "/")),
    ("backslashes are slashes", |path| {
        path.replace("%5c", "/").replace("%5C", "/").replace('\\', "/")
    }),
    ("decoded twice", |path| path.replace("%25", "%")),
    ("parameters are cut off", |path| {
        let path = path.replace("%3b", ";").replace("%3B", ";");
        let names = path.split('/').map(|name| name.split(';').next().unwrap_or_default());
        names.collect::<Vec<_>>().join("/")
    }),
    ("slashes are merged", |path| {
        let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
        format!("/{}", names.join("/"))
    }),
    ("dots and spaces are cut off", |path| {
        let path = path.replace("%20", " ").replace("%2e", ".").replace("%2E", ".");
        let names: Vec<_> = path.split('/').map(|name| name.trim_end_matches(['.', ' '])).collect();
        names.join("/").replace(' ', "%20")
    }),
    ("a NUL ends it", |path| path.split("%00").next().unwrap_or_default().to_owned()),
    ("overlong escapes are decoded", |path| {
        let path = path.replace("%c0%ae", ".").replace("%C0%AE", ".");
        path.replace("%c0%af", "/").replace("%C0%AF", "/").replace("%e0%80%af", "/")
    }),
];

/// Letters that fold into one of ASCII somewhere: with the tables of Unicode, in Windows, in NFKC.
fn folded(path: &str) -> String {
    let fold = |letter: char| match letter {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(letter) - 0xfee0).unwrap_or(letter),
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        '\u{130}' | '\u{131}' => 'i',
        '\u{2024}' => '.',
        '\u{2044}' | '\u{2215}' | '\u{29f8}' => '/',
        '\u{2216}' | '\u{29f9}' => '\\',
        letter => letter,
    };
    path.chars().map(fold).collect()
}

/// How many segments a path has.
fn depth(path: &str) -> usize {
    path.trim_end_matches('/').matches('/').count()
}

fn holds(method: &str, path: &str) -> TestCaseResult {
    let Some(Forwarded { path, route }) = forwarded(method, path) else { return Ok(()) };
    let ours = route.map(|route| (&route.method, route.template));

    for (reader, read) in READERS {
        // What is refused there does no harm.
        let Some(seen) = request_path(&read(&path)) else { continue };
        for seen in [folded(&seen), seen] {
            let theirs = endpoint(method, &seen).map(|route| (&route.method, route.template));
            prop_assert!(theirs.is_none() || theirs == ours, "{reader}: {path} is {theirs:?}");
        }
    }

    // Nor is a route found that nobody would serve, but for what lies below one.
    let seen = request_path(&path).expect("what is forwarded is a path");
    if let Some(route) = route
        && depth(&seen) == depth(route.template)
    {
        let theirs = endpoint(method, &seen).map(|route| route.template);
        prop_assert_eq!(theirs, Some(route.template), "{}", path);
    }
    Ok(())
}

#[test]
fn what_was_decided_about_is_what_is_served() {
    for method in METHODS {
        explore(700, lines("paths"), WORDS, |bytes| match std::str::from_utf8(bytes) {
            Ok(path) => holds(method, path),
            Err(_) => Ok(()),
        });
    }
}

/// A documented path with something hostile in it.
fn spoilt() -> impl Strategy<Value = (&'static str, String)> {
    let route = select(Catalogue::get().routes().iter().collect::<Vec<_>>());
    let inserted = prop::collection::vec((any::<prop::sample::Index>(), select(WORDS)), 0..4);
    (route, inserted, select(&METHODS[..]), any::<bool>(), any::<bool>()).prop_map(
        |(route, inserted, method, is_own, is_legacy)| {
            let mut path = route.template.replace(['{', '}'], "");
            if is_legacy {
                path = path.replacen("/v1/", "/", 1);
            }
            for (at, word) in inserted {
                let at = at.index(path.len() + 1);
                if path.is_char_boundary(at) {
                    path.insert_str(at, word);
                }
            }
            (if is_own { route.method.as_str() } else { method }, path)
        },
    )
}

#[test]
fn so_is_every_documented_path_with_something_in_it() {
    check(2_500, &spoilt(), |(method, path)| holds(method, &path));
}

#[test]
fn every_documented_path_is_found_by_both() {
    for route in Catalogue::get().routes() {
        let method = route.method.as_str();
        let path = route.template.replace(['{', '}'], "");
        let seen = request_path(&path).expect("a path");

        assert!(endpoint(method, &seen).is_some_and(|own| std::ptr::eq(own, route)), "{path}");
        let place = paths::read(&path).expect("a path");
        let found = Catalogue::get().find(&route.method, &place.key);
        assert!(matches!(found, Lookup::Found(own) if std::ptr::eq(own, route)), "{path}");
    }
}

/// The same over sockets: every seed and some mutants, before an API that notes what it sees.
#[test]
fn so_it_is_on_the_wire() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let gateway = runtime.block_on(async { TestGateway::without_mfa("").await.logged_in().await });
    let property = |bytes: &[u8], is_good: bool| {
        // What is no line of its own would be another test: see `tests/hostile`.
        let is_line = |byte: &u8| *byte > b' ' && !matches!(byte, b'?' | b'#');
        if bytes.is_empty() || !bytes.iter().all(is_line) || bytes.len() > 4096 {
            return Ok(());
        }
        let head = [b"GET ", bytes, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat();

        let answer = runtime.block_on(gateway.raw(&head));

        prop_assert!(answer.starts_with(b"HTTP/1.1 "), "{}", answer.escape_ascii());
        let seen: Vec<_> = gateway.seen().into_iter().map(|seen| seen.target).collect();
        gateway.amove.forget_requests();
        let expected = std::str::from_utf8(bytes).ok().and_then(|path| forwarded("GET", path));
        match (&seen[..], expected) {
            ([], Some(_)) if is_good => prop_assert!(false, "{}", answer.escape_ascii()),
            // The listener refuses more than the layer does.
            ([], _) => {}
            ([target], Some(Forwarded { path, route })) => {
                prop_assert_eq!(target, &path);
                let seen = request_path(target).expect("what is forwarded is a path");
                let theirs = endpoint("GET", &seen).map(|route| route.template);
                let ours = route.map(|route| route.template);
                prop_assert!(theirs.is_none() || theirs == ours, "{target}: {theirs:?}, {ours:?}");
            }
            (seen, expected) => prop_assert!(false, "{seen:?}, but {expected:?}"),
        }
        Ok(())
    };
    for (name, seed) in lines("paths") {
        property(&seed, name.starts_with("good")).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    check(192, &mutants(lines("paths"), WORDS), |input| property(&input.0, false));
    runtime.block_on(gateway.drain());
}
