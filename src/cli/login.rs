//! `login`: one trial login; never shows the token.

use std::fmt::Write;

use clap::Args;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Exit, Failure, Global, print, runtime};
use crate::{
    amove::auth::{self, AuthHost},
    clock::Clock,
    config::{self, Config, Credentials, UserType},
    message::{Body, Held, Request},
    session::login::{self, Account, Failed, Memory, Opened},
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

/// A login, a look and a logout; returns what to tell about it.
pub(super) async fn trial(config: &Config, identity: &config::Identity) -> Result<String, Failure> {
    let upstream = Upstream::new(&config.upstream, 1)
        .map_err(|error| Failure::caused(Exit::Config, "no way to Amove", &error))?;
    let host = AuthHost::new(upstream.clone());
    let clock = Clock::system();
    let memory = Memory::new(clock.clone());
    let refused = |error: Failed| {
        let exit = match &error {
            Failed::Auth(
                auth::Error::Refused(_)
                | auth::Error::Totp
                | auth::Error::TotpNeeded
                | auth::Error::Unsupported(_),
            )
            | Failed::Totp(_) => Exit::Refused,
            Failed::Secret(_) => Exit::Config,
            Failed::Auth(_) | Failed::TooSlow => Exit::Unreachable,
        };
        Failure::caused(exit, &format!("identity `{}` cannot log in", identity.name), &error)
    };
    let opened = match &identity.credentials {
        Credentials::Password { username, password, user_type, totp } => {
            let (user_type, totp) = (*user_type, totp.as_ref());
            let account = Account { username, password, user_type, totp };
            account.log_in(&host, &memory).await.map_err(refused)?
        }
        Credentials::ApiToken(token) => {
            let token = token.read().map_err(|error| refused(error.into()))?;
            Opened { token, second_factor: false }
        }
    };
    let user = userinfo(&upstream, &opened.token).await;
    // Also after a failure: sessions are scarce.
    let logged_out = match identity.credentials {
        Credentials::Password { .. } => Some(login::log_out(&host, &opened.token).await.is_ok()),
        Credentials::ApiToken(_) => None,
    };
    let user = user.map_err(|failure| failure.of(&identity.name))?;
    Ok(report(identity, &opened, &user, memory.skew(), logged_out, clock.now()))
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

async fn userinfo(upstream: &Upstream, token: &SecretString) -> Result<UserInfo, NoUser> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static("/api/v1/user/userinfo");
    if let Ok(mut bearer) = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())) {
        bearer.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    let response = upstream.send(Host::Api, request).await.map_err(NoUser::Unreachable)?;
    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        return Err(NoUser::Answered(parts.status));
    }
    match body.hold(64 * 1024).await {
        Ok(Held::Whole(body)) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
        _ => Ok(UserInfo::default()),
    }
}

fn report(
    identity: &config::Identity,
    opened: &Opened,
    user: &UserInfo,
    skew: i64,
    logged_out: Option<bool>,
    now: Timestamp,
) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".into());
    let role = user.user_type.and_then(|number| {
        UserType::ALL.into_iter().find(|it| *it as u8 == number).map(UserType::name)
    });
    let expires = match login::expiry(&opened.token, skew) {
        Some(at) => format!("{at} ({} s from now)", at.as_second() - now.as_second()),
        None => "cannot be read from the token".to_owned(),
    };
    let mut text = format!("identity       {}\n", identity.name);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:14} {value}");
    };
    line("user", &known(&user.username));
    line("account", &known(&user.account_name));
    line("role", role.unwrap_or("not told"));
    line("token expires", &expires);
    line(
        "second factor",
        if opened.second_factor { "asked for, and given" } else { "not asked for" },
    );
    if skew != 0 {
        line("clock", &format!("Amove's is {skew} s ahead of this machine's"));
    }
    match logged_out {
        Some(true) => line("session", "closed again"),
        Some(false) => line("session", "could not be closed: it counts until it expires"),
        None => line("session", "of an API token: left open"),
    }
    text
}
