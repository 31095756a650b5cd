//! Finds out whether the audit log is as it was written: every record in its place, none changed,
//! none missing.

use super::{
    chain::Head,
    hasher::Hasher,
    record::Record,
    signing::{PublicKey, verifies},
    store::{Days, Facets, Finding, Read, ReadError, Reader, Wanted, number},
    trail::Archive,
};

/// What was gone through.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// Who wrote it.
    pub gateway: String,
    /// How many records.
    pub records: u64,
    /// How many signed heads.
    pub signatures: u64,
    /// The number of the first record that is there.
    pub first: u64,
    /// How far the chain goes.
    pub head: Head,
    /// Records after the last signed head, if heads are signed.
    pub unsigned: Option<u64>,
}

/// Goes through the whole audit log. Only signatures of `key` count, if there is one; `expected` is
/// a head that was noted elsewhere. `progress` is told how many records have been gone through.
///
/// # Errors
///
/// [`ReadError::Broken`] with the first record that is wrong, or why there is no verdict.
pub fn verify(
    archive: &Archive,
    key: Option<&PublicKey>,
    expected: Option<Head>,
    mut progress: impl FnMut(u64),
) -> Result<Verified, ReadError> {
    // Read before the records: a gateway that goes on writing adds to them, and takes nothing away.
    let kept = archive.folder().head();
    let days = archive.days()?;
    let mut walk = Walk { key, ..Walk::default() };
    match kept {
        Ok(Some((gateway, head))) => {
            walk.vouched.push(Vouched { head, whose: "head.json" });
            walk.verified.gateway = gateway;
        }
        Ok(None) if days.all().is_empty() => {}
        Ok(None) => {
            return Err(broken(0, "head.json, which vouches for all records, is missing").into());
        }
        Err(_) => {
            return Err(
                broken(0, "head.json, which vouches for all records, cannot be read").into()
            );
        }
    }
    walk.vouched.extend(expected.map(|head| Vouched { head, whose: "the expected head" }));
    let mut hasher = Hasher::start()?;
    let walked = walk.all(&days, &mut hasher, &mut progress);
    // What comes out later may be about an earlier record.
    match (hasher.finish()?, walked) {
        (Some(seq), Err(ReadError::Broken(finding))) if finding.seq < seq => Err(finding.into()),
        (Some(seq), _) => Err(broken(seq, UNFIT).into()),
        (None, walked) => walked,
    }
}

const UNFIT: &str = "changed, or not the one that was there: its hash does not fit";

fn broken(seq: u64, what: &str) -> Finding {
    Finding { seq, what: what.to_owned() }
}

/// A head of the chain that is known from elsewhere.
struct Vouched {
    head: Head,
    whose: &'static str,
}

#[derive(Default)]
struct Walk<'a> {
    key: Option<&'a PublicKey>,
    verified: Verified,
    vouched: Vec<Vouched>,
    last_signed: u64,
    has_begun: bool,
}

