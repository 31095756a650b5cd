//! `sandbox`: emulator, gateway and sample traffic on loopback; nothing to configure.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{Exit, Failure, Global, print, run::End, runtime};
use crate::{
    app::App,
    clock::Clock,
    config::{Config, LogFormat, load},
    emulator::{self, Emulator, Options},
    telemetry::log,
};

mod traffic;

/// How many ports are tried when one is busy.
const TRIES: u16 = 50;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Send no sample traffic
    #[arg(long)]
    no_traffic: bool,
    /// How long a token lives: short, so that renewal can be watched
    #[arg(long, default_value = "90s", value_name = "TIME", value_parser = super::duration)]
    token_ttl: Duration,
    /// The gateway's port on 127.0.0.1; a busy one makes way for the next
    #[arg(long, default_value_t = 8080, value_name = "N")]
    port: u16,
    /// The port for operators
    #[arg(long, default_value_t = 9090, value_name = "N")]
    admin_port: u16,
    /// The emulator's port; its auth host has the next
    #[arg(long, default_value_t = 8099, value_name = "N")]
    emulator_port: u16,
    /// Where the audit log goes; without it, to a folder that is gone afterwards
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs until a signal ends it.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    if !global.files.is_empty() {
        let why = "the sandbox brings its own configuration; `run` takes yours";
        return Err(Failure::new(Exit::Usage, why));
    }
    runtime()?.block_on(async {
        let mut end = End::new()?;
        let mut ports = Ports::default();
        let emulator = start_emulator(arguments, &mut ports).await?;
        let mut config = configuration(&emulator, arguments, &mut ports)?;
        global.apply(&mut config);
        let data = Data::new(arguments.data.as_deref())?;
        config.audit.store = data.path().join("audit");
        log::start(&config.telemetry);
        let app = App::start(&config, Clock::system()).await?;
        print(screen(&config, &emulator, &ports, arguments))?;
        let traffic =
            (!arguments.no_traffic).then(|| tokio::spawn(traffic::send(gateway(&config))));
        end.wait().await;
        if let Some(traffic) = traffic {
            traffic.abort();
        }
        tokio::select! {
            () = app.drain() => {}
            _ = end.wait() => std::process::exit(Exit::Other as i32),
        }
        emulator.stop().await;
        Ok(())
    })
}

/// Where the sandbox keeps what has happened.
enum Data {
    Kept(PathBuf),
    Passing(tempfile::TempDir),
}

impl Data {
    fn new(folder: Option<&Path>) -> Result<Self, Failure> {
        match folder {
            Some(folder) => Ok(Self::Kept(folder.to_owned())),
            None => tempfile::Builder::new()
                .prefix("amove-sandbox-")
                .tempdir()
                .map(Self::Passing)
                .map_err(|error| {
                    Failure::new(Exit::Io, format!("no folder for the audit log: {error}"))
                }),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Passing(folder) => folder.path(),
        }
    }
}

/// Free ports, and what is to be said about those that were not.
#[derive(Default)]
struct Ports {
    taken: Vec<u16>,
    remarks: Vec<String>,
}

impl Ports {
    /// `wanted`, or the next that is free. 0 is any.
    fn free(&mut self, what: &str, wanted: u16) -> Result<u16, Failure> {
        if wanted == 0 {
            return Ok(0);
        }
        for port in (wanted..=u16::MAX).take(usize::from(TRIES)) {
            let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            if is_free && !self.taken.contains(&port) {
                self.taken.push(port);
                if port != wanted {
                    self.remarks.push(format!("Port {wanted} is busy, so {what} is at {port}."));
                }
                return Ok(port);
            }
        }
        Err(Failure::new(
            Exit::Io,
            format!("no free port for {what}: tried {TRIES} from {wanted} on"),
        ))
    }
}

