//! Asks a running gateway something, at its admin listener.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};

use super::{Exit, Failure, Global, runtime};
use crate::{
    admin::Report,
    config::{Config, Listen, secret::Secret},
};

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

/// What a problem tells an operator.
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
                let address = reachable(config.server.admin_listen, "no server.admin_listen")?;
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
        let message = format!("{setting} is a TCP address to ask; give one with --address");
        return Err(Failure::new(Exit::Config, message));
    };
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
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
        let asking = async {
            let stream = timeout(PATIENCE, TcpStream::connect(&self.address)).await??;
            timeout(patience, exchange(stream, request)).await?
        };
        runtime()?.block_on(asking).map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let address = &self.address;
        let message = format!(
            "no gateway answers at {address}: {error}\n\
             Is it running? Its log tells its admin address; --address HOST:PORT asks elsewhere."
        );
        Failure::new(Exit::Unreachable, message)
    }

    /// How it stands, all in all.
    pub(super) fn report(&self) -> Result<Report, Failure> {
        self.read(&self.get("/-/status.json")?)
    }

    /// What an answer means that is not 200.
    fn refused(&self, reply: &Reply) -> Failure {
        let told: Told = serde_json::from_slice(&reply.body).unwrap_or_else(|_| Told {
            detail: String::from_utf8_lossy(&reply.body).into_owned(),
            ..Told::default()
        });
        let sentence = told.reason.unwrap_or(told.detail);
        let (address, status) = (&self.address, reply.status.as_u16());
        let sentence = match printable(&sentence) {
            empty if empty.is_empty() => "is that its admin listener?".to_owned(),
            sentence => sentence,
        };
        let said = format!("the gateway at {address} answers {status}: {sentence}");
        if reply.status == StatusCode::UNAUTHORIZED {
            let advice = "Name the file with its admin token: --admin-token-file FILE";
            return Failure::new(Exit::Other, format!("{said}\n{advice}"));
        }
        if told.kind.ends_with(":upstream-auth") {
            let advice = "Correct the credentials; `token refresh` tries them once more.";
            return Failure::new(Exit::Refused, format!("{said}\n{advice}"));
        }
        Failure::new(Exit::Other, said)
    }

    /// What is told by an answer that must be JSON of this form.
    pub(super) fn read<T: DeserializeOwned>(&self, reply: &Reply) -> Result<T, Failure> {
        if reply.status != StatusCode::OK {
            return Err(self.refused(reply));
        }
        serde_json::from_slice(&reply.body).map_err(|error| {
            let what = format!("what answers at {} is no gateway of this version", self.address);
            Failure::caused(Exit::Other, &what, &error)
        })
    }
}

async fn exchange(stream: TcpStream, request: Request<Empty<Bytes>>) -> io::Result<Reply> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        Ok(Reply { status, body: body.map_err(io::Error::other)?.to_bytes() })
    };
    // The connection moves while the answer is waited for, and ends with it.
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// The same text, on one line and without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.trim().replace(char::is_control, " ")
}
