//! What Amove keeps: rows of every kind, inserted, listed, changed and deleted.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    answer::Refusal,
    clock::written,
    kinds::{DETAILS, Foreign, Kind, SIDES, Sees, kind},
    options::Options,
    paging::{Page, filtered},
    users::{ACCOUNT_ID, Identity, user_id},
};

const SEED: &str = include_str!("seed.json");
/// Bounds each kind.
const MOST_ROWS: usize = 10_000;

/// One thing that is kept.
pub(super) type Row = Map<String, Value>;

type Rows = HashMap<&'static str, Vec<Row>>;

/// What Amove keeps.
pub(super) struct Store(Mutex<Rows>);

/// What is to be listed, and for whom.
pub(super) struct Listing<'a> {
    pub(super) kind: &'static str,
    pub(super) details: bool,
    pub(super) reader: &'a Identity,
    pub(super) filters: &'a [(String, String)],
}

impl Store {
    /// A few things of most kinds.
    pub(super) fn seeded(options: &Options) -> Self {
        let mut seed: HashMap<String, Vec<Row>> = serde_json::from_str(SEED).unwrap_or_default();
        let now = written(options.clock.now());
        let users = options.accounts.iter().enumerate().map(|(index, account)| {
            json!({
                "id": user_id(index), "username": account.username, "email": account.username,
                "firstname": "Svc", "lastname": "Gate", "userType": account.user_type,
                "userStatus": if account.active { 1 } else { 2 },
            })
        });
        let users = users.filter_map(|user| user.as_object().cloned());
        seed.entry("user".to_owned()).or_default().extend(users);
        let mut rows = Rows::new();
        for kind in super::kinds::KINDS {
            let seeds = seed.remove(kind.name).unwrap_or_default();
            let filled = seeds.into_iter().map(|seed| fill(kind, seed, &user_id(0), &now));
            rows.insert(kind.name, filled.collect());
        }
        Self(Mutex::new(rows))
    }

    /// Keeps a new thing, with the fields its kind has. What is kept, in clear.
    pub(super) fn insert(
        &self,
        of: &'static str,
        fields: &Value,
        by: (&str, &str),
    ) -> Result<Row, Refusal> {
        self.insert_as(of, &Uuid::now_v7().to_string(), fields, by)
    }

    /// The same, under an id that is known before.
    pub(super) fn insert_as(
        &self,
        of: &'static str,
        id: &str,
        fields: &Value,
        (owner, now): (&str, &str),
    ) -> Result<Row, Refusal> {
        let (kind, mut rows) = (kind(of), self.lock());
        let rows = rows.entry(of).or_default();
        let known = known_fields(kind, fields);
        for field in kind.required {
            if known.get(*field).and_then(Value::as_str).unwrap_or("").is_empty() {
                return Err(Refusal::code("DEFAULT", format!("The field {field} is required.")));
            }
        }
        if let Some(unique) = kind.unique {
            let same = |row: &&Row| row.get(unique) == known.get(unique) && !is_deleted(row);
            if rows.iter().any(|row| same(&row)) {
                return Err(Refusal::code("DUPLICATE", format!("The {unique} is taken.")));
            }
        }
        if rows.len() >= MOST_ROWS {
            return Err(Refusal::code("DB_INSERT", format!("There are {MOST_ROWS} already.")));
        }
        let mut row = fill(kind, known, owner, now);
        row.insert("id".to_owned(), id.into());
        rows.push(row.clone());
        Ok(row)
    }

    /// Changes a thing, if `changer` may. What it is now, in clear.
    pub(super) fn update(
        &self,
        of: &'static str,
        id: &str,
        fields: &Value,
        changer: Option<&Identity>,
    ) -> Result<Row, Refusal> {
        let (kind, mut rows) = (kind(of), self.lock());
        let row = find(rows.entry(of).or_default(), id).ok_or_else(|| missing(kind))?;
        check_owner(kind, row, changer)?;
        row.extend(known_fields(kind, fields));
        Ok(row.clone())
    }

    /// Deletes a thing, if `changer` may. It stays, but is no longer found.
    pub(super) fn delete(
        &self,
        of: &'static str,
        id: &str,
        changer: Option<&Identity>,
    ) -> Result<(), Refusal> {
        let (kind, mut rows) = (kind(of), self.lock());
        let row = find(rows.entry(of).or_default(), id).ok_or_else(|| missing(kind))?;
        check_owner(kind, row, changer)?;
        row.insert("deleted".to_owned(), true.into());
        for (link, sides) in SIDES.iter().filter(|(link, _)| *link != of) {
            let Some((field, ..)) = sides.iter().find(|(.., side)| *side == of) else { continue };
            if *link != "sharedclouddrive" {
                let gone = |row: &Row| row.get(*field).and_then(Value::as_str) == Some(id);
                rows.entry(link).or_default().retain(|row| !gone(row));
            }
        }
        Ok(())
    }

    /// The first thing for which `test` holds, in clear.
    pub(super) fn first(&self, of: &'static str, test: impl Fn(&Row) -> bool) -> Option<Row> {
        let mut rows = self.lock();
        let rows = rows.entry(of).or_default();
        rows.iter().find(|row| !is_deleted(row) && test(row)).cloned()
    }

    /// All things for which `test` holds, in clear.
    pub(super) fn all(&self, of: &'static str, test: impl Fn(&Row) -> bool) -> Vec<Row> {
        let mut rows = self.lock();
        let rows = rows.entry(of).or_default();
        rows.iter().filter(|row| !is_deleted(row) && test(row)).cloned().collect()
    }