impl Walk<'_> {
    /// The number of the record that comes next.
    fn next(&self) -> u64 {
        self.verified.head.seq + 1
    }

    fn all(
        mut self,
        days: &Days,
        hasher: &mut Hasher,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Verified, ReadError> {
        for reader in days.all() {
            self.day(reader, days, hasher, progress)?;
        }
        Ok(self.finish()?)
    }

    fn day(
        &mut self,
        reader: &Reader,
        days: &Days,
        hasher: &mut Hasher,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        let (anchor, date) = (&reader.anchor, reader.date);
        if anchor.gateway != self.verified.gateway {
            let what = format!("{date} is of another gateway, {}", anchor.gateway);
            return Err(broken(anchor.first, &what).into());
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            self.begin(reader, days)?;
        } else if anchor.first != self.next() || anchor.prev_hash != self.verified.head.hash {
            let what = format!("{date} does not go on where the day before ends");
            return Err(broken(self.next(), &what).into());
        } else if self.key.is_some() && self.last_signed != self.verified.head.seq {
            let what = format!("the last head before {date} was not signed");
            return Err(broken(self.verified.head.seq, &what).into());
        }
        // All that is read of it is of one moment, though a gateway goes on writing.
        let _held = reader.hold()?;
        let (heads, mut spans) = (signed_heads(reader)?, spans(reader)?);
        let mut records = Records { reader, heads: &heads, spans: &mut spans, hasher, outcomes: 0 };
        let mut wrong = None;
        reader.each(&mut |read| {
            let checked = records.check(read, &mut self.verified.head);
            if let Err(error) = checked.and_then(|()| Ok(self.vouched()?)) {
                wrong = Some(error);
                return Wanted::Break(());
            }
            self.verified.records += 1;
            if self.verified.records.is_multiple_of(16_384) {
                progress(self.verified.records);
            }
            Wanted::Continue(())
        })?;
        if let Some(error) = wrong {
            return Err(error);
        }
        if reader.told()? != records.outcomes {
            let what = format!("{date} tells of outcomes that are not there");
            return Err(broken(anchor.first, &what).into());
        }
        // Read before the records, so what has been added meanwhile is beyond it.
        let claims = heads.last().map_or(0, |signed| signed.head.seq).max(anchor.head.seq);
        if self.verified.head.seq < claims {
            let what = format!("missing: {date} went up to {claims}");
            return Err(broken(self.next(), &what).into());
        }
        self.signatures(&heads)
    }

    /// The first day that is there: the first of all, or the days before it were deleted for their
    /// age.
    fn begin(&mut self, reader: &Reader, days: &Days) -> Result<(), ReadError> {
        let anchor = &reader.anchor;
        self.verified.first = anchor.first;
        let before = Head { seq: anchor.first.saturating_sub(1), hash: anchor.prev_hash };
        self.verified.head = before;
        if before == Head::default() {
            return Ok(());
        }
        for reader in days.all() {
            for pruned in pruned(reader)? {
                let vouches = pruned.head == before && self.vouches(&pruned);
                if vouches {
                    return Ok(());
                }
            }
        }
        let what = format!("missing: the log begins with {}, and was not pruned", anchor.first);
        Err(broken(1, &what).into())
    }

    fn vouches(&self, signed: &SignedHead) -> bool {
        let is_signed =
            verifies(&signed.key, &self.verified.gateway, signed.head, &signed.signature);
        self.key.is_none_or(|key| is_signed && key.is(&signed.key))
    }

    /// Compares the last record with what is known of it from elsewhere.
    fn vouched(&self) -> Result<(), Finding> {
        let head = self.verified.head;
        match self.vouched.iter().find(|it| it.head.seq == head.seq && it.head != head) {
            Some(Vouched { whose, .. }) => {
                Err(broken(head.seq, &format!("it is not the one that {whose} names")))
            }
            None => Ok(()),
        }
    }

    fn signatures(&mut self, heads: &[SignedHead]) -> Result<(), ReadError> {
        for signed in heads {
            let seq = signed.head.seq;
            if !verifies(&signed.key, &self.verified.gateway, signed.head, &signed.signature) {
                return Err(broken(seq, "the signature of its head is not valid").into());
            }
            if !self.vouches(signed) {
                return Err(broken(seq, "its head was signed with another key").into());
            }
            self.verified.signatures += 1;
            self.last_signed = seq;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Verified, Finding> {
        let end = self.verified.head.seq;
        if let Some(beyond) = self.vouched.iter().find(|it| it.head.seq > end) {
            let what = format!("missing: {} says that there are {}", beyond.whose, beyond.head.seq);
            return Err(broken(end + 1, &what));
        }
        let signed = self.verified.signatures > 0;
        if self.key.is_some() && !signed && self.verified.records > 0 {
            return Err(broken(self.verified.first, "no head of the chain was signed"));
        }
        self.verified.unsigned = signed.then(|| end - self.last_signed);
        Ok(self.verified)
    }
}

/// What the records of a day have to fit.
struct Records<'a> {
    reader: &'a Reader,
    heads: &'a [SignedHead],
    spans: &'a mut [Span],
    hasher: &'a mut Hasher,
    /// So many were outcomes that an intent may have announced.
    outcomes: u64,
}

impl Records<'_> {
    /// Checks the record that comes after `head`, and moves `head` there.
    fn check(&mut self, read: Read<'_>, head: &mut Head) -> Result<(), ReadError> {
        let (seq, expected) = (number(&read), head.seq + 1);
        if seq != expected {
            return Err(broken(expected, &format!("missing: the next one is {seq}")).into());
        }
        let frame = read?;
        let sealed = frame.sealed(&self.reader.anchor.gateway, frame.record()?);
        if sealed.prev_hash != head.hash || !self.hasher.add(&sealed) {
            return Err(broken(seq, UNFIT).into());
        }
        *head = Head { seq, hash: sealed.hash };
        self.is_found(seq, &sealed.record)?;
        while let [signed, rest @ ..] = self.heads
            && signed.head.seq <= seq
        {
            if signed.head != *head {
                return Err(broken(seq, "it is not the one that was signed").into());
            }
            self.heads = rest;
        }
        Ok(())
    }

    /// Whether those who look for the record `seq` will find it.
    fn is_found(&mut self, seq: u64, record: &Record<'_>) -> Result<(), ReadError> {
        while self.spans.first().is_some_and(|span| span.last < seq) {
            self.spans = &mut std::mem::take(&mut self.spans)[1..];
        }
        if !self.spans.first_mut().is_some_and(|span| span.holds(seq, record)) {
            let what = "it would not be found: its span does not tell of it";
            return Err(broken(seq, what).into());
        }
        if record.ends_announced() {
            if !self.reader.tells(record.id, seq)? {
                let what = "it would not be found: it is not told of among the outcomes";
                return Err(broken(seq, what).into());
            }
            self.outcomes += 1;
        }
        Ok(())
    }
}

