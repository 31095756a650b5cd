//! The way of a request through the emulator.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    answer::{self, Outcome, Refusal, Reply},
    api, auth, control, extras,
    faults::Fault,
    hub,
    orders::Target,
    routes::{self, Auth, Found, Host, Kind, Route, Written},
    sessions::Holder,
    spoil,
    stats::Arrived,
    wire::Saboteur,
    world::World,
};

/// No documented call comes near.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A call to a documented endpoint, once it has passed the door.
pub(super) struct Call<'a> {
    pub(super) world: &'a World,
    pub(super) route: &'static Route,
    /// The path parameter.
    pub(super) parameter: Option<String>,
    pub(super) query: Vec<(String, String)>,
    /// The JSON or form body; `Null` if there is none.
    pub(super) body: Value,
    /// Who calls, on a bearer route.
    pub(super) holder: Option<Holder>,
}

/// Answers one request; an error breaks the connection.
pub(super) async fn answer(
    world: Arc<World>,
    host: Host,
    saboteur: &Saboteur,
    request: Request<Incoming>,
) -> io::Result<Reply> {
    if host == Host::Main && request.uri().path().starts_with(control::PREFIX) {
        return Ok(dated(&world, control::answer(&world, request).await));
    }
    world.stats.requests.add(1);
    let read = world.memory.remember(host, &request);
    let found = routes::find(host, request.method(), request.uri().path());
    let path = request.uri().path();
    let streamed = host == Host::Main && extras::is_one(path);
    let documented = matches!(&found, Found::Route(route, _) if route.auth == Auth::Bearer);
    let bearer = streamed || documented || hub::is_for(request.method(), path);
    let (latency, fault) = world.faults.befall(&Target { host, path, bearer });
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }

    let (parts, body) = request.into_parts();
    let (whole, rest) =
        if streamed { (Ok(Bytes::new()), Some(body)) } else { (collect(body, &read).await, None) };
    let down = (host == Host::Auth && world.auth_is_down()).then(|| Fault::reset(1));
    let fault = down.or(fault);
    let outcome = match spoil::before(&world, saboteur, fault.as_ref()).await {
        Some(outcome) => outcome,
        None => match (rest, whole) {
            (Some(body), _) => extras::answer(&world, parts, body, read).await,
            (None, Ok(body)) => handle(&world, &parts, found, &body),
            (None, Err(refusal)) => Err(refusal),
        },
    };
    let reply = outcome.unwrap_or_else(|refusal| refusal.reply(&world.options));
    let reply = spoil::after(saboteur, fault.as_ref(), reply).await?;
    Ok(dated(&world, reply))
}

async fn collect(body: Incoming, read: &Arrived) -> Result<Bytes, Refusal> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            read.add(&body);
            Ok(body)
        }
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Refusal::Status(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Err(_) => Err(Refusal::Status(StatusCode::BAD_REQUEST)),
    }
}

/// Does what the route is for.
fn handle(world: &World, parts: &http::request::Parts, found: Found, body: &Bytes) -> Outcome {
    let old = parts.version <= Version::HTTP_11;
    let measured = parts.headers.contains_key(header::CONTENT_LENGTH)
        || parts.headers.contains_key(header::TRANSFER_ENCODING);
    if parts.method == Method::POST && old && !measured {
        return Err(Refusal::Status(StatusCode::LENGTH_REQUIRED));
    }
    if hub::is_for(&parts.method, parts.uri.path()) {
        holder(world, &parts.headers, parts.uri.query())?;
        return hub::answer(world, parts, body);
    }
    let (route, parameter) = match found {
        Found::Route(route, parameter) => (route, parameter),
        Found::Unknown => return Err(Refusal::Status(StatusCode::NOT_FOUND)),
        Found::WrongMethod(methods) => {
            let mut reply = answer::with_status(answer::empty(), StatusCode::METHOD_NOT_ALLOWED);
            answer::set(&mut reply, header::ALLOW, &methods);
            return Ok(reply);
        }
    };
    let hub = route.response == Kind::Hub;
    let holder = match route.auth {
        Auth::Bearer if hub => Some(holder(world, &parts.headers, parts.uri.query())?),
        Auth::Bearer => Some(holder(world, &parts.headers, None)?),
        Auth::None | Auth::RequestToken => {
            let strays = parts.headers.get_all(header::AUTHORIZATION).iter().count();
            world.stats.stray_bearers.add(strays as u64);
            None
        }
    };
    if hub {
        return hub::answer(world, parts, body);
    }
    let query = routes::query(parts.uri.query().unwrap_or(""));
    let body = read_body(route, &parts.headers, body)?;
    perform(&Call { world, route, parameter, query, body, holder })
}