    /// One page of a list: its rows as they are shown, and how many there are in all.
    pub(super) fn list(&self, listing: &Listing<'_>, page: &Page) -> (Vec<Value>, usize) {
        let rows = self.lock();
        let all = rows.get(listing.kind).map_or(&[] as &[Row], Vec::as_slice);
        let visible = all.iter().filter(|row| is_visible(listing, row));
        // Links sort and filter by what they lead to, so that has to be there before.
        let mut found: Vec<Row> = visible.map(|row| shown(&rows, listing.kind, row)).collect();
        found.retain(|row| filtered(row, listing.filters, page.inner()));
        let total = found.len();
        let mut found = page.cut(found);
        if listing.details {
            found.iter_mut().for_each(|row| add_details(&rows, listing.kind, row));
        }
        (found.into_iter().map(Value::Object).collect(), total)
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row as callers see it: what is secret is masked.
pub(super) fn masked(of: &str, mut row: Row) -> Row {
    for field in kind(of).masked {
        if let Some(Value::String(text)) = row.get_mut(*field)
            && !text.is_empty()
        {
            "********".clone_into(text);
        }
    }
    row
}

/// A text field of a row; empty if there is none.
pub(super) fn text<'a>(row: &'a Row, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or("")
}

fn fill(kind: &Kind, known: Row, owner: &str, now: &str) -> Row {
    let mut row: Row = serde_json::from_str(kind.fields).unwrap_or_default();
    row.insert("id".to_owned(), Uuid::now_v7().to_string().into());
    row.insert("accountId".to_owned(), ACCOUNT_ID.into());
    row.insert("userId".to_owned(), owner.into());
    row.insert("createDate".to_owned(), now.into());
    row.insert("deleted".to_owned(), false.into());
    row.extend(known);
    for date in ["requestDate", "startDate"] {
        if row.get(date).is_some_and(|date| date == "") {
            row.insert(date.to_owned(), now.into());
        }
    }
    row
}

fn known_fields(kind: &Kind, fields: &Value) -> Row {
    let template: Row = serde_json::from_str(kind.fields).unwrap_or_default();
    let sides = SIDES.iter().filter(|(link, _)| *link == kind.name);
    let ids: Vec<_> = sides.flat_map(|(_, sides)| sides.iter().map(|side| side.0)).collect();
    let fields = fields.as_object().cloned().unwrap_or_default();
    let known = |name: &str| template.contains_key(name) || ids.contains(&name) || name == "userId";
    fields.into_iter().filter(|(name, _)| known(name)).collect()
}

fn find<'a>(rows: &'a mut [Row], id: &str) -> Option<&'a mut Row> {
    rows.iter_mut().find(|row| text(row, "id") == id && !is_deleted(row))
}

fn missing(kind: &Kind) -> Refusal {
    Refusal::code(kind.missing, "There is nothing with this id.")
}

fn is_deleted(row: &Row) -> bool {
    row.get("deleted").and_then(Value::as_bool).unwrap_or(false)
}

/// `None` changes anything: it has been looked at before.
fn check_owner(kind: &Kind, row: &Row, changer: Option<&Identity>) -> Result<(), Refusal> {
    if changer.is_none_or(|changer| changer.user_id == text(row, "userId")) {
        return Ok(());
    }
    match kind.foreign {
        Foreign::Welcome => Ok(()),
        Foreign::Forbidden => Err(Refusal::Status(StatusCode::FORBIDDEN)),
        Foreign::Access => Err(Refusal::code("ACCESS", "It belongs to another user.")),
        Foreign::BadRequest => {
            Err(Refusal::Plain(StatusCode::BAD_REQUEST, "Only the owner may change this server."))
        }
    }
}

fn is_visible(listing: &Listing<'_>, row: &Row) -> bool {
    let (reader, wanted) = (listing.reader, |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("deleted") && value.eq_ignore_ascii_case("true")
    });
    if is_deleted(row) != listing.filters.iter().any(wanted) {
        return false;
    }
    let own = text(row, "userId") == reader.user_id;
    let shared = row.get("shared").and_then(Value::as_bool).unwrap_or(false);
    match kind(listing.kind).sees {
        Sees::All => true,
        Sees::Own(roles) => own || roles.contains(&reader.role),
        Sees::Shared(roles) => own || (shared && roles.contains(&reader.role)),
    }
}

/// A row with what it leads to.
fn shown(rows: &Rows, of: &str, row: &Row) -> Row {
    let mut row = masked(of, row.clone());
    let sides = SIDES.iter().filter(|(link, _)| *link == of).flat_map(|(_, sides)| sides.iter());
    for (field, key, kind) in sides {
        let id = text(&row, field);
        let mut all = rows.get(kind).map_or(&[] as &[Row], Vec::as_slice).iter();
        let found = all.find(|other| text(other, "id") == id);
        let found = found.map(|other| Value::Object(shown(rows, kind, other)));
        row.insert((*key).to_owned(), found.unwrap_or_default());
    }
    row
}

fn add_details(rows: &Rows, of: &str, row: &mut Row) {
    let details = DETAILS.iter().filter(|(kind, _)| *kind == of);
    for (key, link) in details.flat_map(|(_, details)| details.iter()) {
        let sides = SIDES.iter().filter(|(name, _)| name == link).flat_map(|(_, sides)| *sides);
        let own = sides.clone().find(|(.., kind)| *kind == of);
        let other = sides.clone().find(|(.., kind)| *kind != of);
        let (Some((field, ..)), Some((_, other, _))) = (own, other) else { continue };
        let links = rows.get(link).map_or(&[] as &[Row], Vec::as_slice).iter();
        let linked = links.filter(|link| text(link, field) == text(row, "id"));
        let things = linked.filter_map(|row| shown(rows, link, row).remove(*other));
        let things: Vec<Value> = things.collect();
        row.insert((*key).to_owned(), things.into());
    }
}
