//! One file of the journal, and the frames in it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use crate::audit::{compact, record::Record};

/// The length and the checksum.
const HEAD: usize = 8;
/// No record is larger: its texts are bounded.
const LARGEST: usize = 16 * 1024;

/// One file of the journal.
#[derive(Debug)]
pub(in crate::audit) struct Segment {
    /// Its name; later ones sort behind earlier ones.
    pub(in crate::audit) name: String,
    path: PathBuf,
    file: File,
    /// So many bytes are there for good, as far as that was asked for.
    published: AtomicU64,
    /// No more will come.
    closed: AtomicBool,
    /// What was not published is not to be relied on.
    spoiled: AtomicBool,
}

impl Segment {
    /// Begins a new file in `folder`. As long as it is open it is locked, which tells other processes
    /// that it is not left behind.
    pub(super) fn create(folder: &Path, name: String) -> io::Result<Self> {
        let path = folder.join(&name);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create_new(true).mode(0o600).open(&path)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            // Somebody has found it before it was locked, and is about to clear it away.
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self::of(name, path, file, 0, false))
    }

    /// Opens a file that an earlier process has left behind; nothing if it lives, and may go on.
    pub(in crate::audit) fn left_behind(path: PathBuf) -> io::Result<Option<Self>> {
        let file = match File::open(&path) {
            // Its process has done with it since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let length = file.metadata()?.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Self::of(name, path, file, length, true)))
    }

    fn of(name: String, path: PathBuf, file: File, length: u64, closed: bool) -> Self {
        let (published, closed) = (AtomicU64::new(length), AtomicBool::new(closed));
        Self { name, path, file, published, closed, spoiled: AtomicBool::new(false) }
    }

    /// Appends `bytes` to the first `length` bytes, all or nothing. A file that somebody has
    /// deleted keeps nothing.
    pub(super) fn append(&self, length: u64, bytes: &[u8]) -> io::Result<()> {
        use io::Write;
        let appended = (&self.file).write_all(bytes).and_then(|()| self.is_there());
        if appended.is_err() {
            // What is written by halves must not stand in the way of what comes later.
            self.file.set_len(length)?;
        }
        appended
    }

    fn is_there(&self) -> io::Result<()> {
        match self.file.metadata()?.nlink() {
            0 => Err(io::Error::new(io::ErrorKind::NotFound, "the journal has been deleted")),
            _ => Ok(()),
        }
    }

    /// Writes to the disk what the system still keeps in memory.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.is_there()
    }

    /// Takes away what was not published, since nobody knows whether it is on the disk.
    pub(super) fn spoil(&self) {
        self.spoiled.store(true, Release);
        // If that fails as well, it is read after a restart: once too often rather than not at all.
        let _ = self.file.set_len(self.published.load(Acquire));
    }

    /// Whether nothing may be appended any more.
    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled.load(Acquire)
    }

    /// The first `length` bytes may be read.
    pub(super) fn publish(&self, length: u64) {
        self.published.store(length, Release);
    }

    /// Nothing will be appended any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Release);
    }

    /// Whether everything up to `position` is all there will ever be.
    pub(in crate::audit) fn is_done(&self, position: u64) -> bool {
        // In this order: what is closed is published before.
        self.closed.load(Acquire) && position >= self.published.load(Acquire)
    }

    /// Reads what is there from `position` on, at most `most` bytes, into `bytes`.
    pub(in crate::audit) fn read(
        &self,
        position: u64,
        most: usize,
        bytes: &mut Vec<u8>,
    ) -> io::Result<()> {
        let there = self.unread(position);
        let wanted = usize::try_from(there).unwrap_or(most).min(most.max(LARGEST + HEAD));
        bytes.resize(wanted, 0);
        self.file.read_exact_at(bytes, position)
    }

    /// How many bytes there are after `position`.
    pub(in crate::audit) fn unread(&self, position: u64) -> u64 {
        self.published.load(Acquire).saturating_sub(position)
    }

    /// Deletes the file.
    pub(in crate::audit) fn delete(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Adds `record` to `out` as a frame.
pub(super) fn frame(record: &Record<'_>, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; HEAD]);
    // A vector takes everything, and a record has nothing that cannot be written.
    if compact::write(record, out).is_err() {
        out.truncate(begin);
        return;
    }
    let body = &out[begin + HEAD..];
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let check = crc32fast::hash(body).to_le_bytes();
    out[begin..begin + 4].copy_from_slice(&length);
    out[begin + 4..begin + HEAD].copy_from_slice(&check);
}

/// A record as it is in a journal.
#[derive(Clone, Copy, Debug)]
pub(in crate::audit) struct Noted<'a> {
    /// When it was written, in microseconds since 1970.
    pub(in crate::audit) time: i64,
    /// Its compact form.
    pub(in crate::audit) bytes: &'a [u8],
}

/// The records in some bytes of a journal, up to the first that is not whole.
#[derive(Debug)]
pub(in crate::audit) struct Frames<'a> {
    bytes: &'a [u8],
    /// Bytes that whole records have taken so far.
    pub(in crate::audit) read: usize,
}

impl<'a> Frames<'a> {
    pub(in crate::audit) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, read: 0 }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Noted<'a>;

    fn next(&mut self) -> Option<Noted<'a>> {
        let (head, rest) = self.bytes.split_first_chunk::<HEAD>()?;
        let [a, b, c, d, check @ ..] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let (bytes, rest) = rest.split_at_checked(length).filter(|_| length <= LARGEST)?;
        if u32::from_le_bytes(check) != crc32fast::hash(bytes) {
            return None;
        }
        // Room that nothing was written to fits its checksum as well.
        let time = compact::time(bytes)?;
        self.bytes = rest;
        self.read += HEAD + length;
        Some(Noted { time, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::tests::sample;

    fn three() -> Vec<u8> {
        let mut bytes = Vec::new();
        (0..3).for_each(|time| frame(&Record { time, ..sample() }, &mut bytes));
        bytes
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let bytes = three();
        let mut frames = Frames::of(&bytes);

        let times: Vec<_> = frames.by_ref().map(|record| record.time).collect();

        assert_eq!((times, frames.read), (vec![0, 1, 2], bytes.len()));
    }

    #[test]
    fn a_journal_that_ends_anywhere_gives_the_records_that_are_whole() {
        let bytes = three();
        let one = bytes.len() / 3;
        for end in 0..bytes.len() {
            let mut frames = Frames::of(&bytes[..end]);
            assert_eq!(frames.by_ref().count(), end / one, "{end}");
            assert_eq!(frames.read, end / one * one);
        }
    }

    #[test]
    fn no_single_changed_byte_makes_another_record() {
        let bytes = three();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            let read: Vec<_> = Frames::of(&changed).collect();
            assert!(read.len() < 3, "{at}");
            assert!(read.iter().zip(0..).all(|(record, time)| record.time == time), "{at}");
        }
    }

    #[test]
    fn room_that_nothing_was_written_to_has_no_records() {
        let bytes = [three(), vec![0; 4096]].concat();
        let mut frames = Frames::of(&bytes);

        assert_eq!((frames.by_ref().count(), frames.read), (3, bytes.len() - 4096));
    }

    #[test]
    fn a_deleted_file_takes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let segment = Segment::create(folder.path(), "1".into()).expect("a file");
        segment.append(0, b"abc").expect("it is written");

        segment.delete().expect("it is gone");

        assert!(segment.append(3, b"def").is_err());
    }
}
