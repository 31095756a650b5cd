//! Records as a table for people.

use jiff::Timestamp;

use crate::{
    audit::{Outcome, Phase, Record, Sealed},
    cli::{
        operator::printable,
        paint::{Paint, paint},
    },
};

const COLUMNS: usize = 8;
const HEAD: [&str; COLUMNS] =
    ["WHEN", "CALLER", "CALL", "STATUS", "OUTCOME", "TOOK", "REQUEST ID", "NOTE"];

/// Rows that are looked at before the first is written, so that they are aligned.
const GATHERED: usize = 200;

/// The longest cell. What a caller sends as the id of its request can be longer.
const LONGEST: usize = 64;

/// How records are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Whether to paint.
    pub(super) colour: bool,
    /// What times count back from; without it they are absolute, in UTC.
    pub(super) ago: Option<Timestamp>,
    /// What an intent is called.
    pub(super) intent: &'static str,
}

/// A table that is being written. Columns become wider, if they have to.
#[derive(Debug)]
pub(super) struct Table {
    look: Look,
    widths: [usize; COLUMNS],
    gathered: Vec<[Cell; COLUMNS]>,
    has_head: bool,
}

#[derive(Debug, Default)]
struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Table {
    pub(super) fn new(look: Look) -> Self {
        Self { look, widths: HEAD.map(str::len), gathered: Vec::new(), has_head: false }
    }

    /// Adds a record; writes to `out` when enough are gathered.
    pub(super) fn add(&mut self, sealed: &Sealed<'_>, out: &mut Vec<u8>) {
        let row = self.look.row(&sealed.record);
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.width());
        }
        self.gathered.push(row);
        if self.gathered.len() == GATHERED {
            self.write(out);
        }
    }

    /// Writes to `out` what is gathered.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        let rows = std::mem::take(&mut self.gathered);
        if !rows.is_empty() && !std::mem::replace(&mut self.has_head, true) {
            let head = |name: &str| Cell { text: name.to_owned(), paint: None };
            self.line(&HEAD.map(head), out);
        }
        rows.iter().for_each(|row| self.line(row, out));
    }

    fn line(&self, row: &[Cell; COLUMNS], out: &mut Vec<u8>) {
        let begin = out.len();
        for (cell, width) in row.iter().zip(self.widths) {
            let shown = match cell.paint {
                Some(look) => paint(&cell.text, look, self.look.colour),
                None => cell.text.clone(),
            };
            out.extend_from_slice(shown.as_bytes());
            out.resize(out.len() + 2 + width - cell.width(), b' ');
        }
        let end = out[begin..].trim_ascii_end().len();
        out.truncate(begin + end);
        out.push(b'\n');
    }
}

impl Cell {
    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl From<String> for Cell {
    /// Of what comes from outside.
    fn from(text: String) -> Self {
        let mut text = printable(&text);
        if let Some((end, _)) = text.char_indices().nth(LONGEST) {
            text.truncate(end);
            text.push('…');
        }
        Self { text, paint: None }
    }
}

impl Look {
    fn row(&self, record: &Record<'_>) -> [Cell; COLUMNS] {
        let text = |text: Option<&str>| Cell::from(text.unwrap_or("-").to_owned());
        let painted = |text: String, paint| Cell { paint, ..Cell::from(text) };
        let when = Cell::from(self.when(record.time));
        if record.phase == Phase::Gap {
            let note = format!("{} records could not be written", record.lost);
            let [a, b, c, d, e, f] = [(); 6].map(|()| text(None));
            return [when, a, b, c, d, e, f, painted(note, Some(Paint::Red))];
        }
        let status = record.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let (outcome, look) = match record.outcome {
            Some(outcome) => (outcome.word(), Some(outcome_paint(outcome))),
            None => (self.intent, Some(Paint::Yellow)),
        };
        let took = match record.phase {
            Phase::Outcome => took(record.duration_us),
            Phase::Intent | Phase::Gap => "-".to_owned(),
        };
        let note: Vec<_> = [record.code, record.rule].into_iter().flatten().collect();
        [
            when,
            text(record.caller),
            Cell::from(format!("{} {}", record.method, record.route.unwrap_or("-"))),
            painted(status, record.status.map(status_paint)),
            painted(outcome.to_owned(), look),
            Cell::from(took),
            text(Some(record.request_id)),
            Cell::from(note.join(", ")),
        ]
    }

