//! The journal: what has happened and is not in the store yet.
//!
//! Each worker appends to a file of its own: many records with one write, and no other thread to
//! wait for. Once they are written they outlive the process. One thread reads all journals, gives
//! every record its place in the chain, and puts it into the store; a journal that has been read
//! to its end is deleted. After a crash the journals that are left are read in the same way, so
//! there is one way into the store and no special one for bad days.
//!
//! A file is a sequence of frames: the length and the checksum (CRC-32) of a record, four bytes
//! each, little-endian, and the record. What does not fit is the torn end of a write that never
//! finished.

mod group;
mod journals;
mod scribe;
mod segment;
mod sync;

pub use self::{
    group::Unwritten,
    scribe::{Receipt, Scribe},
};
pub(super) use self::{
    journals::Journals,
    segment::{Frames, Noted, Segment},
    sync::Syncer,
};
