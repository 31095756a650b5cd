//! The embedded store: one SQLite file for each day, one writer, many readers.
//!
//! ```text
//! amove-audit/
//! ├── lock                 held by the gateway that writes here
//! ├── head.json            how far the chain has got, apart from the files that it vouches for
//! ├── 2026-11-26.sqlite    one day; old ones are deleted as whole files
//! └── journal/             what is not in a day yet
//! ```

mod block;
mod day;
mod error;
mod facets;
mod folder;
mod read;

pub(super) use self::{
    block::Block,
    day::{Anchor, Day, Writing},
    facets::Facets,
    folder::{Folder, Lock, create_folder},
    read::{Read, Reader, number},
};
pub use self::{
    error::{Finding, ReadError},
    folder::OpenError,
    read::{Days, Wanted},
};