struct SignedHead {
    head: Head,
    key: Vec<u8>,
    signature: Vec<u8>,
}

fn signed_heads(reader: &Reader) -> rusqlite::Result<Vec<SignedHead>> {
    heads(reader, "SELECT seq, hash, key, signature FROM heads ORDER BY seq")
}

/// The heads up to which days were deleted.
fn pruned(reader: &Reader) -> rusqlite::Result<Vec<SignedHead>> {
    let select = "SELECT last, hash, coalesce(key, x''), coalesce(signature, x'') FROM pruned";
    heads(reader, select)
}

fn heads(reader: &Reader, select: &str) -> rusqlite::Result<Vec<SignedHead>> {
    let mut select = reader.connection().prepare(select)?;
    let rows = select.query_map([], |row| {
        let head = Head { seq: row.get(0)?, hash: row.get(1)? };
        Ok(SignedHead { head, key: row.get(2)?, signature: row.get(3)? })
    })?;
    rows.collect()
}

struct Span {
    first: u64,
    last: u64,
    earliest: i64,
    latest: i64,
    facets: Facets,
}

impl Span {
    fn holds(&mut self, seq: u64, record: &Record<'_>) -> bool {
        self.first <= seq
            && (self.earliest..=self.latest).contains(&record.time)
            && self.facets.hold(record)
    }
}

fn spans(reader: &Reader) -> rusqlite::Result<Vec<Span>> {
    let select = "SELECT first, last, earliest, latest FROM spans ORDER BY first";
    let mut select = reader.connection().prepare(select)?;
    let rows = select.query_map([], |row| {
        let (first, last, earliest, latest) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Span { first, last, earliest, latest, facets: Facets::default() })
    })?;
    let mut spans = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut select = reader.connection().prepare("SELECT kind, value, first FROM facets")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let first: u64 = row.get(2)?;
        if let Ok(at) = spans.binary_search_by_key(&first, |span| span.first) {
            let (kind, value) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
            spans[at].facets.insert(kind, value);
        }
    }
    Ok(spans)
}
