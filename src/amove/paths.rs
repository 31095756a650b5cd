//! What a path means: versioned, legacy, or readable in more than one way.
//!
//! The path itself is forwarded as it was received. What is decided about it is decided on the
//! copy made here, which is decoded and folded as the API's own router would; a path that another
//! reader on the way could understand differently is refused.

use std::borrow::Cow;

/// Where a path leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place<'a> {
    /// Decoded, lower case, no trailing slash. With [`Form::Versioned`], [`Form::Legacy`] and
    /// [`Form::AuthManaged`] it is what follows the prefix, such as `user/userinfo`; otherwise the
    /// whole path, with its leading slash.
    pub key: Cow<'a, str>,
    /// Which kind of path it is.
    pub form: Form,
}

/// The kinds of path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `/api/v1/…`: forwarded as it is.
    Versioned,
    /// `/api/<resource>/<action>…`: forwarded as [`successor`] says.
    Legacy,
    /// `/api/authentication…`, with or without a version: the gateway's own business.
    AuthManaged,
    /// `/api/rm…`: the real-time hub, which never had a version.
    Hub,
    /// Anything else: outside `/api/`, another version, too short for a legacy path.
    Other,
}

/// Why a path has no single meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ambiguity {
    /// It is not a path at all.
    #[error("no slash at its beginning")]
    NotAPath,
    /// `//`.
    #[error("an empty segment (`//`)")]
    EmptySegment,
    /// `.`, `..` and longer ones, in any spelling.
    #[error("a segment of nothing but dots")]
    DotSegment,
    /// Some servers cut dots and spaces off.
    #[error("a segment that ends with a dot, or begins or ends with a space")]
    Padding,
    /// `%2f`.
    #[error("an encoded slash (`%2f`)")]
    EncodedSlash,
    /// Raw or encoded.
    #[error("a backslash")]
    Backslash,
    /// `;`, raw or encoded: some servers cut off what follows.
    #[error("a path parameter (`;`)")]
    Parameter,
    /// `?` or `#`, raw or encoded: not part of a path.
    #[error("a `?` or `#` within the path")]
    Delimiter,
    /// `%25`: decoded once more, it would be another path.
    #[error("an encoded percent sign (`%25`)")]
    DoubleEncoding,
    /// `%u002e`, which only some servers know.
    #[error("an escape of the form `%uXXXX`")]
    UnicodeEscape,
    /// `%` without two hexadecimal digits.
    #[error("a `%` without two hexadecimal digits")]
    BadEscape,
    /// Raw or encoded.
    #[error("a control character")]
    Control,
    /// A raw one; `%20` is fine.
    #[error("a space that is not encoded")]
    Space,
    /// A byte that ought to have been encoded.
    #[error("a byte outside ASCII that is not encoded")]
    NotAscii,
    /// Overlong, cut off, or no UTF-8 at all.
    #[error("escapes that are not UTF-8")]
    Utf8,
    /// A character that some server takes for another one.
    #[error("a character that can be taken for another one")]
    LookAlike,
    /// `v01`, `v1.0` and the like, which a router may take for `v1`.
    #[error("an unusual spelling of a version")]
    Version,
}

/// Finds out where `path` (without its query) leads.
///
/// # Errors
///
/// [`Ambiguity`] if it can be read in more than one way.
pub fn read(path: &str) -> Result<Place<'_>, Ambiguity> {
    let path = match is_plain(path) {
        true => cut_trailing_slash(Cow::Borrowed(path)),
        false => normalise(path)?,
    };
    let (form, key_at) = sort(&path)?;
    let key = skip(path, key_at);
    check_names(form, &key)?;
    Ok(Place { key, form })
}

/// The versioned path for a legacy one: `v1/` after the first segment, every other byte as it was.
pub fn successor(path_as_received: &str) -> String {
    let slash = path_as_received.bytes().enumerate().filter(|(_, byte)| *byte == b'/').nth(1);
    match slash.and_then(|(at, _)| path_as_received.split_at_checked(at)) {
        Some((api, rest)) => format!("{api}/v1{rest}"),
        None => path_as_received.to_owned(),
    }
}

