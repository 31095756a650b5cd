//! The one door through which a company's internal services reach the Amove API.
//!
//! # The way of a request
//!
//! ```text
//!             caller                                      ▲
//!               │                                         │  every answer; RFC 9457 if it is a problem
//!    ┌──────────▼─────────────────────────────────────────┴─────┐
//!    │  server::wire   refuses bytes that can be read twice      │
//!    │  receive        opens the exchange; always answers        │
//!    │  audit          sees to it that there is a record         │
//!    │  admit          refuses what is ambiguous or too large    │   towards the caller:
//!    │  authenticate   finds out who is calling                  │   may this request pass?
//!    │  sanitise       takes away what the API must not hear     │
//!    │  find_route     finds the route; moves legacy paths       │
//!    │  authorise      asks the policy                           │
//!    │  limit          takes it from the caller's quota          │
//!    ├──────────────────────────────────────────────────────────┤
//!    │  pause          leaves the API alone while it asks so     │   towards the API:
//!    │  announce       writes down what begins                   │
//!    │  inject_token   signs it in; replays once after a denial  │   how does it get there?
//!    │  retry          repeats what is safe to repeat            │
//!    │  breaker        leaves a failing API alone                │
//!    │  normalise      turns a 499 into an honest problem        │
//!    │  forward        one attempt, in its turn, within its time │
//!    └──────────┬─────────────────────────────────────────▲──────┘
//!               ▼                                         │
//!             the Amove API, or the emulator
//! ```
//!
//! [`stack`] is that list as code; a layer is one file in [`middleware`].
//!
//! # The floors
//!
//! Arrows point down: a module uses the floors below its own and nothing else. A test keeps it so.
//!
//! | floor | modules | |
//! |---|---|---|
//! | ground | [`amove`] [`clock`] [`config`] [`gather`] [`message`] [`sockets`] [`supervise`], then [`circuit`] [`mod@redis`] [`slots`] [`telemetry`], then [`upstream`] | know nothing of what is above |
//! | domains | [`audit`] [`caller`] [`limit`] [`pause`] [`policy`] [`retry`] [`session`] | decide; know neither layers nor problems |
//! | way | [`problem`] [`exchange`] [`middleware`] [`stack`] | translate decisions into HTTP |
//! | edges | [`server`] [`admin`] | callers come in here, operators there |
//! | process | [`app`] [`cli`] | |
//! | aside | [`emulator`] | shares nothing with the rest; only [`cli`] and the tests know it |
//!
//! # Threads
//!
//! Each worker is one thread with a runtime, listeners (`SO_REUSEPORT`) and connections to the API
//! of its own, and a whole stack of its own: a request never changes threads, and a connection to
//! the API is polled by the very task that serves the caller. A request costs two reads and two
//! writes; the layers are composed statically, and its one boxed future (about 1.5 KiB) is freed
//! while the connection is idle. Logins, operators, signals and the
//! shipping of audit records live on the main thread.
//!
//! A connection that switches protocols (the hub's WebSocket) stays with the task that served it: it
//! moves the bytes of both directions, and has no buffer while nothing moves.
//!
//! What workers share is read by reference: the token in force, the callers, the quotas.
//!
//! A panic ends one answer, or one task. Tasks and threads that serve everybody are [`supervise`]d:
//! they begin anew, a worker included, and the watchdog of a service manager is told of workers that
//! hang.
//!
//! # Connections to the API
//!
//! ```text
//! request ──▶ pool (of one worker) ──▶ one put aside, or the shared one: neither old nor elsewhere
//!               └── none: dial ──▶ addresses ──▶ race ──▶ TLS ──▶ a life begins, which is counted
//!                                  └── site (of all workers): looked up again, avoided for a while
//! ```
//!
//! What a connection costs is paid when it is opened. A request compares the time and one number, which
//! changes when the addresses of the name do.
//!
//! # From one process to the next
//!
//! ```text
//! service manager ── listening sockets ──▶ process ── READY, RELOADING, STOPPING, signs of life ──▶
//! predecessor     ── listening sockets ──▶ successor ── I serve ──▶ predecessor drains, and ends
//!     └── the audit store, when it has ended ──▶┘ whose records wait in its own journal until then
//! ```
//!
//! # Reload
//!
//! ```text
//! SIGHUP, a changed file, an operator ──▶ load ──▶ prepare ──▶ in force ──▶ one swap at each worker
//!                                           └────────┴── anything wrong: nothing has happened
//! ```
//!
//! A request begins with the stack in force and ends with it. [`stack::Shared::under`] says of each
//! part what outlives a configuration; the table of settings says which of them only a start sets.
//!
//! # Sessions
//!
//! ```text
//! callers ── read the token, without a lock ──▶ slot ◀── put ── keeper ── login ──▶ auth host
//!    └────── denied, or none: ask and wait ──────────────────▶  │   ▲
//!                                          event, time ──▶ machine  └── look, claim, write ──▶ store
//! ```
//!
//! Each identity has one task (the keeper). It tells a pure machine what happens and does what that
//! decides; callers wait for what it tells, and may leave. Whoever holds the store's lease logs in;
//! the others find the session, or the note of why there is none, in the store.
//!
//! # Records
//!
//! ```text
//! worker ── append, then answer ──▶ its journal ◀── read, ten times a second ── writer ──▶ store
//! ```
//!
//! A record is safe when its worker has appended it to its own journal: one write for all requests
//! that are ready at the moment, and no other thread to wait for. One thread moves records from the
//! journals into the store and gives each its place in the hash chain; see [`audit`].
//!
//! # Shared quotas
//!
//! ```text
//! callers ── take, without waiting ──▶ lease ◀── a few more, ahead of need ── quota in Redis
//!                                        └────── what is not used for 100 ms ─────▶ ▲
//! ```
//!
//! No request asks Redis; whoever finds the lease used up waits once, for a quarter of a second at
//! most. While Redis is away, each gateway gives out its share, and one task looks for it.
//!
//! # Load
//!
//! ```text
//! worker ── take, one number ──▶ under way ◀── as many as the host bears ── limiter ◀── how long each took
//!    └───── no slot: wait ──────▶ room ── writes, then reads ── a slot is given back ──▶ ▲
//! ```
//!
//! All workers share the slots towards each host of the API, and the room in front of them: see
//! [`slots`]. A request that finds a slot free takes no lock.
//!
//! # Speed
//!
//! `cargo bench --bench whole` counts the instructions that each kind of request costs the real
//! program, with everything on, below valgrind: apart for the worker and for the thread that stores
//! records. Two runs differ by less than half a percent, so `-- --check` is a gate: it fails where a
//! request costs more than `tests/bench/instructions.toml` tolerates, and `-- --save` agrees to what
//! it costs now. `-- --flat` shows that the cost does not depend on how many callers and rules there
//! are, `-- --keep FOLDER` keeps what `callgrind_annotate` reads, `-- --train SECONDS` is a load to
//! guide a build with. `cargo bench --bench parts` measures the parts of the way one by one; its
//! times hold nobody up.
//!
//! Three fifths of a request's cost are the system's: two reads and two writes, of which the writes
//! are nine tenths. Of the rest hyper takes half, towards the caller and the API alike; the record a
//! fifth, from the first field to the store; memory a tenth; and all layers together the remainder.
//! What has paid for itself:
//!
//! - A connection to the API is polled by the task that serves the caller, and its parts do not wake
//!   that task for each other (`upstream::quiet`): three polls a request instead of five.
//! - Head and body of a small message are one plain write ([`gather`]): no `writev`.
//! - Requests and responses travel in boxes: fourteen layers hand over a pointer, not 400 bytes.
//! - No timer, no lock that others want, and few looks at the clock for each request
//!   ([`clock::deadlines`]).
//! - Records are hashed one by one, but stored by the hundred, as bytes that nobody takes apart.
//! - `config/release.sh` builds by what a load of requests has shown: a fifth fewer instructions.

pub mod admin;
pub mod amove;
pub mod app;
pub mod audit;
pub mod caller;
pub mod circuit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod emulator;
pub mod exchange;
pub mod gather;
pub mod limit;
pub mod message;
pub mod middleware;
pub mod pause;
pub mod policy;
pub mod problem;
pub mod redis;
pub mod retry;
pub mod server;
pub mod session;
pub mod slots;
pub mod sockets;
pub mod stack;
pub mod supervise;
pub mod telemetry;
pub mod upstream;
