//! `login`: one trial login; never shows the token.

use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode, Uri, header};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Exit, Failure, Global, print, runtime};
use crate::{
    clock::Clock,
    config::{Config, Credentials, Identity, UserType},
    message::{Body, Held, Request},
    session::{self, LoginError, Sessions, Token},
    upstream::{self, Host, Upstream},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The identity to log in; without it, the default one
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

/// Logs in, asks who we are, logs out, and tells.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let config = global.load()?.config;
    let identity = match &arguments.identity {
        None => config.identities.first(),
        Some(name) => config.identities.iter().find(|identity| *identity.name == **name),
    };
    let identity = identity.ok_or_else(|| {
        let known: Vec<_> = config.identities.iter().map(|identity| &*identity.name).collect();
        Failure::new(
            Exit::Usage,
            format!("there is no such identity; there are: {}", known.join(", ")),
        )
    })?;
    let report = runtime()?.block_on(trial(&config, identity))?;
    print(report)
}

/// Nobody waits longer for the goodbye of a trial.
const GOODBYE: Duration = Duration::from_secs(10);

/// A login, a look and a logout; returns what to tell about it.
pub(super) async fn trial(config: &Config, identity: &Identity) -> Result<String, Failure> {
    let upstream = Upstream::new(&config.upstream, 1)
        .map_err(|error| Failure::caused(Exit::Config, "there is no way to Amove", &error))?;
    let clock = Clock::system();
    // Sessions are scarce: that of a trial is closed whatever the configuration says.
    let identity = Identity { logout_on_shutdown: true, ..identity.clone() };
    let runtime = tokio::runtime::Handle::current();
    let identities = std::slice::from_ref(&identity);
    let sessions = Sessions::new(identities, upstream.clone(), clock.clone(), runtime);

    let token = sessions.token(0).await.map_err(|error| refused(&identity.name, &error))?;
    let user = userinfo(&upstream, &token).await;
    sessions.shutdown(GOODBYE).await;

    let user = user.map_err(|failure| failure.of(&identity.name))?;
    Ok(report(&identity, &token, &user, clock.now()))
}

fn refused(identity: &str, error: &session::Error) -> Failure {
    let exit = match error {
        session::Error::Refused { .. } | session::Error::ApiToken { .. } => Exit::Refused,
        session::Error::Unavailable { source, .. } => match **source {
            LoginError::Secret(_) => Exit::Config,
            _ => Exit::Unreachable,
        },
        _ => Exit::Unreachable,
    };
    Failure::caused(exit, &format!("identity `{identity}` cannot log in"), error)
}

/// What `user/userinfo` says (contract section 11), as far as it is there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UserInfo {
    username: Option<String>,
    user_type: Option<u8>,
    account_name: Option<String>,
}

/// Why `user/userinfo` did not tell who we are.
enum NoUser {
    Unreachable(upstream::Error),
    Answered(StatusCode),
}

impl NoUser {
    fn of(self, identity: &str) -> Failure {
        let what = format!("identity `{identity}` is logged in, but user/userinfo fails");
        match self {
            Self::Unreachable(error) => Failure::caused(Exit::Unreachable, &what, &error),
            Self::Answered(StatusCode::UNAUTHORIZED) => {
                Failure::new(Exit::Refused, format!("{what}: Amove denies the token (401)"))
            }
            Self::Answered(status) => Failure::new(
                Exit::Unreachable,
                format!("{what}: Amove answered {}", status.as_u16()),
            ),
        }
    }
}

async fn userinfo(upstream: &Upstream, token: &Token) -> Result<UserInfo, NoUser> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static("/api/v1/user/userinfo");
    request.headers_mut().insert(header::AUTHORIZATION, token.bearer().clone());
    let response = upstream.send(Host::Api, request).await.map_err(NoUser::Unreachable)?;
    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        return Err(NoUser::Answered(parts.status));
    }
    match body.hold(64 * 1024).await {
        Ok(Held::Whole(body, _)) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
        _ => Ok(UserInfo::default()),
    }
}

fn report(identity: &Identity, token: &Token, user: &UserInfo, now: Timestamp) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".into());
    let role = user.user_type.and_then(|number| {
        UserType::ALL.into_iter().find(|it| *it as u8 == number).map(UserType::name)
    });
    let expires = match token.expires() {
        Some(at) => format!("{at} ({} s from now)", at.as_second() - now.as_second()),
        None => "cannot be read from the token".to_owned(),
    };
    let factor = if token.second_factor() { "asked for, and given" } else { "not asked for" };
    let session = match identity.credentials {
        Credentials::Password { .. } => "closed again",
        Credentials::ApiToken(_) => "of an API token: left open",
    };
    let rows = [
        ("identity", identity.name.to_string()),
        ("user", known(&user.username)),
        ("account", known(&user.account_name)),
        ("role", role.unwrap_or("not told").to_owned()),
        ("token expires", expires),
        ("second factor", factor.to_owned()),
        ("session", session.to_owned()),
    ];
    rows.map(|(name, value)| format!("{name:14} {value}\n")).concat()
}
