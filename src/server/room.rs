//! How many connections there may be, also when that changes.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for connections.
#[derive(Debug)]
pub(super) struct Room {
    /// A permit for each connection that may still come.
    free: Arc<Semaphore>,
    /// Permits that are not given back when their connections end: there are more than there may be.
    surplus: Arc<AtomicUsize>,
    size: Mutex<usize>,
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    surplus: Arc<AtomicUsize>,
}

impl Room {
    pub(super) fn new(size: usize) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(size));
        Self { free, surplus: Arc::default(), size: Mutex::new(size) }
    }

    /// Waits for a place; `None` once the room is closed.
    pub(super) async fn enter(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.free).acquire_owned().await.ok()?;
        Some(Permit { permit: Some(permit), surplus: Arc::clone(&self.surplus) })
    }

    /// From now on there is room for so many. Who is in stays.
    pub(super) fn resize(&self, size: usize) {
        let mut before = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let size = size.min(Semaphore::MAX_PERMITS);
        if size < *before {
            let less = *before - size;
            let rest = less - self.free.forget_permits(less);
            self.surplus.fetch_add(rest, AcqRel);
        } else {
            let mut more = size - *before;
            // Those who were to be the last to leave may be replaced again.
            while more > 0 && take_one(&self.surplus) {
                more -= 1;
            }
            self.free.add_permits(more);
        }
        *before = size;
    }

    /// Lets nobody in any more, who waits included.
    pub(super) fn close(&self) {
        self.free.close();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && take_one(&self.surplus)
        {
            permit.forget();
        }
    }
}

fn take_one(surplus: &AtomicUsize) -> bool {
    surplus.fetch_update(AcqRel, Acquire, |surplus| surplus.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn enter(room: &Room) -> Option<Permit> {
        room.enter().now_or_never().flatten()
    }

    #[test]
    fn who_is_in_stays_and_there_is_room_again_when_enough_have_left() {
        let room = Room::new(3);
        let mut inside: Vec<_> = (0..3).filter_map(|_| enter(&room)).collect();
        assert!(enter(&room).is_none());

        room.resize(1);
        inside.truncate(1);
        assert!(enter(&room).is_none());
        inside.clear();
        let one = enter(&room);
        assert!(one.is_some() && enter(&room).is_none());
        room.resize(2);
        assert!(enter(&room).is_some());
    }

    #[test]
    fn it_grows_and_shrinks_while_it_is_full() {
        let room = Room::new(2);
        let inside: Vec<_> = (0..2).filter_map(|_| enter(&room)).collect();

        room.resize(0);
        room.resize(3);
        let third = enter(&room);

        assert!(third.is_some() && enter(&room).is_none());
        drop((inside, third));
        let again: Vec<_> = (0..4).filter_map(|_| enter(&room)).collect();
        assert_eq!(again.len(), 3);
        room.close();
        drop(again);
        assert!(enter(&room).is_none());
    }
}
