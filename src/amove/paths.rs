//! What a path means: canonical, legacy, ours, or ambiguous.
//!
//! The API decodes paths, ignores their case and tolerates a slash at the end (contract section
//! 5). Decisions are therefore made on a copy that is decoded and folded as the API would, and
//! whatever two readers might read differently is refused. What is forwarded stays as it came.

use std::borrow::Cow;

/// A path that can be read in one way only.
#[derive(Debug, Eq, PartialEq)]
pub struct Place<'a> {
    /// Decoded, folded, without the prefix and the last slash: `user/userinfo` for both
    /// `/api/v1/user/userinfo` and `/API/User/UserInfo/`.
    pub key: Cow<'a, str>,
    /// What kind of path it is.
    pub form: Form,
}

/// Kinds of paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `/api/v1/…`.
    Versioned,
    /// `/api/…` without a version: a deprecated alias.
    Legacy,
    /// `/api/authentication/…`, which is the gateway's business.
    AuthManaged,
    /// `/api/rm…`: the real-time hub, which never had a version.
    Hub,
    /// Anything else, other versions included.
    Other,
}

/// Why a path can be read in more than one way.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ambiguity {
    /// It does not begin with a slash.
    #[error("it does not begin with a slash")]
    NotAbsolute,
    /// `.` or `..`, in any spelling.
    #[error("it contains a dot segment")]
    DotSegment,
    /// Two slashes in a row.
    #[error("it contains an empty segment")]
    EmptySegment,
    /// `%2F`.
    #[error("it contains an encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("it contains a backslash")]
    Backslash,
    /// `;` or `%3B`: parameters, to some servers.
    #[error("it contains a semicolon")]
    Parameter,
    /// `%25`: what is encoded twice is decoded twice by some.
    #[error("it contains an encoded percent sign")]
    EncodedPercent,
    /// A percent sign without two hexadecimal digits.
    #[error("it contains a percent sign that encodes nothing")]
    BadEncoding,
    /// A control character or a space, raw or encoded.
    #[error("it contains a control character or a space")]
    Control,
    /// Bytes that are not UTF-8, or not in its shortest form.
    #[error("it does not decode to UTF-8")]
    NotUtf8,
    /// A character that must be encoded, or that changes into an ASCII one when it is folded.
    #[error("it contains a character that some servers change into another")]
    Confusable,
}

/// Reads `path`, which is a URI's path without its query.
///
/// Allocates nothing for a path that is written the way the documentation writes it.
///
/// # Errors
///
/// Why it can be read in more than one way.
pub fn read(path: &str) -> Result<Place<'_>, Ambiguity> {
    let decoded = decode(path)?;
    check_segments(&decoded)?;
    let folded = match decoded {
        Cow::Borrowed(path) if path.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            Cow::Owned(path.to_ascii_lowercase())
        }
        Cow::Borrowed(path) => Cow::Borrowed(path),
        Cow::Owned(mut path) => {
            path.make_ascii_lowercase();
            Cow::Owned(path)
        }
    };
    let (form, start) = classify(&folded);
    let end = if folded.len() > 1 && folded.ends_with('/') { folded.len() - 1 } else { folded.len() };
    let key = match folded {
        Cow::Borrowed(path) => Cow::Borrowed(path.get(start..end).unwrap_or_default()),
        Cow::Owned(path) => Cow::Owned(path.get(start..end).unwrap_or_default().to_owned()),
    };
    Ok(Place { key, form })
}

/// The versioned path of a legacy one: every other byte stays as it came.
pub fn successor(path: &str) -> String {
    // The prefix may be spelt in any case or encoded, but it ends with the second slash.
    let prefix = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at + 1);
    let (prefix, rest) = path.split_at(prefix);
    format!("{prefix}v1/{rest}")
}

