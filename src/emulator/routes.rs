//! The contract's table of routes, read anew.

use std::{collections::HashMap, sync::LazyLock};

use super::faults::HostName;

static TABLE: LazyLock<Table> = LazyLock::new(Table::read);

/// What a row of the table says.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) host: HostName,
    pub(super) method: String,
    pub(super) template: String,
    pub(super) auth: Auth,
    pub(super) answer: String,
    pub(super) changes: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Auth {
    Nothing,
    RequestToken,
    Bearer,
}

/// What is at a path.
pub(super) enum Found {
    Row(&'static Row),
    OtherMethod,
    Nothing,
}

struct Table {
    rows: Vec<Row>,
    by_path: HashMap<String, Vec<usize>>,
}

impl Table {
    fn read() -> Self {
        let mut table = Self { rows: Vec::new(), by_path: HashMap::new() };
        let text = include_str!("../amove/routes.csv");
        for record in csv::Reader::from_reader(text.as_bytes()).records().flatten() {
            let cell = |at: usize| record.get(at).unwrap_or_default().to_owned();
            let notes = cell(7);
            let is_tagged = |tag: &str| {
                let tags = notes.split("tags=").nth(1).and_then(|rest| rest.split(';').next());
                tags.is_some_and(|tags| tags.split(' ').any(|it| it == tag))
            };
            let row = Row {
                host: if cell(0) == "auth" { HostName::Auth } else { HostName::Api },
                method: cell(1),
                template: cell(2),
                auth: match &*cell(3) {
                    "bearer" => Auth::Bearer,
                    "request_token" => Auth::RequestToken,
                    _ => Auth::Nothing,
                },
                answer: cell(6),
                changes: ["write", "destructive", "session"].into_iter().any(is_tagged),
            };
            // A parameter is one segment of any content.
            let path = row.template.to_lowercase();
            let path = path.split('/').map(|it| if it.starts_with('{') { "{}" } else { it });
            let path = path.collect::<Vec<_>>().join("/");
            table.by_path.entry(path).or_default().push(table.rows.len());
            table.rows.push(row);
        }
        table
    }
}

/// Looks up a path the way ASP.NET does: in any case, with or without a slash at the end, decoded.
/// `/api/<resource>/<action>` without a version is the deprecated alias.
pub(super) fn find(host: HostName, method: &str, path: &str) -> Found {
    let path = decoded(path).to_lowercase();
    let path = path.strip_suffix('/').unwrap_or(&path);
    let mut candidates = vec![path.to_owned()];
    if let Some((parent, _)) = path.rsplit_once('/') {
        candidates.push(format!("{parent}/{{}}"));
    }
    let alias = path.strip_prefix("/api/").filter(|rest| !rest.starts_with("v1/"));
    if let Some(rest) = alias.filter(|_| host == HostName::Api) {
        let versioned = format!("/api/v1/{rest}");
        if let Some((parent, _)) = versioned.rsplit_once('/') {
            candidates.extend([versioned.clone(), format!("{parent}/{{}}")]);
        }
    }
    let mut at_all = false;
    for candidate in candidates {
        let rows = TABLE.by_path.get(&candidate).map_or(&[][..], Vec::as_slice);
        for row in rows.iter().filter_map(|at| TABLE.rows.get(*at)) {
            if row.host == host {
                if row.method == method {
                    return Found::Row(row);
                }
                at_all = true;
            }
        }
    }
    if at_all { Found::OtherMethod } else { Found::Nothing }
}

fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = more
            .get(..2)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = more.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
