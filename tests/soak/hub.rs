//! A caller of the hub: SignalR over a WebSocket.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::sleep,
};

use crate::{
    book::Heard,
    calls::{KEYS, token},
};

/// Says so many words, each of which must come back; then says good-bye.
///
/// # Errors
///
/// What is wrong, be there trouble or not.
pub(crate) async fn talk(socket: &Path, number: u64, words: u64) -> Result<Heard, String> {
    let token = token(number);
    let opened = UnixStream::connect(socket).await;
    let mut stream = opened.map_err(|error| format!("nobody takes a connection: {error}"))?;
    let asking = format!(
        "GET /api/rm HTTP/1.1\r\nHost: x\r\nX-Api-Key: {}\r\nX-Request-Id: {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        KEYS[0]
    );
    let asked = async {
        stream.write_all(asking.as_bytes()).await?;
        head(&mut stream).await
    };
    let head =
        asked.await.map_err(|error| format!("{token}: the hub is not answered for: {error}"))?;
    if !head.contains(&format!("x-request-id: {token}\r\n")) {
        return Err(format!("{token}: the answer to another request: {head}"));
    }
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
    if status != 101 {
        return Ok(Heard::Answer(status));
    }
    match conversation(&mut stream, &token, words).await {
        Ok(None) => Ok(Heard::Answer(101)),
        Ok(Some(wrong)) => Err(wrong),
        Err(_) => Ok(Heard::Cut(101)),
    }
}

/// What is wrong with it, if it was not broken off.
async fn conversation(
    stream: &mut UnixStream,
    token: &str,
    words: u64,
) -> io::Result<Option<String>> {
    say(stream, r#"{"protocol":"json","version":1}"#).await?;
    let mut expected = "{}".to_owned();
    for word in 0..=words {
        let heard = answer(stream).await?;
        if heard != format!("{expected}\u{1e}") {
            return Ok(Some(format!("{token}: {heard} instead of {expected}")));
        }
        sleep(Duration::from_millis(10)).await;
        let called =
            format!(r#"{{"type":1,"invocationId":"{word}","target":"t","arguments":["{token}"]}}"#);
        say(stream, &called).await?;
        expected = format!(r#"{{"invocationId":"{word}","result":"{token}","type":3}}"#);
    }
    answer(stream).await?;
    say(stream, r#"{"type":7}"#).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(None)
}

/// A message as a client sends it.
async fn say(stream: &mut UnixStream, text: &str) -> io::Result<()> {
    let (text, mask) = (format!("{text}\u{1e}"), [7, 1, 2, 3]);
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).expect("a short text")];
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    stream.write_all(&frame).await
}

/// What the hub says, leaving out what it says to everybody.
async fn answer(stream: &mut UnixStream) -> io::Result<String> {
    loop {
        let (_, length) = (stream.read_u8().await?, stream.read_u8().await?);
        let mut payload = vec![0; length.into()];
        stream.read_exact(&mut payload).await?;
        let said = String::from_utf8_lossy(&payload).into_owned();
        if !said.contains("progress") {
            return Ok(said);
        }
    }
}

/// All up to an empty line.
async fn head(stream: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).to_ascii_lowercase())
}
