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

/// Those who wait, each with the ticket that lets it in.
#[derive(Debug)]
pub(super) struct Room<T> {
    /// By priority; in the order in which they came.
    lines: [VecDeque<Waiting<T>>; Priority::ALL.len()],
    /// Since when somebody has been waiting.
    since: Option<Instant>,
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
        Self { lines: [VecDeque::new(), VecDeque::new()], since: None, number: 0 }
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
        self.since.map_or(Duration::ZERO, |since| now.duration_since(since))
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
        self.since.get_or_insert(now);
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
        self.settle();
        waiting.map(|waiting| waiting.ticket)
    }

    /// Whoever has waited for too long.
    pub(super) fn late(&mut self, order: Order, now: Instant) -> Option<T> {
        let Order::Last(patience) = order else { return None };
        // Whoever is served first has hope for longer.
        for (line, patience) in self.lines.iter_mut().zip([patience * 2, patience]) {
            if line.front().is_some_and(|it| now.duration_since(it.since) > patience) {
                let waiting = line.pop_front();
                self.settle();
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
        self.settle();
        Some(waiting.ticket)
    }

    fn settle(&mut self) {
        if self.len() == 0 {
            self.since = None;
        }
    }
}