async fn start_emulator(arguments: &Arguments, ports: &mut Ports) -> Result<Emulator, Failure> {
    let api = ports.free("the emulator", arguments.emulator_port)?;
    let auth =
        ports.free("the emulator's auth host", if api == 0 { 0 } else { api.saturating_add(1) })?;
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Emulator::start(Options {
        api_listen: at(api),
        auth_listen: at(auth),
        token_ttl: arguments.token_ttl,
        mfa: true,
        ..Options::default()
    })
    .await
    .map_err(|error| Failure::new(Exit::Io, format!("cannot start the emulator: {error}")))
}

/// The only place where fake credentials live. Every address in it is loopback.
fn configuration(
    emulator: &Emulator,
    arguments: &Arguments,
    ports: &mut Ports,
) -> Result<Config, Failure> {
    let port = ports.free("the gateway", arguments.port)?;
    let admin = ports.free("the admin listener", arguments.admin_port)?;
    let keys = traffic::CALLERS.map(|caller| {
        let hash = blake3::hash(caller.key.as_bytes()).to_hex();
        format!(
            "[callers.{}]\napi_key_hash = \"blake3:{hash}\"\nrate = \"{}\"\n",
            caller.name, caller.rate
        )
    });
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:{port}\"]\nadmin_listen = \"127.0.0.1:{admin}\"\nworkers = 2\n\
         drain_timeout = \"5s\"\n\
         [upstream]\napi_url = \"{}\"\nauth_url = \"{}\"\n\
         [identities.main]\nusername = \"{}\"\npassword = \"{}\"\nuser_type = {}\ntotp_secret = \"{}\"\n\
         [callers.local]\n{}",
        emulator.api_url(),
        emulator.auth_url(),
        emulator::USERNAME,
        emulator::PASSWORD,
        emulator::USER_TYPE,
        emulator::TOTP_SECRET,
        keys.concat(),
    );
    let loaded = load::load_str(&text, &[])
        .map_err(|report| Failure { exit: Exit::Internal, message: report.to_string() })?;
    let mut config = loaded.config;
    config.telemetry.log = std::env::var("AMOVE_GATEWAY_TELEMETRY__LOG")
        .unwrap_or_else(|_| "warn,amove_gateway::audit=info,amove_gateway::session=info".into());
    config.telemetry.log_format = LogFormat::Auto;
    Ok(config)
}

fn gateway(config: &Config) -> String {
    config.server.listen.first().map(ToString::to_string).unwrap_or_default()
}

fn screen(config: &Config, emulator: &Emulator, ports: &Ports, arguments: &Arguments) -> String {
    let (gateway, api) = (gateway(config), emulator.api_url());
    let admin = config.server.admin_listen.as_ref().map(ToString::to_string).unwrap_or_default();
    let remarks: String = ports.remarks.iter().map(|remark| format!("  {remark}\n")).collect();
    let traffic = if arguments.no_traffic {
        ""
    } else {
        "\n  Three sample callers are sending requests; one of them is over its limit.\n"
    };
    format!(
        "\n  amove-gateway sandbox: everything on this machine, and nothing real.\n{remarks}\n  \
           gateway    http://{gateway}\n  \
           operators  http://{admin}/readyz?verbose\n  \
           emulator   {api}/_emulator/stats\n{traffic}\n  \
         Call Amove without a login:\n\n    \
           curl http://{gateway}/api/v1/user/userinfo\n\n  \
         The same by its deprecated path; look at Deprecation and Link:\n\n    \
           curl -i http://{gateway}/api/user/userinfo\n\n  \
         An error of Amove, told the standard way:\n\n    \
           curl -i 'http://{gateway}/api/v1/sync/get?id=nobody'\n\n  \
         Watch a token being replaced every {:.0?}; end all sessions, and nobody notices:\n\n    \
           curl -X POST {api}/_emulator/revoke_sessions\n    \
           amove-gateway token status --address {admin}\n\n  \
         Ctrl-C ends it.\n\n",
        arguments.token_ttl.mul_f64(0.8),
    )
}
