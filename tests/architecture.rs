//! Arrows point down, and every file says what it is for.
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The modules, from the ground up. Each may use the floors below its own.
const FLOORS: &[&[&str]] = &[
    &["amove", "clock", "config", "gather", "message", "sockets", "supervise"],
    &["circuit", "redis", "slots", "telemetry"],
    &["upstream"],
    &["audit", "caller", "limit", "pause", "policy", "retry", "session"],
    &["problem"],
    &["exchange"],
    &["middleware"],
    &["stack"],
    &["admin", "server"],
    &["app"],
    &["cli"],
];

/// Stands aside: uses no other module, and only `cli` uses it.
const ASIDE: &str = "emulator";

/// The roots: they name every module, or nobody names them.
const ROOTS: [&str; 2] = ["lib", "main"];

/// The floor of a module.
fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// A file of the program.
struct Source {
    /// Below `src/`.
    name: String,
    /// The module below the root that it belongs to.
    module: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let below = path.strip_prefix(&root).expect("a path below src").with_extension("");
        let module = below.iter().next().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a file that can be read");
        Source { name: below.display().to_string(), module, text }
    };
    paths.into_iter().map(source).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The modules named after each `crate::`, alone or in braces.
fn used_by(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut used = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            Some(group) => used.extend(names_in(group)),
            None => used.extend(name_at(path)),
        }
    }
    used
}

/// The names that begin the paths of a group, up to its closing brace.
fn names_in(group: &str) -> BTreeSet<String> {
    let (mut names, mut depth, mut begins) = (BTreeSet::new(), 0_usize, true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            letter if begins && !letter.is_whitespace() => {
                names.extend(name_at(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(path: &str) -> Option<String> {
    let end = path.find(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric());
    let name = &path[..end.unwrap_or(path.len())];
    let is_module = name.starts_with(|letter: char| letter.is_ascii_lowercase());
    is_module.then(|| name.to_owned())
}

/// Whether a file of `from` may use `to`.
fn points_down(from: &str, to: &str) -> bool {
    if from == to || ROOTS.contains(&from) {
        return true;
    }
    if to == ASIDE {
        return from == "cli";
    }
    if from == ASIDE {
        return false;
    }
    // The modules of the ground know each other.
    let (from, to) = (floor(from), floor(to));
    to < from || (from, to) == (Some(0), Some(0))
}

#[test]
fn arrows_point_down() {
    let mut offending = Vec::new();
    for source in sources() {
        for used in used_by(&source.text) {
            if !points_down(&source.module, &used) {
                offending.push(format!("{} -> {used}", source.name));
            }
        }
    }
    assert!(offending.is_empty(), "these arrows do not point down:\n{}", offending.join("\n"));
}

#[test]
fn every_module_has_a_floor_and_every_floor_its_modules() {
    let found: BTreeSet<_> = sources().into_iter().map(|source| source.module).collect();
    let known: BTreeSet<_> = FLOORS
        .iter()
        .copied()
        .flatten()
        .chain(&ROOTS)
        .chain(&[ASIDE])
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(found, known);
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.name)
        .collect();
    assert!(silent.is_empty(), "these files do not begin with `//!`: {silent:?}");
}

#[test]
fn the_reader_of_arrows_finds_them_all() {
    let text = "use crate::config;\n\
        use crate::{\n    amove::{catalogue::{Route, Tag}, codes},\n    clock::Clock, session::{self, Token},\n};\n\
        // crate::cli is only mentioned\n\
        fn f(x: crate::problem::Problem) { crate::upstream::send() }\n\
        pub(crate) use crate::Something;\n";
    let expected = ["amove", "clock", "config", "problem", "session", "upstream"];
    assert_eq!(used_by(text), expected.map(str::to_owned).into());
}
