//! Seeds, their mutations, and how many of them are tried.

use std::{
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
};

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{TestCaseResult, TestRunner},
};

/// What proptest tries where nobody says otherwise; numbers of cases are given beside it.
const USUAL: u32 = 256;

/// No mutant grows beyond this.
const LONGEST: usize = 64 * 1024;

/// Bytes that show themselves as a person could type them into a seed.
#[derive(Clone)]
pub(crate) struct Input(pub(crate) Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// A seed, with its name.
pub(crate) type Seed = (String, Vec<u8>);

/// The seeds of `target`.
pub(crate) fn seeds(target: &str) -> Vec<Seed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/properties/corpus").join(target);
    let files =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| {
            let path = file.expect("an entry of the folder").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a seed"))
        })
        .collect();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    seeds.sort();
    seeds
}

/// The seeds of `target` that have many in one file: one a line, `#` begins a comment.
pub(crate) fn lines(target: &str) -> Vec<Seed> {
    let mut lines = Vec::new();
    for (name, seed) in seeds(target) {
        for (at, line) in seed.split(|byte| *byte == b'\n').enumerate() {
            if !line.is_empty() && !line.starts_with(b"#") {
                lines.push((format!("{name}:{}", at + 1), line.to_vec()));
            }
        }
    }
    lines
}

/// Checks `property` for `usual` inputs; more, or fewer, where `PROPTEST_CASES` says so.
pub(crate) fn check<S: Strategy>(
    usual: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) {
    let default = ProptestConfig::default();
    let cases = u64::from(usual) * u64::from(default.cases) / u64::from(USUAL);
    let cases = u32::try_from(cases).unwrap_or(u32::MAX).max(1);
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4096,
        max_global_rejects: cases.saturating_mul(64).max(1024),
        max_local_rejects: cases.saturating_mul(64).max(65_536),
        ..default
    };
    if let Err(error) = TestRunner::new(config).run(strategy, property) {
        panic!("{error}");
    }
}

/// Checks `property` for each seed, and then for `usual` mutations of them. `words` are put in:
/// pieces of which the target makes something.
pub(crate) fn explore(
    usual: u32,
    seeds: Vec<Seed>,
    words: &'static [&'static str],
    property: impl Fn(&[u8]) -> TestCaseResult,
) {
    for (name, seed) in &seeds {
        match catch_unwind(AssertUnwindSafe(|| property(seed))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("the seed {name}: {error}"),
            Err(panic) => {
                eprintln!("the seed {name}:");
                resume_unwind(panic)
            }
        }
    }
    check(usual, &mutants(seeds, words), |input| property(&input.0));
}

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Word(Index, &'static str),
    Remove(Index, Index),
    Repeat(Index, Index, u8),
    Truncate(Index),
    /// From there on, what another seed has from there on.
    Splice(Index, Index, Index),
}

/// Mutations of `seeds`.
pub(crate) fn mutants(
    seeds: Vec<Seed>,
    words: &'static [&'static str],
) -> impl Strategy<Value = Input> {
    let change = prop_oneof![
        3 => (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        6 => (any::<Index>(), select(words)).prop_map(|(at, word)| Change::Word(at, word)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Remove(from, to)),
        2 => (any::<Index>(), any::<Index>(), 1_u8..4)
            .prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        1 => any::<Index>().prop_map(Change::Truncate),
        2 => (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ];
    (any::<Index>(), prop::collection::vec(change, 0..7)).prop_map(move |(seed, changes)| {
        let mut bytes = seed.get(&seeds).1.clone();
        for change in changes {
            apply(change, &mut bytes, &seeds);
            bytes.truncate(LONGEST);
        }
        Input(bytes)
    })
}

fn apply(change: Change, bytes: &mut Vec<u8>, seeds: &[Seed]) {
    // A place may be the end as well.
    let place = |at: Index, bytes: &[u8]| at.index(bytes.len() + 1);
    let range = |from, to, bytes: &[u8]| {
        let (from, to) = (place(from, bytes), place(to, bytes));
        from.min(to)..from.max(to)
    };
    match change {
        Change::Flip(at, bit) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Change::Set(at, byte) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        Change::Flip(..) | Change::Set(..) => {}
        Change::Insert(at, new) => {
            let at = place(at, bytes);
            bytes.splice(at..at, new);
        }
        Change::Word(at, word) => {
            let at = place(at, bytes);
            bytes.splice(at..at, word.bytes());
        }
        Change::Remove(from, to) => drop(bytes.drain(range(from, to, bytes))),
        Change::Repeat(from, to, times) => {
            let range = range(from, to, bytes);
            let (end, part) = (range.end, bytes[range].repeat(usize::from(times)));
            bytes.splice(end..end, part);
        }
        Change::Truncate(at) => bytes.truncate(place(at, bytes)),
        Change::Splice(at, other, from) => {
            let (_, other) = other.get(seeds);
            let at = place(at, bytes);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[place(from, other)..]);
        }
    }
}
