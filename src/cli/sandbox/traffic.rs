//! Sample traffic: three callers, some legacy routes, some errors, one over its limit.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::sleep};

/// A caller of the sandbox.
pub(super) struct Caller {
    /// Its name.
    pub(super) name: &'static str,
    /// Its key, which everybody knows.
    pub(super) key: &'static str,
    /// How many requests it may send.
    pub(super) rate: &'static str,
    /// How long it waits between two.
    pause: Duration,
    requests: &'static [(Method, &'static str)],
}

/// The callers of the sandbox.
pub(super) const CALLERS: [Caller; 3] = [
    Caller {
        name: "billing",
        key: "sandbox-billing",
        rate: "20/s",
        pause: Duration::from_millis(900),
        requests: &[
            (Method::GET, "/api/v1/user/userinfo"),
            (Method::GET, "/api/v1/user/package_inquiry"),
            (Method::GET, "/api/v1/transfer/get_all?page=1&pagesize=5"),
        ],
    },
    Caller {
        name: "legacy-app",
        key: "sandbox-legacy-app",
        rate: "20/s",
        pause: Duration::from_millis(1700),
        requests: &[
            (Method::GET, "/api/project/get_all"),
            (Method::GET, "/api/user/userinfo"),
            (Method::DELETE, "/api/cloudaccount/delete?id=nobody"),
        ],
    },
    Caller {
        name: "hasty",
        key: "sandbox-hasty",
        rate: "1/s",
        pause: Duration::from_millis(400),
        requests: &[
            (Method::GET, "/api/v1/usergroup/get_all"),
            (Method::GET, "/api/v1/sync/get?id=nobody"),
        ],
    },
];

/// Sends requests to `gateway` until it is dropped.
pub(super) async fn send(gateway: String) {
    let [first, second, third] = CALLERS.map(|caller| call(gateway.clone(), caller));
    tokio::join!(first, second, third);
}

async fn call(gateway: String, caller: Caller) {
    for (method, target) in caller.requests.iter().cycle() {
        sleep(caller.pause).await;
        // A request that fails is part of the show; the gateway tells about it.
        if let Err(error) = ask(&gateway, &caller, method, target).await {
            tracing::debug!(error = error.to_string(), "sample request failed");
        }
    }
}

async fn ask(
    gateway: &str,
    caller: &Caller,
    method: &Method,
    target: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(gateway).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", gateway)
        .header("x-api-key", caller.key)
        .header("connection", "close")
        .body(Full::new(Bytes::new()))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        response.into_body().collect().await
    };
    let (answered, _) = tokio::join!(exchange, connection);
    answered?;
    Ok(())
}
