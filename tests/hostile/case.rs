//! One malformed message, and what must become of it.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    backend::{Received, What},
    strict::Message,
    target::{Client, Target},
};

/// What a smuggler hopes for: that this is taken for a request of its own.
pub(crate) const SMUGGLED: &str = "GET /api/v1/hostile/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// Where the cases lead.
pub(crate) const PATH: &str = "/api/v1/hostile/case";

/// A case: a name, bytes, and what is expected.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    name: String,
    /// They are sent one after the other, with a pause between.
    pieces: Vec<Vec<u8>>,
    /// The client sends nothing more afterwards, and says so.
    shuts: bool,
    expected: Expected,
}

/// What must become of it.
#[derive(Clone, Debug)]
enum Expected {
    /// So many requests are answered with 200, then one with this problem; then the connection
    /// ends, and what came behind is not answered. Nothing of the refused one arrives.
    Refused { good: usize, statuses: &'static [u16] },
    /// It is answered with this problem, and the connection goes on, or ends if there is a body.
    Declined { status: u16, is_head: bool },
    /// It arrives as these requests, and the connection goes on (if it `lives`).
    Forwarded { requests: Vec<(String, String, Vec<u8>)>, lives: bool },
    /// It never arrives whole; the client may be told so.
    Lost,
}

impl Case {
    fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: Expected) -> Self {
        Self { name: name.into(), pieces: vec![bytes.into()], shuts: false, expected }
    }

    /// Refused with 400. What follows it must not be taken for a request.
    pub(crate) fn refused(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self::refused_with(&[400], name, bytes)
    }

    /// Refused with one of these.
    pub(crate) fn refused_with(
        statuses: &'static [u16],
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self::new(name, bytes, Expected::Refused { good: 0, statuses }).then(SMUGGLED)
    }

    /// After so many good requests, one that is refused.
    pub(crate) fn refused_after(
        good: usize,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self::new(name, bytes, Expected::Refused { good, statuses: &[400] }).then(SMUGGLED)
    }

    /// Well framed, and not wanted.
    pub(crate) fn declined(
        status: u16,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        let bytes = bytes.into();
        let is_head = bytes.starts_with(b"HEAD");
        Self::new(name, bytes, Expected::Declined { status, is_head })
    }

    /// Arrives as one request.
    pub(crate) fn forwarded(
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        (method, target, body): (&str, &str, &str),
    ) -> Self {
        Self::pipelined(name, bytes, &[(method, target, body)])
    }

    /// Arrives as these requests.
    pub(crate) fn pipelined(
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        requests: &[(&str, &str, &str)],
    ) -> Self {
        let owned = |(method, target, body): &(&str, &str, &str)| {
            (method.to_string(), target.to_string(), body.as_bytes().to_vec())
        };
        let requests = requests.iter().map(owned).collect();
        Self::new(name, bytes, Expected::Forwarded { requests, lives: true })
    }

    /// Breaks off, and never arrives whole.
    pub(crate) fn lost(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { shuts: true, ..Self::new(name, bytes, Expected::Lost) }
    }

    /// The connection ends after it, as the client or its version wishes.
    pub(crate) fn and_ends(mut self) -> Self {
        if let Expected::Forwarded { lives, .. } = &mut self.expected {
            *lives = false;
        }
        self
    }

    /// Sends more, at once.
    fn then(mut self, bytes: &str) -> Self {
        let last = self.pieces.last_mut().expect("a piece");
        last.extend_from_slice(bytes.as_bytes());
        self
    }

    /// Sends the bytes in other pieces: those that lie between pauses.
    pub(crate) fn with_pauses_at(mut self, cuts: &[usize]) -> Self {
        let all = self.pieces.concat();
        let ends = cuts.iter().copied().chain([all.len()]);
        let begins = [0].into_iter().chain(cuts.iter().copied());
        self.pieces = begins.zip(ends).map(|(from, to)| all[from..to].to_vec()).collect();
        self
    }