/// Acts on a call, with its request token if it needs one.
fn perform(call: &Call<'_>) -> Outcome {
    let world = call.world;
    if call.route.auth == Auth::RequestToken {
        world.request_tokens.redeem(world, call.text("requestToken"))?;
    }
    let reply = if call.route.host == Host::Auth { auth::act(call)? } else { api::act(call)? };
    if call.route.auth == Auth::RequestToken {
        world.request_tokens.spend(call.text("requestToken"));
    }
    if call.route.effect && reply.status().as_u16() < 400 {
        world.stats.took_effect(&call.route.key);
    }
    Ok(reply)
}

/// Who holds the bearer.
pub(super) fn holder(
    world: &World,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Holder, Refusal> {
    let field = headers.get(header::AUTHORIZATION).and_then(|field| field.to_str().ok());
    let bearer = field.and_then(|field| {
        let (scheme, token) = field.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    // Clients of the hub cannot always set headers.
    let in_query = || {
        let query = routes::query(query?);
        query.into_iter().find(|(name, _)| name == "access_token").map(|(_, value)| value)
    };
    let holder = bearer.or_else(in_query).and_then(|token| world.sessions.holder(world, &token));
    if holder.is_none() {
        world.stats.refused_bearers.add(1);
    }
    holder.ok_or(Refusal::DeadSession(world.options.dead_session))
}

fn read_body(route: &Route, headers: &HeaderMap, body: &Bytes) -> Result<Value, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("").to_ascii_lowercase();
    let unsupported = Refusal::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    match route.body {
        Written::None => Ok(Value::Null),
        Written::Form if !content_type.starts_with("application/x-www-form-urlencoded") => {
            Err(unsupported)
        }
        Written::Form => {
            let fields = routes::query(&String::from_utf8_lossy(body));
            Ok(fields.into_iter().map(|(name, value)| (name, Value::from(value))).collect())
        }
        Written::Json if !content_type.contains("json") => Err(unsupported),
        Written::Json => serde_json::from_slice(body)
            .map_err(|_| Refusal::code("DEFAULT", "The request body is not valid JSON.")),
    }
}

fn dated(world: &World, mut reply: Reply) -> Reply {
    answer::set(&mut reply, header::DATE, &httpdate::fmt_http_date(world.now()));
    reply
}

impl Call<'_> {
    /// A text field of the body; empty if there is none.
    pub(super) fn text(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// The body, which has to be an object, with some fields set.
    pub(super) fn with<const N: usize>(&self, set: [(&str, Value); N]) -> Result<Value, Refusal> {
        let fields = self.body.as_object().cloned();
        let mut fields =
            fields.ok_or_else(|| Refusal::code("DEFAULT", "An object is required."))?;
        fields.extend(set.map(|(name, value)| (name.to_owned(), value)));
        Ok(Value::Object(fields))
    }

    /// A query parameter, whose name is read in any case.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.query.iter().find(same).map(|(_, value)| value.as_str())
    }

    /// Who calls. Routes without a bearer have nobody.
    pub(super) fn holder(&self) -> Result<&Holder, Refusal> {
        self.holder.as_ref().ok_or(Refusal::DeadSession(self.world.options.dead_session))
    }
}
