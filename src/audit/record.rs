//! One record: what it holds, and in which order everything is written.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::value::{Hash, Value};

/// One request and how it ended, or that it began. Never holds a path, a query, a body or a
/// credential. Its texts are borrowed: from the exchange that it is about, or from where it was
/// read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record<'a> {
    /// What it is about.
    pub phase: Phase,
    /// Of the request: its intent and its outcome share it. In the order of time (UUIDv7).
    pub id: Uuid,
    /// What the caller calls its request.
    pub request_id: &'a str,
    /// When it was written, in microseconds since 1970.
    pub time: i64,
    /// Who called.
    pub caller: Option<&'a str>,
    /// Whom the caller is to the API.
    pub identity: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The route's template; never the path.
    pub route: Option<&'a str>,
    /// What the route does.
    pub effect: Option<&'a str>,
    /// The status that the caller got.
    pub status: Option<u16>,
    /// The status that the API gave last.
    pub upstream_status: Option<u16>,
    /// The API's code for its last error.
    pub code: Option<&'a str>,
    /// How it ended; nothing in an intent.
    pub outcome: Option<Outcome>,
    /// From the first byte of the request to the last of the answer, in microseconds.
    pub duration_us: u64,
    /// The API's part of that.
    pub upstream_us: u64,
    /// Size of the request's body.
    pub bytes_in: u64,
    /// Size of the answer's body.
    pub bytes_out: u64,
    /// How often the request was sent.
    pub attempts: u32,
    /// What became of the replay, where our token was denied.
    pub replay: Option<Replay>,
    /// The rule that forbade the call.
    pub rule: Option<&'a str>,
    /// Whether the path came without a version.
    pub legacy: bool,
    /// Where the request came from.
    pub peer: &'a str,
    /// The trace that the caller's request belongs to (W3C Trace Context).
    pub trace_id: Option<&'a str>,
    /// In a gap: how many records could not be written.
    pub lost: u64,
}

/// A record in its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed<'a> {
    /// Its number; there are no holes.
    pub seq: u64,
    /// Which gateway wrote it: host and instance.
    pub gateway: &'a str,
    /// What it says.
    pub record: Record<'a>,
    /// The hash of the record before it.
    pub prev_hash: Hash,
    /// The hash over all of it and `prev_hash`.
    pub hash: Hash,
}

/// How many values a record in the chain has.
pub(super) const FIELDS: usize = 28;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All of them, as they are written.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// As it is written.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The one that is written so.
            pub fn of(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// What a record is about.
    Phase {
        /// That a request begins which may change something, or last.
        Intent = "intent",
        /// How a request ended.
        Outcome = "outcome",
        /// That records before it could not be written.
        Gap = "gap",
    }
}

words! {
    /// How a request ended.
    Outcome {
        /// The API answered, and well.
        Ok = "ok",
        /// The API answered with an error.
        UpstreamError = "upstream_error",
        /// We did not let it pass.
        Denied = "denied",
        /// The caller's quota was used up.
        Limited = "limited",
        /// Nobody knows who called.
        Unauthenticated = "unauthenticated",
        /// The caller left before the end.
        ClientClosed = "client_closed",
        /// It could not be served.
        Failed = "failed",
    }
}

words! {
    /// What became of a replay after our token was denied.
    Replay {
        /// The request was sent once more, with a newer token.
        Done = "done",
        /// It may spend something that works once, or nobody knows what it does.
        Declined = "declined",
        /// Its body was too large to keep.
        TooLarge = "too_large",
        /// There was no newer token to be had.
        Failed = "failed",
    }
}

impl<'a> Record<'a> {
    /// That `lost` records could not be written.
    pub fn gap(lost: u64, time: i64) -> Self {
        Self {
            phase: Phase::Gap,
            id: Uuid::now_v7(),
            request_id: "",
            time,
            caller: None,
            identity: None,
            method: "",
            route: None,
            effect: None,
            status: None,
            upstream_status: None,
            code: None,
            outcome: None,
            duration_us: 0,
            upstream_us: 0,
            bytes_in: 0,
            bytes_out: 0,
            attempts: 0,
            replay: None,
            rule: None,
            legacy: false,
            peer: "",
            trace_id: None,
            lost,
        }
    }

    /// Whether it is how something has ended that was announced before, or may have been: what only
    /// reads is not announced, unless it lasts.
    pub(super) fn ends_announced(&self) -> bool {
        let only_reads = self.effect == Some("read") && self.route != Some("/api/rm");
        self.phase == Phase::Outcome && !only_reads
    }

    /// Whether nothing is said that has no meaning in its phase.
    pub(super) fn is_plausible(&self) -> bool {
        let measures = [self.duration_us, self.upstream_us, self.bytes_in, self.bytes_out];
        let measured = self.attempts > 0 || measures.iter().any(|it| *it > 0);
        let about_request =
            [self.request_id, self.method, self.peer].iter().any(|it| !it.is_empty());
        match self.phase {
            Phase::Outcome => self.lost == 0,
            Phase::Intent => self.lost == 0 && !measured,
            Phase::Gap => !measured && !about_request,
        }
    }
}