/// As the API's own router reads it.
fn normalise(path: &str) -> Result<Cow<'_, str>, Ambiguity> {
    path.bytes().try_for_each(check_raw)?;
    let path = cut_trailing_slash(decode(path)?);
    check_segments(&path)?;
    path.chars().try_for_each(check_character)?;
    Ok(fold(path))
}

/// Whether it is like nearly all paths: [`normalise`] would find nothing wrong with it, and change
/// nothing but a slash at its end.
fn is_plain(path: &str) -> bool {
    let mut before = None;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            let is_plain = match byte {
                b'/' => before != Some(b'/'),
                _ => matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'),
            };
            before = Some(byte);
            is_plain
        })
}

/// What may not stand in a path as it is.
fn check_raw(byte: u8) -> Result<(), Ambiguity> {
    match byte {
        b'\\' => Err(Ambiguity::Backslash),
        b';' => Err(Ambiguity::Parameter),
        b'?' | b'#' => Err(Ambiguity::Delimiter),
        b' ' => Err(Ambiguity::Space),
        0..0x20 | 0x7f => Err(Ambiguity::Control),
        0x80.. => Err(Ambiguity::NotAscii),
        _ => Ok(()),
    }
}

/// What may not be encoded either: decoding it would give the path another structure.
fn check_encoded(byte: u8) -> Result<(), Ambiguity> {
    match byte {
        b'/' => Err(Ambiguity::EncodedSlash),
        b'%' => Err(Ambiguity::DoubleEncoding),
        b' ' | 0x80.. => Ok(()),
        _ => check_raw(byte),
    }
}

fn decode(path: &str) -> Result<Cow<'_, str>, Ambiguity> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = if byte == b'%' { escape(after)? } else { (byte, after) };
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Ambiguity::Utf8)
}

/// The byte that the escape stands for whose `%` has been read, and what follows it.
fn escape(after: &[u8]) -> Result<(u8, &[u8]), Ambiguity> {
    let [high, low, rest @ ..] = after else { return Err(Ambiguity::BadEscape) };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match (digit(*high), digit(*low)) {
        (Some(high), Some(low)) => {
            let byte = high << 4 | low;
            check_encoded(byte)?;
            Ok((byte, rest))
        }
        _ if high.eq_ignore_ascii_case(&b'u') => Err(Ambiguity::UnicodeEscape),
        _ => Err(Ambiguity::BadEscape),
    }
}

