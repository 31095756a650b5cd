//! The way of a request, top to bottom.

use std::sync::Arc;

use tower::ServiceBuilder;

use crate::{
    audit::Trail,
    caller::Callers,
    clock::Clock,
    config::Config,
    limit::Limiter,
    middleware::{
        admit::Admit, announce::Announce, around, audit::Audit, authenticate::Authenticate,
        authorise::Authorise, find_route::FindRoute, forward::Forward, inject_token::InjectToken,
        limit::Limit, normalise::Normalise, pause::Pause, receive::Gateway, sanitise::Sanitise,
    },
    pause::Pauses,
    policy::Policy,
    session::Sessions,
    upstream::Upstream,
};

/// What outlives a configuration: a reload loses no quota, no session and no record.
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
    /// What signs us in.
    pub sessions: Arc<Sessions>,
    /// What time it is.
    pub clock: Clock,
}

/// Assembles the gateway that `config` describes. Each worker has one, over its own `upstream`.
#[rustfmt::skip] // the comments are the design card: they stay in one column
pub fn stack(config: &Config, shared: &Shared, upstream: Upstream) -> Gateway {
    ServiceBuilder::new()
        // Towards the caller: may this request pass?
        .layer_fn(Gateway::new)                                                     // opens the exchange; always answers
        .layer(around(Audit::new(&shared.trail.scribe(), &shared.clock)))           // writes down how it ended
        .layer(around(Admit::new(&config.server)))                                  // refuses what is ambiguous or too large
        .layer(around(Authenticate::new(&shared.callers)))                          // finds out who is calling
        .layer(around(Sanitise))                                                    // takes away what the API must not hear
        .layer(around(FindRoute::new(&config.legacy)))                              // finds the route; moves legacy paths
        .layer(around(Authorise::new(&shared.policy)))                              // asks the policy
        .layer(around(Limit::new(&shared.limiter, &config.rate_limit)))             // takes it from the caller's quota
        // Towards the API: how does it get there?
        .layer(around(Pause::new(&shared.pauses, &config.rate_limit)))              // leaves the API alone while it asks so
        .layer(around(Announce))                                                    // writes down that it begins
        .layer(around(InjectToken::new(&shared.sessions, &shared.pauses, config)))  // signs it in; replays once after a denial
        .layer(around(Normalise::new(&config.errors)))                              // turns a 499 into an honest problem
        .service(Forward::new(upstream, &config.upstream, &shared.clock))           // one attempt, within its time
}