    /// The ways in which it is sent: at once, byte by byte, and with a pause before its body.
    fn ways(&self) -> Vec<Self> {
        let all = self.pieces.concat();
        let with = |suffix, pieces| Self {
            name: format!("{}, {suffix}", self.name),
            pieces,
            ..self.clone()
        };
        let mut ways = vec![self.clone()];
        if all.len() < 1000 {
            ways.push(with("byte by byte", all.iter().map(|byte| vec![*byte]).collect()));
        }
        if self.pieces.len() == 1
            && let Some(head) = all.windows(4).position(|it| it == b"\r\n\r\n")
            && head + 4 < all.len()
        {
            let (head, body) = all.split_at(head + 4);
            ways.push(with("head first", vec![head.to_vec(), body.to_vec()]));
        }
        ways
    }
}

/// Runs all `cases` in all ways, each followed by an honest caller.
pub(crate) async fn check_all(cases: Vec<Case>) {
    let target = Target::start().await;
    let mut unsafe_ones = Vec::new();
    let mut runs = 0;
    for way in cases.iter().flat_map(Case::ways) {
        runs += 1;
        if let Err(what) = check(&target, &way).await {
            let shown = String::from_utf8_lossy(&way.pieces.concat()).into_owned();
            let shown: String = shown.chars().take(300).collect();
            unsafe_ones.push(format!("{}: {what}\n    {shown:?}", way.name));
        }
    }
    eprintln!("{} cases in {runs} ways, {} unsafe", cases.len(), unsafe_ones.len());
    assert!(unsafe_ones.is_empty(), "{} of {runs}:\n{}", unsafe_ones.len(), unsafe_ones.join("\n"));
}

async fn check(target: &Target, case: &Case) -> Result<(), String> {
    target.backend.take();
    let mut client = Client::to(target.gateway.address).await;
    let pause = if case.pieces.len() > 20 { Duration::ZERO } else { Duration::from_millis(4) };
    for (at, piece) in case.pieces.iter().enumerate() {
        if at > 0 && !pause.is_zero() {
            sleep(pause).await;
        }
        client.write(piece).await;
    }
    if case.shuts {
        client.shut().await;
    }
    let own = match &case.expected {
        Expected::Refused { good, statuses } => {
            for _ in 0..*good {
                expect_status(&mut client, &[200], false).await?;
            }
            expect_status(&mut client, statuses, false).await?;
            expect_end(&mut client).await?;
            expect_received(target, |received| received.len() == *good)?
        }
        Expected::Declined { status, is_head } => {
            expect_status(&mut client, &[*status], *is_head).await?;
            expect_own_answer_or_end(target, &mut client).await?;
            expect_received(target, |received| received.is_empty())?
        }
        Expected::Forwarded { requests, lives } => {
            for (method, ..) in requests {
                expect_status(&mut client, &[200], method == "HEAD").await?;
            }
            if *lives {
                expect_own_answer(target, &mut client).await?;
            } else {
                expect_end(&mut client).await?;
            }
            expect_received(target, |received| {
                let same = |(it, (method, path, body)): (&&Message, &(String, String, Vec<u8>))| {
                    it.method == *method && it.target == *path && it.body == *body
                };
                received.len() == requests.len() && received.iter().zip(requests).all(same)
            })?
        }
        Expected::Lost => {
            if !client.ends().await {
                return Err("the connection stays open".into());
            }
            if String::from_utf8_lossy(&client.bytes).contains("HTTP/1.1 200") {
                return Err("it is answered with 200".into());
            }
            expect_received(target, |received| received.is_empty())?
        }
    };
    target.serves().await?;
    let after = target.backend.take();
    if own.iter().chain(&after).any(|it| matches!(it.what, What::Garbage(_))) {
        return Err(format!("the API receives {}, {}", shown(&own), shown(&after)));
    }
    if let Expected::Forwarded { .. } = case.expected {
        // The honest request was the next one on the very same connection to the API.
        let first = own.first().map(|it| it.connection);
        if own.iter().chain(&after).any(|it| Some(it.connection) != first) {
            return Err(format!("several connections: {}, {}", shown(&own), shown(&after)));
        }
    }
    match &after[..] {
        // The honest request, and before it perhaps how a connection ended.
        [before @ .., Received { what: What::Request(it), .. }]
            if it.target.contains("token=")
                && !before.iter().any(|it| matches!(it.what, What::Request(_))) =>
        {
            Ok(())
        }
        other => Err(format!("instead of the honest request the API receives {}", shown(other))),
    }
}

