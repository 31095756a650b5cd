//! Asks a running gateway something, at its admin listener.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use super::{Exit, Failure, Global, runtime};
use crate::config::{Config, Listen, secret::Secret};

/// Whoever takes longer to answer a question is not well.
const PATIENCE: Duration = Duration::from_secs(3);

/// The gateway answers an order within 90 s.
const ORDER_PATIENCE: Duration = Duration::from_secs(95);

/// What is larger is no answer of a gateway.
const ANSWER: usize = 4 * 1024 * 1024;

/// Where a running gateway is, if the configuration does not say.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Ask here, and read no configuration
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// The file with the token that the admin listener wants; the configuration may name it too
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// A running gateway, as operators reach it.
#[derive(Debug)]
pub(super) struct Gateway {
    address: String,
    token: Option<SecretString>,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// What an operator is told by a problem; a gateway that is not ours may tell less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    reason: Option<String>,
}

impl Place {
    /// The gateway there, or where the configuration says.
    pub(super) fn gateway(&self, global: &Global) -> Result<Gateway, Failure> {
        let (address, configured) = match &self.address {
            Some(address) => (address.clone(), None),
            None => {
                let config = load(global)?;
                let address = reachable(config.server.admin_listen, "server.admin_listen")?;
                (address, config.server.admin_token)
            }
        };
        let token = self.admin_token_file.clone().map(Secret::File).or(configured);
        let token = token.map(|token| token.read()).transpose();
        let unread = |error| Failure::caused(Exit::Config, "there is no admin token", &error);
        Ok(Gateway { address, token: token.map_err(unread)? })
    }
}

/// The configuration, or what is wrong with it and how to do without.
pub(super) fn load(global: &Global) -> Result<Config, Failure> {
    let loaded = global.load().map_err(|mut failure| {
        failure.message += "\nIt is only read to find the gateway; --address HOST:PORT does too.";
        failure
    })?;
    Ok(loaded.config)
}

/// Where `listen` is reached from here: who listens everywhere listens on loopback too.
pub(super) fn reachable(listen: Option<Listen>, setting: &str) -> Result<String, Failure> {
    let Some(Listen::Tcp(mut address)) = listen else {
        let message = format!("{setting} is not a TCP address to ask; give one with --address");
        return Err(Failure::new(Exit::Config, message));
    };
    if address.ip().is_unspecified() {
        let loopback: [std::net::IpAddr; 2] =
            [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
        address.set_ip(loopback[usize::from(address.is_ipv6())]);
    }
    Ok(address.to_string())
}

impl Gateway {
    /// One that is asked for nothing but its health.
    pub(super) fn at(address: String) -> Self {
        Self { address, token: None }
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What it answers to a question.
    pub(super) fn get(&self, target: &str) -> Result<Reply, Failure> {
        self.ask(Method::GET, target, PATIENCE)
    }

    /// What it answers to an order.
    pub(super) fn post(&self, target: &str) -> Result<Reply, Failure> {
        self.ask(Method::POST, target, ORDER_PATIENCE)
    }

    fn ask(&self, method: Method, target: &str, patience: Duration) -> Result<Reply, Failure> {
        let mut request =
            Request::builder().method(method).uri(target).header(header::HOST, &self.address);
        if let Some(token) = &self.token {
            let bearer = format!("Bearer {}", token.expose_secret());
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| {
            let message = "the address or the admin token has letters that HTTP does not know";
            Failure::new(Exit::Usage, message)
        })?;
        let exchange = async {
            let stream = timeout(PATIENCE, TcpStream::connect(&self.address)).await??;
            timeout(patience, exchange(stream, request)).await?
        };
        runtime()?.block_on(exchange).map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let address = &self.address;
        let message = format!(
            "no gateway answers at {address}: {error}\n\
             Is it running? Its log tells its admin address; --address HOST:PORT asks elsewhere."
        );
        Failure::new(Exit::Unreachable, message)
    }

    /// What a reply other than 200 means.
    pub(super) fn refused(&self, reply: &Reply) -> Failure {
        let (address, status) = (&self.address, reply.status.as_u16());
        let told: Option<Told> = serde_json::from_slice(&reply.body).ok();
        let sentence = match told {
            Some(Told { reason: Some(reason), .. }) => reason,
            Some(Told { detail, .. }) => detail,
            None => String::from_utf8_lossy(&reply.body).trim().to_owned(),
        };
        let said = format!("the gateway at {address} answers {status}: {}", printable(&sentence));
        let is_refused =
            |kind: &str| kind.trim_start_matches("urn:amove-gateway:problem:") == "upstream-auth";
        match reply.status {
            StatusCode::UNAUTHORIZED => {
                let advice = "Give the file with its admin token: --admin-token-file FILE";
                Failure::new(Exit::Other, format!("{said}\n{advice}"))
            }
            StatusCode::BAD_GATEWAY if is_refused(&kind_of(&reply.body)) => {
                let advice = "Correct the credentials; then `token refresh` tries them once more.";
                Failure::new(Exit::Refused, format!("{said}\n{advice}"))
            }
            _ => Failure::new(Exit::Other, said),
        }
    }
}