    fn when(&self, time: i64) -> String {
        let time = Timestamp::from_microsecond(time).unwrap_or_default();
        match self.ago {
            Some(now) => ago(now.as_second().saturating_sub(time.as_second())),
            None => format!("{time:.3}"),
        }
    }
}

/// So many seconds, in the unit that tells most.
fn ago(seconds: i64) -> String {
    match seconds {
        ..1 => "now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

fn took(micros: u64) -> String {
    match micros {
        ..1000 => format!("{micros} µs"),
        1000..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        1_000_000..60_000_000 => {
            format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000)
        }
        _ => format!("{} min", micros / 60_000_000),
    }
}

fn status_paint(status: u16) -> Paint {
    match status {
        ..400 => Paint::Green,
        400..500 => Paint::Yellow,
        500.. => Paint::Red,
    }
}

fn outcome_paint(outcome: Outcome) -> Paint {
    match outcome {
        Outcome::Ok => Paint::Green,
        Outcome::Denied | Outcome::Limited | Outcome::Unauthenticated => Paint::Yellow,
        Outcome::UpstreamError | Outcome::Failed => Paint::Red,
        Outcome::ClientClosed => Paint::Dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look { colour: false, ago: None, intent: "started, end unknown" };

    fn record() -> Record<'static> {
        Record {
            phase: Phase::Outcome,
            request_id: "r-1",
            time: 1_764_115_200_123_456,
            caller: Some("billing"),
            method: "GET",
            route: Some("/api/v1/user/userinfo"),
            status: Some(200),
            outcome: Some(Outcome::Ok),
            duration_us: 12_345,
            lost: 0,
            ..Record::gap(0, 0)
        }
    }

    fn shown(look: Look, records: &[Record<'_>]) -> Vec<String> {
        let (mut table, mut out) = (Table::new(look), Vec::new());
        for record in records {
            let record = record.clone();
            let (prev_hash, hash) = ([0; 32], [0; 32]);
            table.add(&Sealed { seq: 1, gateway: "host/1", record, prev_hash, hash }, &mut out);
        }
        table.write(&mut out);
        String::from_utf8(out).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned_and_tell_what_matters() {
        let intent =
            Record { phase: Phase::Intent, caller: None, status: None, outcome: None, ..record() };
        let denied = Record {
            status: Some(403),
            outcome: Some(Outcome::Denied),
            rule: Some("callers.billing.deny: DELETE *"),
            ..record()
        };

        let lines = shown(LOOK, &[record(), intent, denied, Record::gap(7, 0)]);

        assert_eq!(
            lines,
            [
                "WHEN                      CALLER   CALL                       STATUS  OUTCOME               TOOK   REQUEST ID  NOTE",
                "2025-11-26T00:00:00.123Z  billing  GET /api/v1/user/userinfo  200     ok                    12 ms  r-1",
                "2025-11-26T00:00:00.123Z  -        GET /api/v1/user/userinfo  -       started, end unknown  -      r-1",
                "2025-11-26T00:00:00.123Z  billing  GET /api/v1/user/userinfo  403     denied                12 ms  r-1         callers.billing.deny: DELETE *",
                "1970-01-01T00:00:00.000Z  -        -                          -       -                     -      -           7 records could not be written",
            ]
        );
    }

    #[test]
    fn what_a_terminal_would_obey_does_not_reach_it() {
        let wild = Record { request_id: "\u{1b}[2J\u{9b}x\r\ny", ..record() };

        for colour in [false, true] {
            let lines = shown(Look { colour, ..LOOK }, std::slice::from_ref(&wild));

            assert_eq!(lines.len(), 2);
            assert!(lines[1].contains(" [2J x  y"), "{}", lines[1]);
            assert_eq!(lines[1].contains("\u{1b}[32m200\u{1b}[0m"), colour, "{}", lines[1]);
        }
    }

    #[test]
    fn a_long_cell_is_cut() {
        let id = "x".repeat(128);

        let lines = shown(LOOK, &[Record { request_id: &id, ..record() }]);

        assert!(lines[1].contains(&format!(" {}…", "x".repeat(LONGEST))), "{}", lines[1]);
        assert!(!lines[1].contains(&id), "{}", lines[1]);
    }

    #[test]
    fn time_is_told_in_one_unit() {
        let check = |seconds, expected: &str| assert_eq!(ago(seconds), expected);
        check(-5, "now");
        check(59, "59s ago");
        check(180, "3m ago");
        check(47 * 3600, "47h ago");
        check(48 * 3600, "2d ago");

        let check = |micros, expected: &str| assert_eq!(took(micros), expected);
        check(999, "999 µs");
        check(1250, "1.2 ms");
        check(12_345, "12 ms");
        check(1_250_000, "1.2 s");
        check(600_000_000, "10 min");
    }
}