fn shown(received: &[Received]) -> String {
    let all = received.iter().map(|it| format!("[{}] {}", it.connection, it.what.shown()));
    all.collect::<Vec<_>>().join(", ")
}

async fn expect_status(client: &mut Client, statuses: &[u16], to_head: bool) -> Result<(), String> {
    let Some(reply) = client.reply(to_head).await else {
        let rest = String::from_utf8_lossy(&client.bytes);
        return Err(format!("not answered {statuses:?}, but {rest:?}"));
    };
    if !statuses.contains(&reply.status) {
        return Err(format!("not answered {statuses:?}, but {reply:?}"));
    }
    if reply.status >= 400 && !reply.head.contains("application/problem+json") {
        return Err(format!("not a problem: {reply:?}"));
    }
    Ok(())
}

async fn expect_end(client: &mut Client) -> Result<(), String> {
    if !client.ends().await {
        return Err("the connection stays open".into());
    }
    if client.bytes.is_empty() {
        return Ok(());
    }
    Err(format!("one answer too many: {:?}", String::from_utf8_lossy(&client.bytes)))
}

/// An answer that did not wait for the body may be the last one; if it is not, the next request
/// gets its own.
async fn expect_own_answer_or_end(target: &Target, client: &mut Client) -> Result<(), String> {
    let outcome = expect_own_answer(target, client).await;
    if outcome.is_err() && client.ends().await && client.bytes.is_empty() {
        return Ok(());
    }
    outcome
}

/// An honest request on the same connection gets its own answer.
async fn expect_own_answer(target: &Target, client: &mut Client) -> Result<(), String> {
    let (request, token) = target.honest();
    client.write(request.as_bytes()).await;
    match client.reply(false).await {
        Some(reply) if reply.body == token.as_bytes() => Ok(()),
        other => Err(format!("the next request is answered {other:?}")),
    }
}

/// What the API has received of the case: the honest requests left out, whole and unambiguous.
fn expect_received(
    target: &Target,
    is_expected: impl Fn(&[&Message]) -> bool,
) -> Result<Vec<Received>, String> {
    let received = target.backend.take();
    let requests = dishonest(&received);
    if !is_expected(&requests) {
        return Err(format!("the API receives {}", shown(&received)));
    }
    requests.into_iter().try_for_each(|message| is_clean(target, message))?;
    Ok(received)
}

/// The whole requests that are not honest ones.
pub(crate) fn dishonest(received: &[Received]) -> Vec<&Message> {
    let requests = received.iter().filter_map(|it| match &it.what {
        What::Request(message) if !message.target.contains("token=") => Some(message),
        _ => None,
    });
    requests.collect()
}

/// Whether it is for the API alone, signed in by us, and has nothing that was not for the API.
pub(crate) fn is_clean(target: &Target, message: &Message) -> Result<(), String> {
    if message.target.contains("smuggled") {
        return Err(format!("smuggled: {message:?}"));
    }
    let host = target.backend.address.to_string();
    let is_ours = message.all("host") == [host.as_str()]
        && matches!(message.all("authorization")[..], [it] if it.starts_with("Bearer "));
    let leaks = message.fields.iter().find(|(name, _)| {
        let hop = ["connection", "te", "upgrade", "keep-alive", "trailer", "cookie"];
        hop.contains(&&**name) || name.starts_with("proxy-") || name.starts_with("x-forwarded-")
    });
    if !is_ours || leaks.is_some() {
        return Err(format!("not cleaned: {message:?}"));
    }
    Ok(())
}
