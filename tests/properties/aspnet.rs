//! How ASP.NET Core finds the endpoint for a request: a slow model, to compare the gateway with.
//!
//! Written from the documentation ("Routing in ASP.NET Core", "Kestrel", "URL Rewriting") and from
//! the behaviour of dotnet/aspnetcore, in our own words:
//!
//! - `src/Servers/Kestrel/Core/src/Internal/Http/PathDecoder.cs`, `src/Shared/UrlDecoder`: a path is
//!   decoded once, before its dot segments are removed. `%2F` stays what it is; so do escapes that
//!   are not UTF-8 (overlong, cut off, surrogates, beyond the end). A NUL is refused. `+` and `;`
//!   mean nothing.
//! - `src/Shared/PathNormalizer`: dot segments as RFC 3986 section 5.2.4 removes them.
//! - `src/Http/Routing/src/Matching/FastPathTokenizer.cs`, `DfaMatcher.cs`: segments lie between
//!   slashes; one slash at the end is ignored, every other empty segment is a segment. Names are
//!   compared without their case; a parameter takes any segment that is not empty; a name wins over
//!   a parameter.
//! - `HttpMethodMatcherPolicy.cs`: methods are compared without their case, and HEAD is not GET.
//!
//! The model knows nothing of `amove::paths` but the table of routes, which are facts of the API.

use amove_gateway::amove::catalogue::{Catalogue, Route, Tags};

/// What Kestrel makes of the path of a request in origin form; nothing where it answers 400.
pub(crate) fn request_path(path: &str) -> Option<String> {
    // Only origin form is sent to the API; its path has only ASCII that is visible.
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let decoded = unescape(path.as_bytes())?;
    Some(String::from_utf8_lossy(&without_dots(&decoded)).into_owned())
}

/// Each escape decoded, once. What is no escape, `%2F`, and what is not UTF-8 stays as it is.
fn unescape(path: &[u8]) -> Option<Vec<u8>> {
    let (mut decoded, mut at) = (Vec::new(), 0);
    while let Some(&byte) = path.get(at) {
        match escape_at(path, at) {
            None => {
                decoded.push(byte);
                at += 1;
            }
            Some(0) => return None,
            Some(first) if first.is_ascii() => {
                decoded.push(first);
                at += 3;
            }
            Some(first) => {
                let (bytes, is_whole) = character_at(path, at, first);
                let end = at + 3 * bytes.len();
                if is_whole {
                    decoded.extend(bytes)
                } else {
                    decoded.extend(&path[at..end])
                }
                at = end;
            }
        }
    }
    Some(decoded)
}

/// The byte that is escaped at `at`, unless it is a slash.
fn escape_at(path: &[u8], at: usize) -> Option<u8> {
    let [b'%', digits @ ..] = path.get(at..at + 3)? else { return None };
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (byte != b'/').then_some(byte)
}

/// The escaped bytes at `at` as far as they can be one character, and whether they are a whole one.
fn character_at(path: &[u8], at: usize, first: u8) -> (Vec<u8>, bool) {
    let length = match first {
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        _ => return (vec![first], false),
    };
    let mut bytes = vec![first];
    while bytes.len() < length {
        match escape_at(path, at + 3 * bytes.len()) {
            Some(byte @ 0x80..0xc0) => bytes.push(byte),
            _ => return (bytes, false),
        }
        // Surrogates, and what lies beyond the last character, end at their second byte.
        if matches!(bytes[..], [0xed, 0xa0..=0xbf] | [0xf4, 0x90..=0xbf] | [0xf5..=0xf7, _]) {
            bytes.pop();
            return (bytes, false);
        }
    }
    let is_whole = std::str::from_utf8(&bytes).is_ok();
    (bytes, is_whole)
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let segments: Vec<_> = path.split(|byte| *byte == b'/').skip(1).collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        match *segment {
            b"." => {}
            b".." => drop(kept.pop()),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push(b"");
        }
    }
    let mut path = Vec::new();
    for segment in kept {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// The segments that routing sees.
fn segments(path: &str) -> Vec<&str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments: Vec<_> = path.split('/').collect();
    if segments.last().is_some_and(|last| last.is_empty()) {
        segments.pop();
    }
    segments
}

/// The documented route that a request ends up at whose path Kestrel has read.
///
/// Each is also mounted without a version (the alias of contract section 5). The hub is mounted
/// with its handshake, and answers three methods.
pub(crate) fn endpoint(method: &str, path: &str) -> Option<&'static Route> {
    let asked = segments(path);
    let mut best: Option<(usize, &'static Route)> = None;
    for route in Catalogue::get().routes() {
        let is_hub = route.tags.contains(Tags::REALTIME);
        let methods: &[&str] =
            if is_hub { &["GET", "POST", "DELETE"] } else { &[route.method.as_str()] };
        if !methods.iter().any(|own| own.eq_ignore_ascii_case(method)) {
            continue;
        }
        let handshake = format!("{}/negotiate", route.template);
        let alias = route.template.replacen("/v1/", "/", 1);
        let templates =
            if is_hub { [route.template, &handshake] } else { [route.template, &alias] };
        for template in templates {
            if let Some(names) = fits(&segments(template), &asked)
                && best.is_none_or(|(most, _)| names > most)
            {
                best = Some((names, route));
            }
        }
    }
    best.map(|(_, route)| route)
}