/// Which form a decoded and folded path has, and where its key begins.
fn classify(path: &str) -> (Form, usize) {
    let Some(rest) = path.strip_prefix("/api/") else { return (Form::Other, 1.min(path.len())) };
    let start = path.len() - rest.len();
    let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next()) {
        (None, _) => (Form::Other, start),
        // There is no such resource with a version either; nobody shall look for a back door.
        (Some("authentication"), _) | (Some("v1"), Some("authentication")) => {
            (Form::AuthManaged, start)
        }
        (Some("rm"), _) => (Form::Hub, start),
        (Some("v1"), Some(_)) => (Form::Versioned, start + "v1/".len()),
        (Some(version), _) if is_version(version) => (Form::Other, start),
        // One segment alone is no `/api/<resource>/<action>`.
        (Some(_), None) => (Form::Other, start),
        (Some(_), Some(_)) => (Form::Legacy, start),
    }
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Decodes percent-encoding, and refuses what must not be in there.
fn decode(path: &str) -> Result<Cow<'_, str>, Ambiguity> {
    if !path.starts_with('/') {
        return Err(Ambiguity::NotAbsolute);
    }
    for byte in path.bytes() {
        match byte {
            b'\\' => return Err(Ambiguity::Backslash),
            b';' => return Err(Ambiguity::Parameter),
            0..=b' ' | 0x7f => return Err(Ambiguity::Control),
            b'#' | b'?' | 0x80.. => return Err(Ambiguity::Confusable),
            _ => {}
        }
    }
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|it| char::from(it).to_digit(16));
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(Ambiguity::BadEncoding);
        };
        let byte = u8::try_from(high * 16 + low).map_err(|_| Ambiguity::BadEncoding)?;
        match byte {
            b'/' => return Err(Ambiguity::EncodedSlash),
            b'\\' => return Err(Ambiguity::Backslash),
            b';' => return Err(Ambiguity::Parameter),
            b'%' => return Err(Ambiguity::EncodedPercent),
            0..=b' ' | 0x7f => return Err(Ambiguity::Control),
            b'#' | b'?' => return Err(Ambiguity::Confusable),
            _ => decoded.push(byte),
        }
    }
    let decoded = String::from_utf8(decoded).map_err(|_| Ambiguity::NotUtf8)?;
    // Beyond ASCII, servers fold case and width in ways of their own: `ſ` to `s`, `．` to `.`.
    if decoded.chars().any(is_confusable) {
        return Err(Ambiguity::Confusable);
    }
    Ok(Cow::Owned(decoded))
}

/// Characters that case folding, compatibility forms or best-fit code pages turn into ASCII, and
/// those that nobody sees.
fn is_confusable(c: char) -> bool {
    !c.is_ascii()
        && (c.is_control()
            || c.is_whitespace()
            || c.to_lowercase().any(|c| c.is_ascii())
            || c.to_uppercase().any(|c| c.is_ascii())
            || matches!(c,
                '\u{ff00}'..='\u{ffef}'       // full and half width
                | '\u{2000}'..='\u{206f}'     // general punctuation, invisible ones included
                | '\u{2100}'..='\u{218f}'     // letter-like, number forms
                | '\u{2215}' | '\u{2216}' | '\u{29f5}' | '\u{29f8}' | '\u{fe68}' | '\u{fe6a}'
                | '\u{fe52}' | '\u{fe54}' | '\u{feff}' | '\u{037e}'
                | '\u{1d400}'..='\u{1d7ff}'   // mathematical letters
                | '\u{e0000}'..='\u{e007f}')) // tags
}

