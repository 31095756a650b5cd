//! Sessions that outlive the process, sealed in a file of this machine.

mod book;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use self::book::{Book, Place, Stamp};
use super::{Binding, Entry, Error, Look, Retired, Revision, Step, is_free, seal::Sealer};
use crate::config::SealingKey;

/// The file, and what seals its entries.
#[derive(Debug)]
pub(in crate::session) struct FileStore {
    book: Arc<Book>,
    key: SealingKey,
}

/// One identity's place in the file.
#[derive(Debug)]
pub(in crate::session) struct FilePlace(Arc<Inner>);

/// The right to log in: a locked file, which the system unlocks however the process ends.
#[derive(Debug)]
pub(super) struct Lease(#[expect(dead_code, reason = "it is held, not used")] fs::File);

#[derive(Debug)]
struct Inner {
    book: Arc<Book>,
    id: String,
    sealer: Sealer,
    /// The revision that a file of this stamp holds.
    seen: Mutex<Option<(Option<Stamp>, Revision)>>,
}

impl FileStore {
    pub(super) fn open(path: &Path, key: &SealingKey) -> io::Result<Self> {
        Ok(Self { book: Arc::new(Book::open(path)?), key: SealingKey::clone(key) })
    }

    pub(super) fn place(&self, binding: &Binding) -> FilePlace {
        let id = binding.id();
        self.book.expect(&id);
        FilePlace(Arc::new(Inner {
            book: Arc::clone(&self.book),
            id,
            sealer: Sealer::new(&self.key, binding),
            seen: Mutex::default(),
        }))
    }
}

impl FilePlace {
    pub(super) async fn look(&self, known: Option<Revision>) -> Result<Look, Error> {
        self.blocking(move |place| place.look(known)).await
    }

    pub(super) async fn claim(&self) -> Result<Option<(Lease, Entry)>, Error> {
        self.blocking(Inner::claim).await
    }

    pub(super) async fn put(&self, lease: Lease, entry: &Entry) -> Result<Revision, Error> {
        let sealed = STANDARD.encode(self.0.sealer.seal(entry)?);
        self.blocking(move |place| {
            let revision = revision(Some(&sealed));
            place.change(|place| place.sealed = Some(sealed))?;
            drop(lease);
            Ok(revision)
        })
        .await
    }

    pub(super) async fn take_step(&self, end: u64, period: u64) -> Result<Step, Error> {
        self.blocking(move |place| place.take_step(end, period)).await
    }

    pub(super) async fn leave(&self) -> Result<Vec<Retired>, Error> {
        self.blocking(Inner::leave).await
    }

    /// Files block, so this is done where that disturbs nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or_else(|_| {
            Err(Error::Unavailable("the work on its file was broken off".into()))
        })
    }
}

impl Inner {
    fn look(&self, known: Option<Revision>) -> Result<Look, Error> {
        let stamp = self.book.stamp().map_err(unavailable)?;
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((seen, revision)) = seen
            && (seen, Some(revision)) == (stamp, known)
        {
            return Ok(Look { revision, entry: None, members: 1 });
        }
        let place = self.place()?;
        let revision = revision(place.sealed.as_deref());
        let entry = (known != Some(revision)).then(|| self.unseal(&place));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, revision));
        Ok(Look { revision, entry, members: 1 })
    }

    fn claim(&self) -> Result<Option<(Lease, Entry)>, Error> {
        let Some(lease) = self.book.lease(&self.id).map_err(unavailable)? else { return Ok(None) };
        let entry = self.unseal(&self.place()?);
        Ok(Some((Lease(lease), entry)))
    }

    fn take_step(&self, end: u64, period: u64) -> Result<Step, Error> {
        self.change(|place| {
            if !is_free(end, period, place.steps_used_until) {
                return Step::UsedUntil(place.steps_used_until);
            }
            place.steps_used_until = end;
            Step::Taken
        })
    }

    fn leave(&self) -> Result<Vec<Retired>, Error> {
        let nothing_retired = self.unseal(&self.place()?).retired.is_empty();
        if nothing_retired {
            return Ok(Vec::new());
        }
        self.change(|place| {
            let mut entry = self.unseal(place);
            let retired = std::mem::take(&mut entry.retired);
            place.sealed = Some(STANDARD.encode(self.sealer.seal(&entry)?));
            Ok(retired)
        })?
    }

    fn place(&self) -> Result<Place, Error> {
        let mut places = self.book.read().map_err(unavailable)?;
        Ok(places.remove(&self.id).unwrap_or_default())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Place) -> T) -> Result<T, Error> {
        let change =
            |places: &mut book::Places| Ok(change(places.entry(self.id.clone()).or_default()));
        self.book.change(change).map_err(unavailable)
    }

    fn unseal(&self, place: &Place) -> Entry {
        let Some(sealed) = &place.sealed else { return Entry::default() };
        // What is not base64 was sealed by nobody, like nothing at all.
        self.sealer.unseal_or_warn(&STANDARD.decode(sealed).unwrap_or_default())
    }
}

/// Follows from what is written, so that all processes agree on it.
fn revision(sealed: Option<&str>) -> Revision {
    let Some(sealed) = sealed else { return Revision(0) };
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(sealed.as_bytes()).as_bytes();
    Revision(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

fn unavailable(error: io::Error) -> Error {
    Error::Unavailable(format!("its file: {error}").into())
}
