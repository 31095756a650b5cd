//! The waiting room in front of a host: who is let in next, and who is turned away.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Whose turn it is first, and who is turned away first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Priority {
    /// Somebody has done something, and would have to do it again.
    Write,
    /// Can be asked again, so it gives way.
    Read,
}

impl Priority {
    /// From the first to the last.
    pub const ALL: [Self; 2] = [Self::Write, Self::Read];

    /// Its name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// Whoever comes later than that after the last one is the first of another crowd.
const QUIET: Duration = Duration::from_secs(1);

/// Those who wait, each with the ticket that lets it in.
#[derive(Debug)]
pub(super) struct Room<T> {
    /// By priority; in the order in which they came.
    lines: [VecDeque<Waiting<T>>; Priority::ALL.len()],
    /// Since when somebody has been waiting, but for short breaks.
    since: Option<Instant>,
    /// When the last one came.
    last: Option<Instant>,
    number: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    since: Instant,
    ticket: T,
}

/// What came of a wish to wait.
#[derive(Debug)]
pub(super) enum Entry<T> {
    /// It waits under this number.
    Waits(u64),
    /// The same, in place of another one.
    Displaces(u64, T),
    /// There is no place for it.
    Full(T),
}

/// How it goes on in the room at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// First come, first served: it is soon over.
    First,
    /// There will always be more than can be served: the last to come is served, who need not have
    /// waited, and who has waited for longer than this is told so.
    Last(Duration),
}

impl<T> Room<T> {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { lines: [VecDeque::new(), VecDeque::new()], since: None, last: None, number: 0 }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// How many of a priority wait.
    pub(super) fn waiting(&self, priority: Priority) -> usize {
        self.lines[priority as usize].len()
    }

    /// For how long somebody or other has been waiting.
    pub(super) fn busy_for(&self, now: Instant) -> Duration {
        let since = self.since.filter(|_| self.len() > 0);
        since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Takes somebody in, if that makes no more than `places`. Where it is full, those who would be
    /// let in last give way: reads to writes, and where the last to come are served first, old ones
    /// to new ones.
    pub(super) fn enter(
        &mut self,
        priority: Priority,
        ticket: T,
        places: usize,
        order: Order,
        now: Instant,
    ) -> Entry<T> {
        let mut displaced = None;
        if self.len() >= places {
            let Some(other) = self.last(priority, order) else { return Entry::Full(ticket) };
            displaced = Some(other);
        }
        self.number += 1;
        let number = self.number;
        let was_quiet = self.last.is_none_or(|last| now.duration_since(last) > QUIET);
        if was_quiet && self.lines.iter().all(VecDeque::is_empty) {
            self.since = Some(now);
        }
        self.last = Some(now);
        self.lines[priority as usize].push_back(Waiting { number, since: now, ticket });
        match displaced {
            Some(ticket) => Entry::Displaces(number, ticket),
            None => Entry::Waits(number),
        }
    }

    /// Takes out whoever gives way to a newcomer, if anybody does.
    fn last(&mut self, priority: Priority, order: Order) -> Option<T> {
        let [writes, reads] = &mut self.lines;
        let gives_way = match (order, priority) {
            (Order::First, Priority::Read) => None,
            (Order::First, Priority::Write) => reads.pop_back(),
            (Order::Last(_), Priority::Read) => reads.pop_front(),
            (Order::Last(_), Priority::Write) => reads.pop_front().or_else(|| writes.pop_front()),
        };
        gives_way.map(|waiting| waiting.ticket)
    }

    /// Whoever is let in next.
    pub(super) fn next(&mut self, order: Order) -> Option<T> {
        let line = self.lines.iter_mut().find(|line| !line.is_empty())?;
        let waiting = match order {
            Order::First => line.pop_front(),
            Order::Last(_) => line.pop_back(),
        };
        waiting.map(|waiting| waiting.ticket)
    }

    /// Whoever has waited for too long.
    pub(super) fn late(&mut self, order: Order, now: Instant) -> Option<T> {
        let Order::Last(patience) = order else { return None };
        // Whoever is served first has hope for longer.
        for (line, patience) in self.lines.iter_mut().zip([patience * 2, patience]) {
            if line.front().is_some_and(|it| now.duration_since(it.since) > patience) {
                let waiting = line.pop_front();
                return waiting.map(|waiting| waiting.ticket);
            }
        }
        None
    }

    /// Takes out whoever waits under `number`, if it still does.
    pub(super) fn leave(&mut self, priority: Priority, number: u64) -> Option<T> {
        let line = &mut self.lines[priority as usize];
        let at = line.binary_search_by_key(&number, |it| it.number).ok()?;
        let waiting = line.remove(at)?;
        Some(waiting.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LAST: Order = Order::Last(Duration::from_millis(20));

    /// A room for three, into which these came one after the other.
    fn room(priorities: [Priority; 3], order: Order, now: Instant) -> Room<u32> {
        let mut room = Room::new();
        for (number, priority) in (0..).zip(priorities) {
            let entry = room.enter(priority, number, 3, order, now + MS * number);
            assert!(matches!(entry, Entry::Waits(_)));
        }
        room
    }

    #[test]
    fn writes_are_let_in_first_and_the_last_to_come_once_there_are_always_too_many() {
        for (order, expected) in [(Order::First, [1, 0, 2]), (LAST, [1, 2, 0])] {
            let priorities = [Priority::Read, Priority::Write, Priority::Read];
            let mut room = room(priorities, order, Instant::now());

            let let_in: Vec<_> = std::iter::from_fn(|| room.next(order)).collect();

            assert_eq!(let_in, expected, "{order:?}");
        }
    }

    #[test]
    fn where_it_is_full_whoever_would_be_let_in_last_gives_way() {
        let (read, write) = (Priority::Read, Priority::Write);
        for (waiting, newcomer, order, gives_way) in [
            ([read, write, read], write, Order::First, Some(2)),
            ([read, write, read], read, Order::First, None),
            ([write, write, write], write, Order::First, None),
            ([write, read, read], write, LAST, Some(1)),
            ([write, read, read], read, LAST, Some(1)),
            ([write, write, write], write, LAST, Some(0)),
            ([write, write, write], read, LAST, None),
        ] {
            let now = Instant::now();
            let mut room = room(waiting, order, now);

            let entry = room.enter(newcomer, 9, 3, order, now + MS * 9);

            let displaced = match entry {
                Entry::Displaces(_, ticket) => Some(ticket),
                Entry::Full(9) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!((displaced, room.len()), (gives_way, 3), "{waiting:?} {newcomer:?}");
        }
    }

    #[test]
    fn who_is_late_is_told_so_and_writes_have_hope_for_twice_as_long() {
        let now = Instant::now();
        let mut room = room([Priority::Write, Priority::Read, Priority::Read], LAST, now);
        let late = |room: &mut Room<u32>, after| room.late(LAST, now + MS * after);

        assert_eq!(late(&mut room, 20), None);
        assert_eq!(late(&mut room, 22), Some(1));
        assert_eq!(late(&mut room, 22), None);
        assert_eq!((late(&mut room, 41), late(&mut room, 41)), (Some(0), Some(2)));
        assert_eq!(room.late(Order::First, now + MS * 900), None);
        assert_eq!(room.busy_for(now + MS * 900), Duration::ZERO, "nobody is left");
    }
}
