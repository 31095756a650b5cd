//! The emulated hub behind the gateway, as users of the sandbox meet it.

use amove_gateway::emulator::{Emulator, Host, Options};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    process_support::{Gateway, emulator, get, soon},
    support::{ASK, Peer},
};

/// A text frame of a client.
fn frame(text: &str) -> Vec<u8> {
    let mask = [7, 1, 2, 3];
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).expect("a short text")];
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The next frame of the server: its first byte, and what it says.
async fn read_frame(peer: &mut Peer) -> (u8, String) {
    let read = async {
        let (first, length) = (peer.stream.read_u8().await?, peer.stream.read_u8().await?);
        let mut payload = vec![0; length.into()];
        peer.stream.read_exact(&mut payload).await?;
        std::io::Result::Ok((first, String::from_utf8_lossy(&payload).into_owned()))
    };
    soon("a frame", read).await.expect("a frame")
}

/// What the server says, leaving out what it says to everybody.
async fn answer(peer: &mut Peer) -> String {
    loop {
        let (_, said) = read_frame(peer).await;
        if !said.contains("progress") {
            return said;
        }
    }
}

async fn talks_signalr(gateway: &Gateway) {
    let stream = TcpStream::connect(gateway.address).await.expect("a connection");
    let mut peer = Peer { stream };
    peer.say(&format!("{ASK}\r\n")).await;
    let head = peer.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");

    for (says, expected) in [
        (r#"{"protocol":"json","version":1}"#, "{}"),
        (r#"{"type":6}"#, r#"{"type":6}"#),
        (
            r#"{"type":1,"invocationId":"1","target":"t","arguments":["echo"]}"#,
            r#"{"invocationId":"1","result":"echo","type":3}"#,
        ),
    ] {
        peer.stream.write_all(&frame(&format!("{says}\u{1e}"))).await.expect("somebody who reads");
        assert_eq!(answer(&mut peer).await, format!("{expected}\u{1e}"));
    }
    peer.stream.write_all(&frame("{\"type\":7}\u{1e}")).await.expect("somebody who reads");
    assert_eq!(answer(&mut peer).await, "{\"type\":7}\u{1e}");
    let (first, _) = read_frame(&mut peer).await;
    assert_eq!(first, 0x88, "a frame that closes");
    assert_eq!(peer.rest().await.expect("a clean end"), "");
}

/// In which version the hub and another route were asked.
fn versions(emulator: &Emulator) -> (String, String) {
    let requests = emulator.requests();
    let version = |is_hub: bool| {
        let mut seen = requests.iter().filter(|it| it.host == Host::Main);
        let seen = seen.find(|it| it.target.starts_with("/api/rm") == is_hub);
        seen.expect("a request").version.clone()
    };
    (version(true), version(false))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_talks_signalr_through_the_gateway() {
    let emulator = emulator(Options::default()).await;
    let gateway = Gateway::ready(&emulator, &[]).await;

    talks_signalr(&gateway).await;
    // A connection that was kept is one that may switch.
    assert_eq!(get(gateway.address, "/api/v1/user/userinfo").await.status(), 200);
    talks_signalr(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_api_speaks_http2_a_tunnel_has_a_connection_of_its_own() {
    let folder = TempDir::new().expect("a folder");
    let options =
        Options { tls_dir: Some(folder.path().into()), http2: true, ..Options::default() };
    let emulator = emulator(options).await;
    let ca = folder.path().join("ca.pem");
    let settings = [("AMOVE_GATEWAY_UPSTREAM__CA_FILE", ca.to_str().expect("a path"))];
    let gateway = Gateway::ready(&emulator, &settings).await;

    assert_eq!(get(gateway.address, "/api/v1/user/userinfo").await.status(), 200);
    talks_signalr(&gateway).await;
    assert_eq!(get(gateway.address, "/api/v1/user/userinfo").await.status(), 200);

    assert_eq!(versions(&emulator), ("HTTP/1.1".into(), "HTTP/2.0".into()));
}