/// One slash at the end changes nothing, except that `//` would become the root.
fn cut_trailing_slash(path: Cow<'_, str>) -> Cow<'_, str> {
    match path {
        path if path.len() < 3 => path,
        Cow::Borrowed(path) => Cow::Borrowed(path.strip_suffix('/').unwrap_or(path)),
        Cow::Owned(mut path) => {
            if path.ends_with('/') {
                path.pop();
            }
            Cow::Owned(path)
        }
    }
}

fn fold(path: Cow<'_, str>) -> Cow<'_, str> {
    // Only letters outside ASCII need the tables of Unicode.
    let changes = |letter: char| match letter.is_ascii() {
        true => letter.is_ascii_uppercase(),
        false => letter.to_lowercase().ne([letter]),
    };
    if path.chars().any(changes) { Cow::Owned(path.to_lowercase()) } else { path }
}

fn check_segments(path: &str) -> Result<(), Ambiguity> {
    let below_root = path.strip_prefix('/').ok_or(Ambiguity::NotAPath)?;
    if below_root.is_empty() {
        return Ok(());
    }
    below_root.split('/').try_for_each(|segment| {
        if segment.is_empty() {
            Err(Ambiguity::EmptySegment)
        } else if segment.bytes().all(|byte| byte == b'.') {
            Err(Ambiguity::DotSegment)
        } else if segment.ends_with(['.', ' ']) || segment.starts_with(' ') {
            Err(Ambiguity::Padding)
        } else {
            Ok(())
        }
    })
}

fn check_character(character: char) -> Result<(), Ambiguity> {
    if character.is_control() {
        Err(Ambiguity::Control)
    } else if !character.is_ascii() && is_look_alike(character) {
        Err(Ambiguity::LookAlike)
    } else {
        Ok(())
    }
}

/// Characters that are nothing, or that turn into one with a meaning (`/ \ . % ; ? #`, a space)
/// when a server normalises them (NFKC, or the "best fit" of Windows).
fn is_look_alike(character: char) -> bool {
    character.is_whitespace()
        || matches!(
            character,
            '\u{ad}' | '\u{37e}'                      // soft hyphen, Greek question mark
            | '\u{2000}'..='\u{206f}'                 // spaces, dots, fraction slash, invisible marks
            | '\u{2100}'..='\u{214f}'                 // account of, care of, Kelvin
            | '\u{2215}' | '\u{2216}' | '\u{29f5}' | '\u{29f8}' | '\u{29f9}' // slashes of mathematics
            | '\u{2488}'..='\u{249b}'                 // digits with a full stop
            | '\u{3002}'                              // ideographic full stop
            | '\u{fe00}'..='\u{fe1f}' | '\u{fe30}'..='\u{fe6f}' // variation selectors, small forms
            | '\u{feff}'..='\u{ffff}'                 // fullwidth forms, specials
            | '\u{1f100}'                             // digit with a full stop
            | '\u{e0000}'..='\u{e0fff}'               // tags
        )
}

/// Which kind of path it is, and where its key begins.
fn sort(path: &str) -> Result<(Form, usize), Ambiguity> {
    let Some(rest) = path.strip_prefix("/api/") else { return Ok((Form::Other, 0)) };
    let (first, after) = cut_segment(rest);
    let at = |rest: &str| path.len() - rest.len();
    Ok(match (first, after) {
        ("authentication", _) => (Form::AuthManaged, at(rest)),
        ("rm", _) => (Form::Hub, 0),
        (version, after) if is_version(version)? => match after {
            Some(after) if cut_segment(after).0 == "authentication" => {
                (Form::AuthManaged, at(after))
            }
            Some(after) if version == "v1" => (Form::Versioned, at(after)),
            _ => (Form::Other, 0),
        },
        (_, Some(_)) => (Form::Legacy, at(rest)),
        (_, None) => (Form::Other, 0),
    })
}

fn cut_segment(path: &str) -> (&str, Option<&str>) {
    // Shorter than whatever is worth a search that is quick for long ones.
    let end = path.bytes().position(|byte| byte == b'/');
    match end.and_then(|at| Some((path.get(..at)?, path.get(at + 1..)?))) {
        Some((first, after)) => (first, Some(after)),
        None => (path, None),
    }
}

fn is_version(segment: &str) -> Result<bool, Ambiguity> {
    match segment.strip_prefix('v').map(str::as_bytes) {
        Some([b'0']) => Ok(true),
        Some([b'1'..=b'9', rest @ ..]) if rest.iter().all(u8::is_ascii_digit) => Ok(true),
        Some([b'0'..=b'9', ..]) => Err(Ambiguity::Version),
        _ => Ok(false),
    }
}

/// Letters outside ASCII may stand in a parameter, but no resource and no action has any.
fn check_names(form: Form, key: &str) -> Result<(), Ambiguity> {
    let names = match form {
        Form::Versioned | Form::Legacy => 2,
        Form::AuthManaged | Form::Hub | Form::Other => usize::MAX,
    };
    let plain = key.is_ascii() || key.split('/').take(names).all(str::is_ascii);
    if plain { Ok(()) } else { Err(Ambiguity::LookAlike) }
}

/// `path` from byte `at` on.
fn skip(path: Cow<'_, str>, at: usize) -> Cow<'_, str> {
    match path {
        Cow::Borrowed(path) => Cow::Borrowed(path.get(at..).unwrap_or(path)),
        Cow::Owned(mut path) => {
            path.drain(..at);
            Cow::Owned(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::amove::catalogue::{Catalogue, Lookup};

    fn place(path: &str) -> (Form, String) {
        let place = read(path).unwrap_or_else(|found| panic!("{path}: {found}"));
        (place.form, place.key.into_owned())
    }

    fn check(path: &str, form: Form, key: &str) {
        assert_eq!(place(path), (form, key.to_owned()), "{path}");
    }

    fn refuse(expected: Ambiguity, paths: &[&str]) {
        for path in paths {
            assert_eq!(read(path), Err(expected), "{path:?}");
        }
    }

    /// The template that `path` is found under.
    fn template(method: &Method, path: &str) -> Option<&'static str> {
        match Catalogue::get().find(method, &read(path).ok()?.key) {
            Lookup::Found(route) => Some(route.template),
            Lookup::OtherMethod(_) | Lookup::Unknown => None,
        }
    }

    #[test]
    fn both_spellings_have_the_same_key() {
        check("/api/v1/user/userinfo", Form::Versioned, "user/userinfo");
        check("/api/user/userinfo", Form::Legacy, "user/userinfo");
        assert_eq!(successor("/api/user/userinfo"), "/api/v1/user/userinfo");
    }

    #[test]
    fn trap_1_a_version_is_never_given_a_second_one() {
        check("/api/v1/x", Form::Versioned, "x");
        check("/api/v1/x/y", Form::Versioned, "x/y");
        check("/api/V1/x/y", Form::Versioned, "x/y");
        check("/api/v1/v1/x", Form::Versioned, "v1/x");
        for other in ["/api/v2/x/y", "/api/v0/x", "/api/V12/x/y", "/api/v1", "/api/v2/"] {
            assert_eq!(place(other).0, Form::Other, "{other}");
        }
        check("/api/version/x", Form::Legacy, "version/x");
    }

    #[test]
    fn trap_2_authentication_is_the_gateways_business_under_any_version() {
        for path in [
            "/api/authentication/login",
            "/API/Authentication/Login/",
            "/api/%61uthentication/login",
            "/api/v1/authentication/login",
            "/api/v2/authentication/login",
        ] {
            check(path, Form::AuthManaged, "authentication/login");
        }
        check("/api/authentication", Form::AuthManaged, "authentication");
        check("/api/v1/authentication/", Form::AuthManaged, "authentication");
        check("/api/authentications/login", Form::Legacy, "authentications/login");
    }

    #[test]
    fn trap_3_the_hub_and_its_handshake_have_no_version() {
        check("/api/rm", Form::Hub, "/api/rm");
        check("/api/rm/negotiate", Form::Hub, "/api/rm/negotiate");
        check("/API/Rm/Negotiate/", Form::Hub, "/api/rm/negotiate");
        check("/api/rmx/negotiate", Form::Legacy, "rmx/negotiate");
        assert_eq!(template(&Method::POST, "/api/rm/negotiate"), Some("/api/rm"));
        assert_eq!(template(&Method::GET, "/api/v1/rm"), None);
    }

    #[test]
    fn trap_4_deeper_paths_are_carried_along() {
        check("/api/fastrLicense/info/AbC-1", Form::Legacy, "fastrlicense/info/abc-1");
        assert_eq!(successor("/api/fastrLicense/info/AbC-1"), "/api/v1/fastrLicense/info/AbC-1");
        assert_eq!(
            template(&Method::GET, "/api/fastrsettings/get_all/7f"),
            Some("/api/v1/fastrsettings/get_all/{userId}")
        );
        assert_eq!(
            template(&Method::GET, "/api/fastrsettings/get_all/"),
            Some("/api/v1/fastrsettings/get_all")
        );
    }

    #[test]
    fn trap_5_odd_names_are_found_as_they_are() {
        for (method, path) in [
            (Method::POST, "/api/v1/sso/setup_entraId"),
            (Method::GET, "/api/v1/sso/GET_ENTRAID"),
            (Method::GET, "/api/v1/fastrLicense/my-licenses"),
            (Method::PUT, "/api/v1/permission/users_sharedclouddrive_permision"),
            (Method::PUT, "/api/v1/permission/usergroup_sharedclouddrive_permission"),
            (Method::PUT, "/api/v1/permission/usergroups_project_permission"),
        ] {
            let found = template(&method, path).unwrap_or_else(|| panic!("{path} is unknown"));
            assert_eq!(found.to_lowercase(), path.to_lowercase());
        }
        let corrected = "/api/v1/permission/users_sharedclouddrive_permission";
        assert_eq!(template(&Method::PUT, corrected), None);
    }

    #[test]
    fn trap_6_decisions_are_made_on_a_normalised_copy_and_the_path_stays_as_it_is() {
        check("/API/V1/User/Delete_User/", Form::Versioned, "user/delete_user");
        check("/api/v1/%75ser/delete%5fuser", Form::Versioned, "user/delete_user");
        assert_eq!(successor("/API/%55ser/Delete_User/"), "/API/v1/%55ser/Delete_User/");
        assert_eq!(successor("/%61pi/user/userinfo"), "/%61pi/v1/user/userinfo");
        assert!(matches!(
            read("/api/v1/user/userinfo").map(|place| place.key),
            Ok(Cow::Borrowed(_))
        ));
    }

    #[test]
    fn trap_7_one_path_has_three_methods() {
        let key = &read("/api/v1/permission/users_project_permission").expect("a plain path").key;

        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let Lookup::Found(route) = Catalogue::get().find(&method, key) else {
                panic!("{method} is unknown");
            };
            assert_eq!(route.method, method);
        }
        let Lookup::OtherMethod(methods) = Catalogue::get().find(&Method::GET, key) else {
            panic!("GET is not documented");
        };
        assert_eq!(methods, [Method::POST, Method::PUT, Method::DELETE]);
    }

    #[test]
    fn what_is_neither_has_its_whole_path_as_key() {
        for (path, key) in [
            ("/", "/"),
            ("/api", "/api"),
            ("/Api/", "/api"),
            ("/api/user", "/api/user"),
            ("/user/userinfo", "/user/userinfo"),
            ("/apix/user/userinfo", "/apix/user/userinfo"),
            ("/api/v2/user/userinfo", "/api/v2/user/userinfo"),
        ] {
            check(path, Form::Other, key);
            assert_eq!(template(&Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn ordinary_escapes_and_punctuation_pass() {
        check("/api/v1/a/b/c%20d", Form::Versioned, "a/b/c d");
        check("/api/v1/a/b/Caf%C3%89", Form::Versioned, "a/b/café");
        check("/api/v1/a/b/%2b%3A~x.y!$&'()*+,=:@", Form::Versioned, "a/b/+:~x.y!$&'()*+,=:@");
    }

    #[test]
    fn dot_segments_are_refused_in_any_spelling() {
        refuse(
            Ambiguity::DotSegment,
            &[
                "/api/v1/../v1/user/delete_user",
                "/api/v1/./user/userinfo",
                "/api/v1/user/..",
                "/api/v1/user/../",
                "/..",
                "/api/v1/%2e%2E/user",
                "/api/v1/.%2e/user",
                "/api/v1/.../user",
            ],
        );
    }

    #[test]
    fn slashes_in_disguise_are_refused() {
        refuse(Ambiguity::EncodedSlash, &["/api/v1/user%2fdelete_user", "/api/v1/x/..%2Fy"]);
        refuse(
            Ambiguity::Backslash,
            &[r"/api/v1/user\delete_user", r"\api", "/api/v1/user%5Cdelete_user", "/api/..%5c"],
        );
        refuse(Ambiguity::EmptySegment, &["//", "/api//user/x", "//api/user/x", "/api/user/x//"]);
    }

    #[test]
    fn what_another_reader_would_cut_off_is_refused() {
        refuse(
            Ambiguity::Parameter,
            &["/api/v1/user/userinfo;x=1", "/api/..;/user", "/api/v1/user/userinfo%3B"],
        );
        refuse(
            Ambiguity::Delimiter,
            &["/api/v1/user/x?y", "/api/v1/user/x#y", "/api/v1/user/x%3fy", "/api/v1/user/x%23"],
        );
        refuse(
            Ambiguity::Padding,
            &[
                "/api/v1/user/delete_user.",
                "/api/v1/user/x%20",
                "/api/v1/%20user/x",
                "/api./user/x",
            ],
        );
    }

    #[test]
    fn escapes_that_mean_more_than_one_byte_are_refused() {
        refuse(
            Ambiguity::DoubleEncoding,
            &["/api/%252e%252e/x", "/api/a%252fb", "/api/v1/x/100%25"],
        );
        refuse(Ambiguity::UnicodeEscape, &["/api/v1/%u002e%u002e/x", "/api/v1/%U0041/x"]);
        refuse(
            Ambiguity::BadEscape,
            &["/api/%", "/api/%2", "/api/v1/%zz/x", "/api/%%32%65", "/%-1"],
        );
    }

    #[test]
    fn bytes_that_do_not_belong_into_a_path_are_refused() {
        refuse(
            Ambiguity::Control,
            &[
                "/api/\0",
                "/api/a\nb",
                "/api/a\tb",
                "/api/\x7f",
                "/api/%00",
                "/a%0d%0ab",
                "/a%7F",
                "/a%C2%85",
            ],
        );
        refuse(Ambiguity::Space, &["/api/v1/user/user info", "/api/v1/user/x "]);
        refuse(Ambiguity::NotAscii, &["/api/v1/user/é", "/api/v1/user/．．"]);
        refuse(
            Ambiguity::Utf8,
            &[
                "/a/%c0%ae%c0%ae/b",
                "/a/%c1%9c",
                "/a/%ff",
                "/a/%c3/%a9",
                "/a/%ed%a0%80",
                "/a/%e0%80%af",
            ],
        );
        refuse(Ambiguity::NotAPath, &["", "*", "api/v1/user/userinfo", "http:", "a/b"]);
    }

    #[test]
    fn letters_that_turn_into_others_are_refused() {
        refuse(
            Ambiguity::LookAlike,
            &[
                "/api/v1/a/b/%EF%BC%8E%EF%BC%8E",   // fullwidth dots
                "/api/v1/a/b/c%EF%BC%8Fd",          // fullwidth slash
                "/api/v1/a/b/c%E2%88%95d",          // division slash
                "/api/v1/a/b/c%EF%BC%85d",          // fullwidth percent sign
                "/api/v1/a/b/c%E2%80%8Bd",          // zero-width space
                "/api/v1/%EF%BD%95ser/delete_user", // fullwidth u
                "/api/v1/user/delete_u%C5%BFer",    // long s
                "/api/v1/fastr%C4%B0/x",            // dotted capital i
                "/api/v1/%E2%84%AA/x",              // Kelvin
                "/%EF%BD%81pi/user/delete_user",    // fullwidth a
                "/api/%72%6D/caf%C3%A9",            // a name below the hub
            ],
        );
    }

    #[test]
    fn a_version_in_another_spelling_is_refused() {
        refuse(
            Ambiguity::Version,
            &[
                "/api/v1.0/user/delete_user",
                "/api/v01/user/delete_user",
                "/api/V1-beta/user/x",
                "/api/v1x",
            ],
        );
    }

    #[test]
    fn what_has_no_second_slash_has_no_successor() {
        for path in ["", "/", "/api"] {
            assert_eq!(successor(path), path);
        }
    }

    /// Every catalogued path, with its parameters filled in, and its method.
    fn catalogued() -> impl Strategy<Value = (Method, String)> {
        let routes: Vec<_> = Catalogue::get()
            .routes()
            .iter()
            .map(|route| (route.method.clone(), route.template.replace(['{', '}'], "")))
            .collect();
        prop::sample::select(routes)
    }

    /// The same path in another spelling: some letters in the other case, some encoded.
    fn respell(path: &str, choices: &[u8]) -> String {
        let choices = choices.iter().copied().chain(std::iter::repeat(0));
        let spell = |(letter, choice): (char, u8)| match (letter, choice % 5) {
            ('/', _) | (_, 0) => letter.to_string(),
            (letter, 1) => letter.to_ascii_uppercase().to_string(),
            (letter, 2) => letter.to_ascii_lowercase().to_string(),
            (letter, 3) => format!("%{:02x}", u32::from(letter)),
            (letter, _) => format!("%{:02X}", u32::from(letter.to_ascii_uppercase())),
        };
        path.chars().zip(choices).map(spell).collect()
    }

    /// A path that would be read as `key`.
    fn encode(key: &str) -> String {
        key.bytes().fold(String::new(), |path, byte| match byte {
            b'/' => path + "/",
            byte => path + &format!("%{byte:02x}"),
        })
    }

    /// Strings full of what matters in a path.
    fn tricky() -> impl Strategy<Value = String> {
        let parts = [
            "/",
            "/",
            "/",
            "/api/",
            "/api/v1/",
            "v1",
            "V2",
            "user",
            "User_Info",
            "rm",
            "authentication",
            ".",
            "..",
            "%2e",
            "%2f",
            "%5c",
            "%25",
            "%",
            "%u",
            ";",
            "é",
            "%C3%89",
            "%c3",
            "%EF%BC%8F",
            "%41",
            "%20",
            " ",
            "\\",
            "\0",
            "x",
        ];
        prop::collection::vec(prop::sample::select(parts.to_vec()), 0..10).prop_map(|p| p.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_string_is_read_or_refused(path in any::<String>()) {
            let _ = read(&path);
            let _ = successor(&path);
        }

        #[test]
        fn what_is_accepted_has_a_plain_key(path in tricky().prop_map(|path| format!("/{path}"))) {
            let Ok(place) = read(&path) else { return Ok(()) };

            prop_assert!(place.key.split('/').all(|segment| !matches!(segment, "." | "..")));
            prop_assert!(!place.key.contains("//"));
            prop_assert!(!place.key.contains(['%', ';', '\\', '?', '#']));
            prop_assert!(!place.key.chars().any(char::is_control));
            prop_assert_eq!(place.key.to_lowercase(), place.key.as_ref());
            prop_assert!(place.key == "/" || !place.key.ends_with('/'));
        }

        #[test]
        fn what_is_plain_need_not_be_normalised(path in "(/?[-_a-z0-9/.]{0,6}){0,4}") {
            if is_plain(&path) {
                prop_assert_eq!(normalise(&path), Ok(cut_trailing_slash(Cow::Borrowed(&path))));
            }
        }

        #[test]
        fn reading_a_key_again_changes_nothing(path in tricky().prop_map(|path| format!("/api/{path}"))) {
            let Ok(place) = read(&path) else { return Ok(()) };
            let whole = match place.form {
                Form::Versioned => format!("/api/v1/{}", encode(&place.key)),
                Form::Legacy | Form::AuthManaged => format!("/api/{}", encode(&place.key)),
                Form::Hub | Form::Other => encode(&place.key),
            };

            prop_assert_eq!(read(&whole), Ok(place));
        }

        #[test]
        fn another_spelling_leads_to_the_same_route(
            (method, path) in catalogued(),
            choices: Vec<u8>,
            slash: bool,
        ) {
            let other = respell(&path, &choices) + if slash { "/" } else { "" };

            prop_assert!(template(&method, &path).is_some());
            prop_assert_eq!(template(&method, &other), template(&method, &path), "{}", other);
        }

        #[test]
        fn a_dot_segment_is_refused_wherever_it_stands(
            (_, path) in catalogued(),
            dots in prop::sample::select(vec![".", "..", "%2e", "%2E.", ".%2e", "%2e%2E", "..;", "%252e"]),
            at: prop::sample::Index,
        ) {
            let mut segments: Vec<_> = path.split('/').collect();
            segments.insert(1 + at.index(segments.len()), dots);

            prop_assert!(read(&segments.join("/")).is_err());
        }

        #[test]
        fn a_legacy_path_and_its_successor_lead_to_the_same_route(
            (method, path) in catalogued(),
            choices: Vec<u8>,
        ) {
            let Some(rest) = path.strip_prefix("/api/v1/") else { return Ok(()) };
            let legacy = respell(&format!("/api/{rest}"), &choices);

            let versioned = successor(&legacy);
            prop_assert_eq!(read(&legacy).map(|place| place.form), Ok(Form::Legacy));
            prop_assert_eq!(
                read(&versioned).map(|place| (place.form, place.key)),
                read(&legacy).map(|place| (Form::Versioned, place.key))
            );
            prop_assert_eq!(template(&method, &legacy), template(&method, &path));
        }
    }
}