fn check_segments(path: &str) -> Result<(), Ambiguity> {
    let body = path.strip_prefix('/').unwrap_or(path);
    let body = body.strip_suffix('/').unwrap_or(body);
    if body.is_empty() {
        return if path == "/" { Ok(()) } else { Err(Ambiguity::EmptySegment) };
    }
    for segment in body.split('/') {
        match segment {
            "" => return Err(Ambiguity::EmptySegment),
            "." | ".." => return Err(Ambiguity::DotSegment),
            // Some file systems and servers drop dots at the end, or take three for two.
            _ if segment.bytes().all(|byte| byte == b'.') => return Err(Ambiguity::DotSegment),
            _ if segment.ends_with('.') => return Err(Ambiguity::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::amove::catalogue::{Catalogue, Lookup, Route};

    #[track_caller]
    fn check(path: &str, form: Form, key: &str) {
        let place = read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!((place.form, &*place.key), (form, key), "{path}");
    }

    #[track_caller]
    fn refused(path: &str, why: Ambiguity) {
        assert_eq!(read(path), Err(why), "{path:?}");
    }

    fn find(method: &Method, path: &str) -> Option<&'static Route> {
        match Catalogue::get().find(method, &read(path).ok()?.key) {
            Lookup::Found(route) => Some(route),
            _ => None,
        }
    }

    #[test]
    fn trap_1_a_version_is_left_alone() {
        check("/api/v1/user", Form::Versioned, "user");
        check("/api/v1", Form::Other, "v1");
        check("/api/v2/user/userinfo", Form::Other, "v2/user/userinfo");
        check("/api/V10/user", Form::Other, "v10/user");
        check("/api/v1/v1/x", Form::Versioned, "v1/x");
        check("/api/video/get", Form::Legacy, "video/get");
    }

    #[test]
    fn trap_2_logins_are_ours_however_they_are_spelt() {
        check("/api/authentication/login", Form::AuthManaged, "authentication/login");
        check("/API/Authentication/", Form::AuthManaged, "authentication");
        check("/api/%61uthentication/login", Form::AuthManaged, "authentication/login");
        check("/api/v1/authentication/login", Form::AuthManaged, "v1/authentication/login");
    }

    #[test]
    fn trap_3_the_hub_has_no_version() {
        check("/api/rm", Form::Hub, "rm");
        check("/api/RM/negotiate", Form::Hub, "rm/negotiate");
        assert!(find(&Method::GET, "/api/rm").is_some());
        check("/api/rmx/negotiate", Form::Legacy, "rmx/negotiate");
    }

    #[test]
    fn trap_4_deeper_paths_are_carried_along() {
        check("/api/fastrLicense/info/Ab", Form::Legacy, "fastrlicense/info/ab");
        assert_eq!(successor("/api/fastrLicense/info/Ab"), "/api/v1/fastrLicense/info/Ab");
        let route = find(&Method::GET, "/api/fastrLicense/info/Ab").unwrap();
        assert_eq!(&*route.template, "/api/v1/fastrLicense/info/{licenseKey}");
    }

    #[test]
    fn trap_5_names_are_matched_as_they_are_with_all_their_quirks() {
        for path in ["/api/v1/sso/SETUP_ENTRAID", "/api/sso/setup_entraId"] {
            assert_eq!(&*find(&Method::POST, path).unwrap().template, "/api/v1/sso/setup_entraId");
        }
        assert!(find(&Method::GET, "/api/v1/fastrlicense/my-licenses").is_some());
        let misspelt = "/api/v1/permission/users_sharedclouddrive_permision";
        assert!(find(&Method::PUT, misspelt).is_some());
        assert!(find(&Method::PUT, "/api/v1/permission/users_sharedclouddrive_permission").is_none());
        assert!(find(&Method::POST, "/api/v1/permission/usergroup_sharedclouddrive_permission").is_some());
        assert!(find(&Method::POST, "/api/v1/permission/usergroups_project_permission").is_some());
    }

    #[test]
    fn trap_6_decisions_are_made_on_a_copy_and_the_bytes_stay() {
        check("/API/V1/User/Delete_User/", Form::Versioned, "user/delete_user");
        check("/api/v1/%75ser/userinf%6F", Form::Versioned, "user/userinfo");
        assert_eq!(successor("/API/%55ser/UserInfo/"), "/API/v1/%55ser/UserInfo/");
    }

    #[test]
    fn trap_7_method_and_path_belong_together() {
        let path = "/api/v1/permission/users_project_permission";
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(find(&method, path).unwrap().method, method);
        }
        assert!(find(&Method::GET, path).is_none());
    }

    #[test]
    fn what_two_readers_might_read_differently_is_refused() {
        use Ambiguity::*;
        for segment in [".", "..", "%2e", "%2E%2e", ".%2e", "...", "userinfo.", "x%2e"] {
            refused(&format!("/api/v1/{segment}/user"), DotSegment);
            refused(&format!("/api/v1/user/{segment}"), DotSegment);
        }
        refused("//api/v1/user", EmptySegment);
        refused("/api//v1/user", EmptySegment);
        refused("/api/v1/user//", EmptySegment);
        refused("//", EmptySegment);
        refused("/api/v1%2Fuser", EncodedSlash);
        refused("/api/v1%2fuser", EncodedSlash);
        refused("/api/v1\\user", Backslash);
        refused("/api/v1/%5cuser", Backslash);
        refused("/api/v1/..;/user", Parameter);
        refused("/api/v1/user;x=1", Parameter);
        refused("/api/v1/user%3bx", Parameter);
        refused("/api/v1/%252e%252e/user", EncodedPercent);
        refused("/api/v1/%252fuser", EncodedPercent);
        refused("/api/v1/%user", BadEncoding);
        refused("/api/v1/user%", BadEncoding);
        refused("/api/v1/user%2", BadEncoding);
        refused("/api/v1/%u0075ser", BadEncoding);
        refused("/api/v1/user%00", Control);
        refused("/api/v1/user%0d%0a", Control);
        refused("/api/v1/user%20", Control);
        refused("/api/v1/us er", Control);
        refused("/api/v1/%c0%ae%c0%ae/user", NotUtf8);
        refused("/api/v1/%ff", NotUtf8);
        refused("/api/v1/%ed%a0%80", NotUtf8);
        refused("/api/v1/%ef%bc%8e%ef%bc%8e/user", Confusable);
        refused("/api/v1/u%c5%bfer/userinfo", Confusable);
        refused("/api/v1/%e2%84%aaey", Confusable);
        refused("/api/v1/usér", Confusable);
        refused("/api/v1/user%23", Confusable);
        refused("/api/v1/user%3fa", Confusable);
        refused("api/v1/user", NotAbsolute);
        refused("", NotAbsolute);
        refused("*", NotAbsolute);
    }

    fn documented() -> impl Strategy<Value = &'static Route> {
        let routes = Catalogue::get().routes();
        (0..routes.len()).prop_map(move |at| &routes[at])
    }

    proptest! {
        #[test]
        fn any_text_is_either_refused_or_has_a_plain_key(path in any::<String>()) {
            if let Ok(place) = read(&path) {
                prop_assert!(!place.key.bytes().any(|it| it.is_ascii_uppercase() || it.is_ascii_control()));
                prop_assert!(!place.key.contains("//") && !place.key.split('/').any(|it| it == ".."));
            }
        }

        #[test]
        fn any_spelling_of_a_documented_path_is_the_same_route(
            route in documented(),
            spelling in proptest::collection::vec(0..4_u8, 128),
            slash: bool,
        ) {
            let plain = route.template.replace(['{', '}'], "");
            let mut spelt: String = plain
                .chars()
                .zip(spelling.iter().cycle())
                .map(|(c, how)| match how {
                    1 if c != '/' => c.to_ascii_uppercase().to_string(),
                    2 if c != '/' => format!("%{:02x}", u32::from(c)),
                    3 if c != '/' => format!("%{:02X}", u32::from(c.to_ascii_uppercase())),
                    _ => c.to_string(),
                })
                .collect();
            if slash {
                spelt.push('/');
            }
            prop_assert_eq!(read(&spelt).unwrap().key, read(&plain).unwrap().key);
            prop_assert!(std::ptr::eq(find(&route.method, &spelt).unwrap(), route));
        }

        #[test]
        fn a_dot_segment_is_refused_wherever_it_stands(
            route in documented(),
            at in any::<proptest::sample::Index>(),
            dots in prop::sample::select(vec![".", "..", "%2e", "%2E.", ".%2e", "%2e%2e", "..%00", "..;"]),
        ) {
            let mut segments: Vec<&str> = route.template.split('/').collect();
            segments.insert(1 + at.index(segments.len()), dots);
            prop_assert!(read(&segments.join("/")).is_err());
        }
    }
}