/// How many names a template has, if it fits.
fn fits(template: &[&str], asked: &[&str]) -> Option<usize> {
    if template.len() != asked.len() {
        return None;
    }
    let mut names = 0;
    for (own, asked) in template.iter().zip(asked) {
        let is_parameter = own.starts_with('{');
        let fits = if is_parameter { !asked.is_empty() } else { own.eq_ignore_ascii_case(asked) };
        if !fits {
            return None;
        }
        names += usize::from(!is_parameter);
    }
    Some(names)
}

#[test]
fn documented_paths_are_read_as_documented() {
    for (path, expected) in [
        // Decoded once; letters that need no escape are the same with one.
        ("/", "/"),
        ("/%41", "/A"),
        ("/a%20b", "/a b"),
        ("/%C3%A9", "/é"),
        ("/%E2%82%AC", "/€"),
        ("/%F0%9F%98%80", "/😀"),
        ("/%2541", "/%41"),
        ("/%25252F", "/%252F"),
        // An escaped slash stays escaped, whatever its letters.
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2fb"),
        ("/..%2f..%2fa", "/..%2f..%2fa"),
        // Neither a plus nor a semicolon nor a backslash means anything.
        ("/a+b", "/a+b"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/a%5Cb", "/a\\b"),
        ("/a%3Fb%23c", "/a?b#c"),
        // What is no escape, or is not UTF-8, stays as it is.
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%zz", "/%zz"),
        ("/%u002e", "/%u002e"),
        ("/%C0%AE", "/%C0%AE"),
        ("/%C0%AF", "/%C0%AF"),
        ("/%E0%80%AF", "/%E0%80%AF"),
        ("/%ED%A0%80", "/%ED%A0%80"),
        ("/%F4%90%80%80", "/%F4%90%80%80"),
        ("/%80", "/%80"),
        ("/%FF", "/%FF"),
        ("/%E2%82", "/%E2%82"),
        ("/%E2%82%41", "/%E2%82A"),
        ("/%C3%2F", "/%C3%2F"),
        // Dot segments, after decoding.
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E/b", "/a/b"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/..", "/"),
        ("/.", "/"),
        ("/...", "/..."),
        ("/a/.../b", "/a/.../b"),
        ("/.a/..b/c..", "/.a/..b/c.."),
        ("/a//../b", "/a/b"),
        ("//a", "//a"),
        ("/a//b//", "/a//b//"),
    ] {
        assert_eq!(request_path(path).as_deref(), Some(expected), "{path}");
    }
    for refused in ["", "a", "*", "/\u{0}", "/%00", "/a%00b", "/é", "/a b"] {
        assert_eq!(request_path(refused), None, "{refused:?}");
    }
}

#[test]
fn documented_routes_are_found_as_documented() {
    let template = |method, path| endpoint(method, path).map(|route| route.template);
    let userinfo = Some("/api/v1/user/userinfo");
    let of_user = Some("/api/v1/fastrsettings/get_all/{userId}");

    for (method, path, expected) in [
        ("GET", "/api/v1/user/userinfo", userinfo),
        ("get", "/API/V1/User/UserInfo", userinfo),
        ("GET", "/api/v1/user/userinfo/", userinfo),
        ("GET", "/api/user/userinfo", userinfo),
        ("GET", "/api/v1/user/userinfo//", None),
        ("GET", "/api/v1//user/userinfo", None),
        ("GET", "//api/v1/user/userinfo", None),
        ("GET", "/api/v1/user/userinfo/x", None),
        ("GET", "/api/v1/user/userinfo ", None),
        ("GET", "/api/v1/user/userinfo.", None),
        ("HEAD", "/api/v1/user/userinfo", None),
        ("POST", "/api/v1/user/userinfo", None),
        ("GET", "/api/v1/fastrsettings/get_all", Some("/api/v1/fastrsettings/get_all")),
        ("GET", "/api/v1/fastrsettings/get_all/7", of_user),
        ("GET", "/api/v1/fastrsettings/get_all/a%2Fb", of_user),
        ("GET", "/api/v1/fastrsettings/get_all//", None),
        ("GET", "/api/rm", Some("/api/rm")),
        ("POST", "/api/rm/negotiate", Some("/api/rm")),
        ("GET", "/api/rm/other", None),
        ("POST", "/api/authentication/login", Some("/api/authentication/login")),
        ("GET", "/", None),
    ] {
        assert_eq!(template(method, path), expected, "{method} {path}");
    }
}
