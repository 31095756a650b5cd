//! The way of a request, top to bottom.

use std::sync::Arc;

use tower::ServiceBuilder;

use crate::{
    audit::{Scribe, Trail},
    caller::{Callers, jwt::KeysError},
    circuit::Circuits,
    clock::Clock,
    config::{Changes, Config},
    limit::Limiter,
    middleware::{
        admit::Admit, announce::Announce, around, audit::Audit, authenticate::Authenticate,
        authorise::Authorise, breaker::Breaker, find_route::FindRoute, forward::Forward,
        inject_token::InjectToken, limit::Limit, normalise::Normalise, pause::Pause,
        receive::Gateway, retry::Retry, sanitise::Sanitise,
    },
    pause::Pauses,
    policy::Policy,
    retry::Retries,
    session::Sessions,
    slots::Slots,
    upstream::{Sites, Upstream},
};

/// What all workers share. A reload makes another one of it: [`Shared::under`] says of each part
/// what outlives a configuration, so that no quota, no session and no record is lost.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What has happened.
    pub trail: Arc<Trail>,
    /// Who may call.
    pub callers: Arc<Callers>,
    /// What each caller may call.
    pub policy: Arc<Policy>,
    /// What each caller has left.
    pub limiter: Arc<Limiter>,
    /// When the API wants to be left alone.
    pub pauses: Arc<Pauses>,
    /// Whether the API is well.
    pub circuits: Arc<Circuits>,
    /// How many requests the API bears, and who waits.
    pub slots: Arc<Slots>,
    /// What came of sending once more.
    pub retries: Arc<Retries>,
    /// What signs us in.
    pub sessions: Arc<Sessions>,
    /// The API's hosts, and how the connections to them fare.
    pub sites: Sites,
    /// What time it is.
    pub clock: Clock,
}

/// What each worker has of its own; it outlives a configuration too.
#[derive(Clone, Debug)]
pub struct Own {
    /// Writes down what happens.
    pub scribe: Arc<Scribe>,
    /// The connections to the API. Others take their place when `[upstream]` changes.
    pub upstream: Upstream,
}

impl Shared {
    /// The same under `config`, after these `changes`. Nothing happens before
    /// [`Shared::take_over`].
    ///
    /// # Errors
    ///
    /// When the way to the issuer of callers' tokens cannot be prepared.
    #[rustfmt::skip] // what survives stays in one column
    pub fn under(&self, config: &Config, changes: &Changes, upstream: &Upstream) -> Result<Self, KeysError> {
        let sessions = self.sessions.under(&config.identities, &config.upstream.auth_url, upstream);
        let callers = if changes.touch("caller_jwt") {
            Callers::new(config, &self.clock)?
        } else {
            self.callers.under(config)
        };
        let circuits = self.circuits.under(&config.upstream);
        let slots = self.slots.under(&config.upstream);
        let stay = sessions.positions_in(&self.sessions);
        Ok(Self {
            trail: Arc::clone(&self.trail),                 // all of it
            callers: Arc::new(callers),                     // the keys of the issuer, if that stays
            policy: Arc::new(Policy::new(config)),          // nothing: the configuration says it all
            limiter: Arc::new(self.limiter.under(config)),  // what is used up, under way, and counted
            pauses: Arc::new(self.pauses.under(&stay)),     // those of identities that stay
            circuits: Arc::new(circuits),                   // how hosts are that stay, and what was counted
            slots: Arc::new(slots),                         // what is taken, what hosts bear that stay, and what was counted
            retries: Arc::clone(&self.retries),             // what was counted
            sessions,                                       // those of users that stay
            sites: upstream.sites().clone(),                // what was counted, and addresses of hosts that stay
            clock: self.clock.clone(),                      // the time
        })
    }

    /// Comes into force in place of `before`.
    pub fn take_over(&self, before: &Self) {
        self.sessions.take_over(&before.sessions);
        self.limiter.take_over();
    }
}

/// Assembles the gateway that `config` describes. Each worker has one, over what is its `own`.
#[rustfmt::skip] // the comments are the design card: they stay in one column
pub fn stack(config: &Config, shared: &Shared, own: &Own) -> Gateway {
    let Shared { sessions, pauses, circuits, slots, retries, .. } = shared;
    ServiceBuilder::new()
        // Towards the caller: may this request pass?
        .layer_fn(Gateway::new)                                                     // opens the exchange; always answers
        .layer(around(Audit::new(&own.scribe, &shared.clock)))                      // writes down how it ended
        .layer(around(Admit::new(&config.server)))                                  // refuses what is ambiguous or too large
        .layer(around(Authenticate::new(&shared.callers)))                          // finds out who is calling
        .layer(around(Sanitise))                                                    // takes away what the API must not hear
        .layer(around(FindRoute::new(&config.legacy)))                              // finds the route; moves legacy paths
        .layer(around(Authorise::new(&shared.policy)))                              // asks the policy
        .layer(around(Limit::new(&shared.limiter, &config.rate_limit)))             // takes it from the caller's quota
        // Towards the API: how does it get there?
        .layer(around(Pause::new(pauses, &config.rate_limit)))                      // leaves the API alone while it asks so
        .layer(around(Announce))                                                    // writes down that it begins
        .layer(around(InjectToken::new(sessions, pauses, circuits, slots, config))) // signs it in; replays once after a denial
        .layer(around(Retry::new(retries, pauses, circuits, &config.upstream)))     // repeats what is safe to repeat
        .layer(around(Breaker::new(circuits)))                                      // leaves a failing API alone
        .layer(around(Normalise::new(&config.errors)))                              // turns a 499 into an honest problem
        .service(Forward::new(own.upstream.clone(), slots, &config.upstream, &shared.clock)) // one attempt, in its turn and within its time
}
