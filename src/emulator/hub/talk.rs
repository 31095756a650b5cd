//! One conversation in SignalR's JSON protocol, whatever carries it.

use serde_json::{Value, json};

use super::END;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Talk {
    greeted: bool,
    /// The beginning of a message.
    rest: String,
}

/// What a message is answered with.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// A message.
    This(String),
    /// A last one, and the end.
    Bye(String),
}

/// Nobody says so much at once.
const LONGEST: usize = 64 * 1024;

impl Talk {
    /// Whether both have agreed on the protocol.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// The answers to a part of what the client says.
    pub(super) fn hear(&mut self, text: &str) -> Vec<Said> {
        if self.rest.len() + text.len() > LONGEST {
            return vec![Said::Bye(bye("The message is too long."))];
        }
        self.rest.push_str(text);
        let whole = self.rest.rfind(END).map_or(0, |end| end + END.len_utf8());
        let rest = self.rest.split_off(whole);
        let messages = std::mem::replace(&mut self.rest, rest);
        messages.split_terminator(END).filter_map(|message| self.message(message)).collect()
    }

    fn message(&mut self, message: &str) -> Option<Said> {
        let message: Value = serde_json::from_str(message).unwrap_or_default();
        if !self.greeted {
            let is_known = message["protocol"] == "json" && message["version"] == 1;
            self.greeted = is_known;
            return Some(if is_known {
                Said::This("{}".to_owned())
            } else {
                Said::Bye(json!({"error": "The protocol is not supported."}).to_string())
            });
        }
        match message["type"].as_u64() {
            // An invocation is answered with its own argument, if an answer is wanted.
            Some(1) => {
                let id = message.get("invocationId")?;
                let result = message["arguments"].get(0).cloned().unwrap_or_default();
                let done = json!({"type": 3, "invocationId": id, "result": result});
                Some(Said::This(done.to_string()))
            }
            Some(6) => Some(Said::This(ping())),
            Some(7) => Some(Said::Bye(json!({"type": 7}).to_string())),
            Some(2..=5) => None,
            _ => Some(Said::Bye(bye("The message cannot be read."))),
        }
    }
}

/// Says that one is still there.
pub(super) fn ping() -> String {
    json!({"type": 6}).to_string()
}

fn bye(error: &str) -> String {
    json!({"type": 7, "error": error}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

    #[track_caller]
    fn check(says: &[&str], expected: &[&str]) {
        let mut talk = Talk::default();
        let said = says.iter().flat_map(|it| talk.hear(it)).map(|said| match said {
            Said::This(text) => text,
            Said::Bye(text) => format!("bye {text}"),
        });
        assert_eq!(said.collect::<Vec<_>>(), expected, "{says:?}");
    }

    #[test]
    fn it_greets_echoes_and_pings() {
        check(&[HELLO], &["{}"]);
        check(&[&HELLO[..7], &HELLO[7..]], &["{}"]);
        check(&[&format!("{HELLO}{{\"type\":6}}\u{1e}")], &["{}", r#"{"type":6}"#]);
        let call =
            "{\"type\":1,\"invocationId\":\"7\",\"target\":\"echo\",\"arguments\":[\"x\"]}\u{1e}";
        check(&[HELLO, call], &["{}", r#"{"invocationId":"7","result":"x","type":3}"#]);
        check(&[HELLO, "{\"type\":1,\"target\":\"x\",\"arguments\":[]}\u{1e}"], &["{}"]);
        check(&[HELLO, "{\"type\":7}\u{1e}"], &["{}", r#"bye {"type":7}"#]);
    }

    #[test]
    fn it_ends_with_who_speaks_another_protocol() {
        let refused = r#"bye {"error":"The protocol is not supported."}"#;
        check(&["{\"protocol\":\"messagepack\",\"version\":1}\u{1e}"], &[refused]);
        check(&["hello\u{1e}"], &[refused]);
        let unread = r#"bye {"error":"The message cannot be read.","type":7}"#;
        check(&[HELLO, "hello\u{1e}"], &["{}", unread]);
    }
}
