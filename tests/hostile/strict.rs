//! Reads requests of HTTP/1.1 so strictly that there is one way to read them, or none.
//!
//! Written for these tests alone: it shares nothing with the gateway, so that one mistake is not
//! made twice.

/// A request that can be read in one way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Message {
    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// What is at the front of some bytes.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Not even a whole head.
    Nothing,
    /// A head, whose body is not complete.
    Head(Message),
    /// A request, and how many bytes it has.
    Whole(Message, usize),
}

/// Reads the request at the front of `bytes`, or says what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let mut rest = bytes;
    let Some(line) = take_line(&mut rest)? else { return Ok(Parsed::Nothing) };
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("not a request line: {line:?}"));
    };
    if !is_token(method) || version != "HTTP/1.1" {
        return Err(format!("not a request line: {line:?}"));
    }
    let is_printable = target.bytes().all(|byte| byte.is_ascii_graphic());
    if !target.starts_with('/') || !is_printable || target.contains(['#', '\\', '"', '<', '>']) {
        return Err(format!("not a target: {target:?}"));
    }
    let Some(fields) = take_fields(&mut rest)? else { return Ok(Parsed::Nothing) };
    let mut message = Message {
        method: method.into(),
        target: target.into(),
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
    };
    let (length, encoding) = (message.all("content-length"), message.all("transfer-encoding"));
    let whole = match (&length[..], &encoding[..]) {
        ([], []) => true,
        ([length], []) => {
            let length = decimal(length)?;
            let body = rest.get(..length);
            message.body = body.unwrap_or_default().to_vec();
            rest = rest.get(length..).unwrap_or_default();
            body.is_some()
        }
        ([], ["chunked"]) => match take_chunks(&mut rest)? {
            Some((body, trailers)) => {
                (message.body, message.trailers) = (body, trailers);
                true
            }
            None => false,
        },
        other => return Err(format!("ambiguous framing: {other:?}")),
    };
    if !whole {
        return Ok(Parsed::Head(message));
    }
    Ok(Parsed::Whole(message, bytes.len() - rest.len()))
}

fn take_line(rest: &mut &[u8]) -> Result<Option<String>, String> {
    let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Ok(None);
    };
    match rest.get(end..end + 2) {
        None if rest[end] == b'\r' => return Ok(None),
        Some(b"\r\n") => {}
        _ => return Err(format!("a bare CR or LF after {:?}", text(&rest[..end]))),
    }
    let line = text(&rest[..end]);
    *rest = &rest[end + 2..];
    Ok(Some(line))
}

fn take_fields(rest: &mut &[u8]) -> Result<Option<Vec<(String, String)>>, String> {
    let mut fields: Vec<(String, String)> = Vec::new();
    loop {
        let Some(line) = take_line(rest)? else { return Ok(None) };
        if line.is_empty() {
            return Ok(Some(fields));
        }
        let (name, value) = line.split_once(':').ok_or(format!("no colon: {line:?}"))?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        let is_odd = |it: char| it != '\t' && it.is_control();
        if !is_token(name) || name.contains('_') || value.contains(is_odd) || value != value.trim()
        {
            return Err(format!("not a field: {line:?}"));
        }
        let only_once =
            ["host", "content-length", "transfer-encoding", "authorization", "content-type"];
        let name = name.to_ascii_lowercase();
        if only_once.contains(&&*name) && fields.iter().any(|(it, _)| *it == name) {
            return Err(format!("twice: {name}"));
        }
        fields.push((name, value.into()));
    }
}

type Chunked = (Vec<u8>, Vec<(String, String)>);

fn take_chunks(rest: &mut &[u8]) -> Result<Option<Chunked>, String> {
    let mut body = Vec::new();
    loop {
        let Some(size) = take_line(rest)? else { return Ok(None) };
        let is_plain = !size.is_empty()
            && size.bytes().all(|byte| byte.is_ascii_hexdigit())
            && (size == "0" || !size.starts_with('0'));
        if !is_plain {
            return Err(format!("not a chunk size: {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|error| error.to_string())?;
        if size == 0 {
            return Ok(take_fields(rest)?.map(|trailers| (body, trailers)));
        }
        let Some(data) = rest.get(..size) else { return Ok(None) };
        match rest.get(size..size + 2) {
            Some(b"\r\n") => {}
            None => return Ok(None),
            Some(other) => return Err(format!("after a chunk: {other:?}")),
        }
        body.extend_from_slice(data);
        *rest = &rest[size + 2..];
    }
}

fn decimal(text: &str) -> Result<usize, String> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse() {
        Ok(number) if is_plain => Ok(number),
        _ => Err(format!("not a length: {text:?}")),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it))
}

/// Each byte as a character, so that nothing is lost.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[test]
fn the_judge_itself_is_strict() {
    for good in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        assert!(matches!(parse(good.as_bytes()), Ok(Parsed::Whole(_, len)) if len == good.len()));
        for end in 0..good.len() {
            let part = parse(&good.as_bytes()[..end]);
            assert!(matches!(part, Ok(Parsed::Nothing | Parsed::Head(_))), "{part:?}");
        }
    }
    for bad in [
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\na: b\rc: d\r\n\r\n",
        "GET / HTTP/1.1\r\na : b\r\n\r\n",
        "GET / HTTP/1.1\r\n a: b\r\n\r\n",
        "GET / HTTP/1.1\r\na_b: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\ncontent-length: 01\r\n\r\na",
        "GET / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0;a\r\n\r\n",
        "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    ] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