impl Sealed<'_> {
    /// All values with their names, in the order in which everything is written: JSON, tables,
    /// CSV, columns, and the hash. `hash` comes last.
    pub fn values(&self) -> [(&'static str, Value<'_>); FIELDS] {
        let mut values = [("hash", Value::Hash(&self.hash)); FIELDS];
        let mut places = values.iter_mut();
        self.content(|name, value| {
            if let Some(place) = places.next() {
                *place = (name, value);
            }
        });
        values
    }

    /// Shows the same one by one, without the hash, which is taken over them.
    #[rustfmt::skip] // a table reads in columns
    #[inline]
    fn content<'a>(&'a self, mut show: impl FnMut(&'static str, Value<'a>)) {
        use Value::{Bool, Hash, Id, Null, Number, Text, Time};
        let record = &self.record;
        let text = |text: Option<_>| text.map_or(Null, Text);
        let number = |number: Option<u16>| number.map_or(Null, |number| Number(number.into()));
        // What was not measured is nothing, not zero.
        let measured = |number| if record.phase == Phase::Outcome { Number(number) } else { Null };
        let about_request = |text| if record.phase == Phase::Gap { Null } else { Text(text) };
        show("seq",             Number(self.seq));
        show("phase",           Text(record.phase.word()));
        show("id",              Id(record.id));
        show("request_id",      about_request(record.request_id));
        show("time",            Time(record.time));
        show("gateway",         Text(self.gateway));
        show("caller",          text(record.caller));
        show("identity",        text(record.identity));
        show("method",          about_request(record.method));
        show("route",           text(record.route));
        show("effect",          text(record.effect));
        show("status",          number(record.status));
        show("upstream_status", number(record.upstream_status));
        show("code",            text(record.code));
        show("outcome",         text(record.outcome.map(Outcome::word)));
        show("duration_us",     measured(record.duration_us));
        show("upstream_us",     measured(record.upstream_us));
        show("bytes_in",        measured(record.bytes_in));
        show("bytes_out",       measured(record.bytes_out));
        show("attempts",        measured(record.attempts.into()));
        show("replay",          text(record.replay.map(Replay::word)));
        show("rule",            text(record.rule));
        show("legacy",          Bool(record.legacy));
        show("peer",            about_request(record.peer));
        show("trace_id",        text(record.trace_id));
        show("lost",            if record.phase == Phase::Gap { Number(record.lost) } else { Null });
        show("prev_hash",       Hash(&self.prev_hash));
    }

    /// Adds it to `out` as one line of JSON.
    pub fn json_line(&self, out: &mut Vec<u8>) {
        let mut before = b'{';
        for (name, value) in self.values() {
            out.push(before);
            before = b',';
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            value.json(out);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Adds to `out` what the hash is taken over: all other values as one JSON array, without
    /// spaces. Who has the record as JSON can make it with `jq -cj '[.seq, .phase, …]'`.
    pub(super) fn canonical(&self, out: &mut Vec<u8>) {
        let mut before = b'[';
        // Without an array in between: this is done for every record.
        self.content(|_, value| {
            out.push(before);
            before = b',';
            value.json(out);
        });
        out.push(b']');
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with something in every field.
    pub(in crate::audit) fn sample() -> Record<'static> {
        Record {
            phase: Phase::Outcome,
            id: Uuid::from_u128(0x019a_0000_0000_7000_8000_0000_0000_0001),
            request_id: "req-1",
            time: 1_764_115_200_123_456,
            caller: Some("billing"),
            identity: Some("main"),
            method: "POST",
            route: Some("/api/v1/project/create"),
            effect: Some("write"),
            status: Some(200),
            upstream_status: Some(200),
            code: None,
            outcome: Some(Outcome::Ok),
            duration_us: 1234,
            upstream_us: 1000,
            bytes_in: 10,
            bytes_out: 20,
            attempts: 1,
            replay: None,
            rule: Some("deny \"x\\y\""),
            legacy: false,
            peer: "127.0.0.1:1234",
            trace_id: None,
            lost: 0,
        }
    }

    fn sealed(record: Record<'static>) -> Sealed<'static> {
        Sealed { seq: 7, gateway: "host/1", record, prev_hash: [1; 32], hash: [0xab; 32] }
    }

    #[test]
    fn a_line_is_json_that_reads_as_it_was_meant() {
        let mut line = Vec::new();

        sealed(sample()).json_line(&mut line);

        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(json["seq"], 7);
        assert_eq!(json["time"], "2025-11-26T00:00:00.123456Z");
        assert_eq!(json["rule"], "deny \"x\\y\"");
        assert_eq!(json["code"], serde_json::Value::Null);
        assert_eq!(json["outcome"], "ok");
        assert_eq!(json["hash"], "ab".repeat(32));
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(FIELDS));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn the_hash_is_taken_over_the_values_in_the_order_of_the_line() {
        let sealed = sealed(sample());
        let (mut line, mut canonical) = (Vec::new(), Vec::new());
        sealed.json_line(&mut line);
        sealed.canonical(&mut canonical);

        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        let names = sealed.values().map(|(name, _)| name);
        let values: Vec<_> = names[..FIELDS - 1].iter().map(|name| json[name].clone()).collect();

        assert_eq!(serde_json::to_string(&values).expect("JSON").as_bytes(), canonical);
    }

    #[test]
    fn a_gap_says_how_much_is_missing_and_nothing_about_a_request() {
        let mut line = Vec::new();

        sealed(Record::gap(3, 0)).json_line(&mut line);

        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(json["lost"], 3);
        assert_eq!(
            (&json["status"], &json["peer"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
    }
}
