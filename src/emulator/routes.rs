//! Which route a request is for.

use std::{collections::HashMap, sync::LazyLock};

use http::Method;
use serde::{Deserialize, Serialize};

const TABLE: &str = include_str!("../amove/routes.csv");

/// One of the two hosts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Host {
    /// `api.amove.io`.
    Main,
    /// `auth.amove.io`.
    Auth,
}

/// What a call has to present.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Auth {
    None,
    Bearer,
    RequestToken,
}

/// What a route answers with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(super) enum Kind {
    #[serde(rename = "none")]
    Empty,
    #[serde(rename = "string")]
    String,
    #[serde(rename = "json object")]
    Object,
    #[serde(rename = "json array")]
    Array,
    #[serde(rename = "json scalar")]
    Scalar,
    #[serde(rename = "paginated")]
    Paginated,
    #[serde(rename = "redirect")]
    Redirect,
    #[serde(rename = "websocket")]
    Hub,
}

/// What a request body is written in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Written {
    Json,
    Form,
    None,
}

#[derive(Deserialize)]
struct Row {
    host: Host,
    method: String,
    path: String,
    auth: Auth,
    paginated: String,
    request_body: Written,
    response: Kind,
    notes: String,
}

/// One documented endpoint.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) host: Host,
    pub(super) method: Method,
    pub(super) auth: Auth,
    /// Whether it takes paging parameters.
    pub(super) paginated: bool,
    pub(super) body: Written,
    pub(super) response: Kind,
    /// `METHOD /template`.
    pub(super) key: String,
    /// The part that tells routes apart, in lower case and without parameters: `project/get_all`.
    pub(super) name: String,
    /// Whether a call changes something.
    pub(super) effect: bool,
    /// The fixed part of the path in lower case, and whether a parameter follows.
    fixed: (String, bool),
}

/// What was found for a method and a path.
#[derive(Debug)]
pub(super) enum Found {
    /// The route, and its path parameter.
    Route(&'static Route, Option<String>),
    /// The path exists, for these methods.
    WrongMethod(String),
    /// Nothing.
    Unknown,
}

type Routes = HashMap<(Host, String, bool), Vec<Route>>;

static ROUTES: LazyLock<Routes> = LazyLock::new(read);

fn read() -> Routes {
    let mut routes = Routes::new();
    for row in csv::Reader::from_reader(TABLE.as_bytes()).into_deserialize::<Row>().flatten() {
        let Ok(route) = Route::try_from(row) else { continue };
        let (path, parameter) = route.fixed.clone();
        routes.entry((route.host, path, parameter)).or_default().push(route);
    }
    routes
}

impl TryFrom<Row> for Route {
    type Error = http::method::InvalidMethod;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        let (fixed, parameter) = match row.path.split_once("/{") {
            Some((fixed, _)) => (fixed.to_ascii_lowercase(), true),
            None => (row.path.to_ascii_lowercase(), false),
        };
        let name = fixed.trim_start_matches("/api/").trim_start_matches("v1/").to_owned();
        let name = if parameter { format!("{name}/") } else { name };
        let tags = row.notes.split("tags=").nth(1).and_then(|rest| rest.split(';').next());
        let changing = ["write", "destructive", "session"];
        let effect = tags.unwrap_or_default().split(' ').any(|tag| changing.contains(&tag));
        Ok(Self {
            host: row.host,
            method: row.method.parse()?,
            auth: row.auth,
            paginated: row.paginated == "yes",
            body: row.request_body,
            response: row.response,
            key: format!("{} {}", row.method, row.path),
            name,
            effect,
            fixed: (fixed, parameter),
        })
    }
}

