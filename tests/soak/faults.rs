//! What goes wrong.

use std::time::Duration;

use amove_gateway::emulator::{Fault as Spoilt, Host};
use http::StatusCode;
use tokio::{net::UnixStream, task::block_in_place, time::sleep};

use crate::{
    calls::{Call, Kind},
    line::{Line, Way},
    process_support::{Process, call, request},
    scene::{Scene, quota},
};

/// See above.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Reset,
    ResetAfterwards,
    Truncate,
    Stall,
    Garbage,
    Drip,
    Slow,
    Failures,
    Switch,
    Restart,
    AuthOutage,
    Revocation,
    Denial,
    RedisRestart,
    RedisStall,
    PostgresCrash,
    PostgresRestart,
    DiskFull,
    Reload,
    BadReload,
    Certificate,
    Disconnects,
}

impl Fault {
    const ALL: [Self; 22] = [
        Self::Reset,
        Self::ResetAfterwards,
        Self::Truncate,
        Self::Stall,
        Self::Garbage,
        Self::Drip,
        Self::Slow,
        Self::Failures,
        Self::Switch,
        Self::Restart,
        Self::AuthOutage,
        Self::Revocation,
        Self::Denial,
        Self::RedisRestart,
        Self::RedisStall,
        Self::PostgresCrash,
        Self::PostgresRestart,
        Self::DiskFull,
        Self::Reload,
        Self::BadReload,
        Self::Certificate,
        Self::Disconnects,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Reset => "Amove resets connections",
            Self::ResetAfterwards => "Amove resets connections after it has done what was asked",
            Self::Truncate => "Amove's answers break off",
            Self::Stall => "Amove does not answer some calls",
            Self::Garbage => "Amove's answers are not HTTP",
            Self::Drip => "Amove's answers come byte by byte",
            Self::Slow => "Amove is slow",
            Self::Failures => "Amove answers 500, 502 and 503",
            Self::Switch => "Amove switches protocols unasked",
            Self::Restart => "Amove restarts, and has forgotten all sessions",
            Self::AuthOutage => "sessions end while nobody can log in",
            Self::Revocation => "sessions end",
            Self::Denial => "good tokens are denied",
            Self::RedisRestart => "Redis crashes, and comes back empty",
            Self::RedisStall => "Redis stands still",
            Self::PostgresCrash => "PostgreSQL crashes",
            Self::PostgresRestart => "PostgreSQL is stopped for a while",
            Self::DiskFull => "the disk is full for 5 seconds",
            Self::Reload => "another configuration",
            Self::BadReload => "a configuration that is wrong",
            Self::Certificate => "another certificate",
            Self::Disconnects => "many callers leave at once",
        }
    }

    /// Lets it happen, until it is over.
    pub(crate) async fn befall(self, scene: &mut Scene) {
        let some = fastrand::u64(1..8);
        match self {
            Self::Reset => scene.amove().inject(Spoilt::reset(some)),
            Self::ResetAfterwards => {
                let reset = Spoilt::Reset { count: some, acted: true, host: None, route: None };
                scene.amove().inject(reset);
            }
            Self::Truncate => scene.amove().inject(Spoilt::truncate(some)),
            Self::Stall => scene.amove().inject(Spoilt::stall(some)),
            Self::Garbage => {
                let host = Some(Host::Main);
                scene.amove().inject(Spoilt::Garbage { count: some, host });
            }
            Self::Drip => scene.amove().inject(Spoilt::Drip {
                ms: 3,
                count: some,
                host: None,
                route: Some("user/userinfo".to_owned()),
            }),
            Self::Slow => {
                scene
                    .amove()
                    .inject(Spoilt::latency(Duration::from_millis(fastrand::u64(50..500))));
                sleep(Duration::from_secs(2)).await;
                scene.amove().clear_faults();
            }
            Self::Failures => {
                for status in [500, 502, 503] {
                    scene.amove().inject(Spoilt::status(status, some));
                }
            }
            Self::Switch => scene.amove().inject(Spoilt::Unsolicited101 { count: some }),
            Self::Restart => {
                scene.stop_amove().await;
                sleep(Duration::from_millis(fastrand::u64(100..2_000))).await;
                scene.start_amove().await;
            }
            Self::AuthOutage => {
                scene.amove().inject(Spoilt::AuthDown { on: true });
                revoke(scene);
                sleep(Duration::from_secs(3)).await;
                scene.amove().inject(Spoilt::AuthDown { on: false });
            }
            Self::Revocation => revoke(scene),
            Self::Denial => {
                scene.ended += 1;
                scene.amove().inject(Spoilt::unauthorized(1));
            }
            Self::RedisRestart => {
                scene.redis.kill();
                sleep(Duration::from_millis(fastrand::u64(100..3_000))).await;
                block_in_place(|| scene.redis.revive());
            }
            Self::RedisStall => {
                scene.redis.signal("STOP");
                sleep(Duration::from_secs(2)).await;
                scene.redis.signal("CONT");
            }
            Self::PostgresCrash => {
                block_in_place(|| scene.postgres.kill());
                block_in_place(|| scene.postgres.revive());
            }
            Self::PostgresRestart => {
                block_in_place(|| scene.postgres.stop());
                sleep(Duration::from_secs(3)).await;
                block_in_place(|| scene.postgres.revive());
            }
            Self::DiskFull => {
                fill_disk(&scene.gateway.process, true);
                sleep(Duration::from_secs(5)).await;
                fill_disk(&scene.gateway.process, false);
            }
            Self::Reload => {
                scene.write_config(&quota(fastrand::u32(3..9)));
                match fastrand::u8(..3) {
                    // It is noticed.
                    0 => sleep(Duration::from_secs(4)).await,
                    1 => scene.gateway.process.signal("HUP"),
                    _ => assert_eq!(reload(scene).await, StatusCode::OK),
                }
            }
            Self::BadReload => {
                scene.write_config("rate = \"as much as he likes\"\n");
                assert_eq!(reload(scene).await, StatusCode::UNPROCESSABLE_ENTITY);
                scene.write_config(&quota(5));
            }
            Self::Certificate => scene.renew_certificate(),
            Self::Disconnects => disconnect(scene).await,
        }
    }
}

