//! Happy eyeballs: several addresses, one connection (RFC 8305).

use std::{io, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

/// How long an address has for itself, before the next one is tried as well.
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// What came of it.
#[derive(Debug)]
pub(super) struct Race<T> {
    /// The winner; why the last one failed; `None`: nobody answered in time.
    pub(super) outcome: Option<io::Result<(SocketAddr, T)>>,
    /// Where nobody was there, or others were sooner although they were called later.
    pub(super) losers: Vec<SocketAddr>,
}

/// Connects to the first of `addresses` that answers until `end`. One is tried after the other: the
/// next at once when one has failed, else after a quarter of a second. The attempts that have not
/// won are dropped.
pub(super) async fn race<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    end: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Race<T> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    // When each attempt that is under way began.
    let mut begun: Vec<(SocketAddr, Instant)> = Vec::new();
    let mut losers = Vec::new();
    let mut last = io::Error::other("the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            begun.push((address, Instant::now()));
            let attempt = connect(address);
            running.push(async move { (address, attempt.await) });
        } else if running.is_empty() {
            return Race { outcome: Some(Err(last)), losers };
        }
        let next = if waiting.len() == 0 { end } else { end.min(Instant::now() + STAGGER) };
        tokio::select! {
            biased;
            Some((address, outcome)) = running.next() => {
                begun.retain(|(running, _)| *running != address);
                match outcome {
                    Ok(connection) => {
                        let slow = begun.iter().filter(|(_, begun)| begun.elapsed() >= STAGGER);
                        losers.extend(slow.map(|(address, _)| *address));
                        return Race { outcome: Some(Ok((address, connection))), losers };
                    }
                    Err(error) => {
                        tracing::debug!(%address, error = error.to_string(), "nobody is there");
                        losers.push(address);
                        last = error;
                    }
                }
            }
            () = sleep_until(next) => if next == end {
                losers.extend(begun.iter().map(|(address, _)| *address));
                return Race { outcome: None, losers };
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Arc, Mutex},
    };

    use tokio::time::sleep;

    use super::*;

    /// How somebody at an address behaves.
    #[derive(Clone, Copy, Debug)]
    enum At {
        Answers(u64),
        Refuses(u64),
        Silent,
    }

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, u8::try_from(number).unwrap()], 443))
    }

    /// Who wins after how many milliseconds, who loses, and when each was called.
    async fn run(behaviour: &[At], limit: u64) -> (Option<usize>, u64, Vec<usize>, Vec<u64>) {
        let begin = Instant::now();
        let called = Arc::new(Mutex::new(Vec::new()));
        let number = |it: SocketAddr| (0..behaviour.len()).find(|at| address(*at) == it).unwrap();

        let addresses = (0..behaviour.len()).map(address).collect();
        let end = begin + Duration::from_millis(limit);
        let race = race(addresses, end, |it| {
            called.lock().unwrap().push(u64::try_from(begin.elapsed().as_millis()).unwrap());
            let at = behaviour[number(it)];
            async move {
                match at {
                    At::Answers(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(())
                    }
                    At::Refuses(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                    At::Silent => pending().await,
                }
            }
        })
        .await;

        let took = u64::try_from(begin.elapsed().as_millis()).unwrap();
        let winner = race.outcome.and_then(Result::ok).map(|(it, ())| number(it));
        let called = called.lock().unwrap().clone();
        (winner, took, race.losers.into_iter().map(number).collect(), called)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_answers_wins() {
        use At::{Answers, Refuses, Silent};
        // Nobody else is called while the first has its time.
        assert_eq!(run(&[Answers(249), Silent], 5000).await, (Some(0), 249, vec![], vec![0]));
        // The next is called soon, and the first may still win.
        let both = [Answers(400), Answers(400)];
        assert_eq!(run(&both, 5000).await, (Some(0), 400, vec![], vec![0, 250]));
        // Whoever is overtaken is a loser; whoever has just been called is not.
        let three = [Silent, Answers(300), Answers(300)];
        assert_eq!(run(&three, 5000).await, (Some(1), 550, vec![0], vec![0, 250, 500]));
        // After a refusal nobody waits.
        let three = [Refuses(1), Refuses(1), Answers(1)];
        assert_eq!(run(&three, 5000).await, (Some(2), 3, vec![0, 1], vec![0, 1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_them_together_have_the_time_of_one() {
        use At::{Refuses, Silent};
        assert_eq!(run(&[], 1000).await, (None, 0, vec![], vec![]));
        assert_eq!(run(&[Refuses(1); 2], 1000).await, (None, 2, vec![0, 1], vec![0, 1]));
        let silent = run(&[Silent; 3], 600).await;
        assert_eq!(silent, (None, 600, vec![0, 1, 2], vec![0, 250, 500]));
        assert_eq!(run(&[Silent; 3], 400).await, (None, 400, vec![0, 1], vec![0, 250]));
        // A late refusal of the one before does not delay the next.
        let two = run(&[Refuses(300), Silent], 600).await;
        assert_eq!(two, (None, 600, vec![0, 1], vec![0, 250]));
    }
}