/// Finds the route as ASP.NET would: any case, a trailing slash tolerated, the version optional.
pub(super) fn find(host: Host, method: &Method, path: &str) -> Found {
    let path = versioned(host, path.strip_suffix('/').unwrap_or(path));
    let fixed = decoded(&path).to_ascii_lowercase();
    if let Some(routes) = ROUTES.get(&(host, fixed, false)) {
        return choose(routes, method, None);
    }
    let Some((parent, parameter)) = path.rsplit_once('/').filter(|(_, last)| !last.is_empty())
    else {
        return Found::Unknown;
    };
    match ROUTES.get(&(host, decoded(parent).to_ascii_lowercase(), true)) {
        Some(routes) => choose(routes, method, Some(decoded(parameter))),
        None => Found::Unknown,
    }
}

fn choose(routes: &'static [Route], method: &Method, parameter: Option<String>) -> Found {
    match routes.iter().find(|route| route.method == *method) {
        Some(route) => Found::Route(route, parameter),
        None => {
            let methods: Vec<_> = routes.iter().map(|route| route.method.as_str()).collect();
            Found::WrongMethod(methods.join(", "))
        }
    }
}

/// Puts the version into a path that lacks it; the auth host and the hub have none.
fn versioned(host: Host, path: &str) -> String {
    let mut segments = path.splitn(4, '/').skip(1);
    let (api, resource) = (segments.next().unwrap_or(""), segments.next().unwrap_or(""));
    let version = resource
        .strip_prefix(['v', 'V'])
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    let hub = resource.eq_ignore_ascii_case("rm");
    if host == Host::Auth || version || hub || !api.eq_ignore_ascii_case("api") {
        return path.to_owned();
    }
    format!("/api/v1{}", path.get(4..).unwrap_or(""))
}

/// Resolves percent-encoding; an encoded slash stays encoded, as it separates nothing.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let code = (*first == b'%').then(|| hex(tail)).flatten();
        match code {
            Some(byte) if byte != b'/' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..2)?).ok()?;
    u8::from_str_radix(digits, 16).ok()
}

/// The parameters of a query, decoded, in order.
pub(super) fn query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (form(name), form(value)))
        .collect()
}

fn form(text: &str) -> String {
    let text = decoded(&text.replace('+', " "));
    text.replace("%2F", "/").replace("%2f", "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: Host, method: &str, path: &str, expected: &str) {
        let method = method.parse().unwrap();
        let found = match find(host, &method, path) {
            Found::Route(route, None) => route.key.clone(),
            Found::Route(route, Some(parameter)) => format!("{} <{parameter}>", route.key),
            Found::WrongMethod(methods) => format!("405 {methods}"),
            Found::Unknown => "404".to_owned(),
        };
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let routes = ROUTES.values().map(Vec::len).sum::<usize>();

        assert_eq!(routes, TABLE.lines().count() - 1);
    }

    #[test]
    fn paths_are_found_the_way_asp_net_finds_them() {
        let main = Host::Main;
        check(main, "GET", "/api/v1/project/get_all", "GET /api/v1/project/get_all");
        check(main, "GET", "/API/v1/Project/GET_ALL/", "GET /api/v1/project/get_all");
        check(main, "GET", "/api/project/get_all", "GET /api/v1/project/get_all");
        check(main, "GET", "/api/v1/project%2fget_all", "404");
        check(main, "GET", "/api/v1/%70roject/get_all", "GET /api/v1/project/get_all");
        check(main, "GET", "/api/v2/project/get_all", "404");
        check(main, "POST", "/api/v1/project/get_all", "405 GET");
        check(main, "GET", "/api/rm", "GET /api/rm");
        check(main, "GET", "/api/v1/rm", "404");
        check(main, "POST", "/api/authentication/login", "404");
        check(Host::Auth, "GET", "/api/v1/project/get_all", "404");
        check(Host::Auth, "POST", "/api/v1/authentication/login", "404");
        let info = "GET /api/v1/fastrLicense/info/{licenseKey} <AB C>";
        check(main, "GET", "/api/fastrlicense/info/AB%20C", info);
        check(main, "GET", "/api/v1/fastrLicense/info/", "404");
    }
}