fn revoke(scene: &mut Scene) {
    scene.ended += 1;
    scene.amove().revoke_sessions();
}

async fn reload(scene: &Scene) -> StatusCode {
    let answer = call(scene.gateway.admin, request("POST", "/-/reload")).await;
    answer.expect("an answer").status()
}

/// From now on no file of the process may grow, as on a full disk.
fn fill_disk(process: &Process, full: bool) {
    let limit = if full { "--fsize=0:unlimited" } else { "--fsize=unlimited:unlimited" };
    let pid = process.pid().to_string();
    let mut prlimit = std::process::Command::new("prlimit");
    assert!(prlimit.args(["--pid", &pid, limit]).status().expect("prlimit").success());
}

/// Connections on which there is nothing, a request, or twenty; all gone at once.
async fn disconnect(scene: &Scene) {
    let door = scene.door();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.extend(UnixStream::connect(&door.unix).await.ok());
    }
    let mut lines = Vec::new();
    for way in Way::ALL {
        for _ in 0..5 {
            lines.extend(Line::open(&door, way).await.ok());
        }
    }
    let mut random = fastrand::Rng::new();
    for line in &mut lines {
        let many = if matches!(line, Line::Two(_)) { 20 } else { 1 };
        for _ in 0..many {
            // Numbers of their own: nobody knows what becomes of them.
            let (_, request) =
                Call::new(random.u64(500_000_000..999_999_999), Kind::Echo, &mut random);
            let moment = Duration::from_millis(random.u64(..3));
            let _ = tokio::time::timeout(moment, line.send(request)).await;
        }
    }
}

/// All faults in an order of chance, again and again.
pub(crate) struct Deck {
    random: fastrand::Rng,
    left: Vec<Fault>,
}

impl Deck {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), left: Vec::new() }
    }

    pub(crate) fn draw(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left = Fault::ALL.to_vec();
            self.random.shuffle(&mut self.left);
        }
        self.left.pop().expect("there are some")
    }

    /// Until the next one: sometimes hardly any.
    pub(crate) fn pause(&mut self) -> u64 {
        self.random.u64(100..4_000)
    }
}
