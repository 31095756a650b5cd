//! Lets a request in when its turn has come.

use http::{Method, StatusCode};

use super::Answer;
use crate::{
    amove::{catalogue::Effect, host::Host, tags::Tags},
    exchange::Exchange,
    problem::{Kind, Problem},
    slots::{Cause, Priority, Slot, Slots, Turn, TurnedAway, Wish},
};

/// The way to the slots that all workers share.
#[derive(Debug)]
pub(super) struct Entrance(Slots);

/// A request token is asked for because of a form that somebody has filled in.
pub(super) const TOKEN: Wish = Wish { priority: Priority::Write, route: None, lasts: false };

impl Entrance {
    /// To `slots`, which outlive any one configuration.
    pub(super) fn new(slots: &Slots) -> Self {
        Self(slots.sibling())
    }

    /// Waits for a slot towards `host`.
    pub(super) async fn enter(
        &self,
        host: Host,
        wish: Wish,
    ) -> Result<(Turn<'_>, Slot), TurnedAway> {
        self.0.to(host).enter(wish).await
    }

    /// Waits for a slot for the request of `exchange`.
    pub(super) async fn admit(&self, exchange: &Exchange) -> Result<(Turn<'_>, Slot), Problem> {
        let host = exchange.destination()?.host();
        self.enter(host, wish(exchange)?).await.map_err(|turned_away| {
            exchange.set_rule(turned_away.cause.rule().into());
            turned_away.into()
        })
    }
}

/// What a request wants: reads give way, because they can be repeated. Of what is not in the
/// catalogue only the method tells.
fn wish(exchange: &Exchange) -> Result<Wish, Problem> {
    let route = exchange.destination()?.route;
    let is_read = match route {
        Some(route) => route.effect == Effect::Read,
        None => matches!(exchange.method, Method::GET | Method::HEAD | Method::OPTIONS),
    };
    Ok(Wish {
        priority: if is_read { Priority::Read } else { Priority::Write },
        route: route.map(|route| route.index),
        lasts: route.is_some_and(|route| route.tags.contains(Tags::REALTIME)),
    })
}

/// Takes note of how long an attempt took.
pub(super) fn heard(turn: Turn<'_>, answer: &Answer, took: std::time::Duration) {
    match answer {
        Ok(response) => match response.status() {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => turn.failed(took),
            // What fails, or refuses somebody, may do so without having done anything.
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                drop(turn);
            }
            _ => turn.answered(took),
        },
        Err(problem) if problem.kind() == Kind::UpstreamTimeout => turn.failed(took),
        Err(_) => drop(turn),
    }
}

impl From<TurnedAway> for Problem {
    fn from(turned_away: TurnedAway) -> Self {
        let detail = match turned_away.cause {
            Cause::NoRoom => {
                "Amove has more to do than it can, and too many requests wait already; this one did \
                 not leave the gateway."
            }
            Cause::Late => {
                "Amove has more to do than it can, and the request has waited for too long; it did \
                 not leave the gateway."
            }
        };
        Self::new(Kind::Overloaded, detail).retry_after(turned_away.left)
    }
}
