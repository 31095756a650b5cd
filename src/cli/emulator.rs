//! `emulator`: the emulated Amove alone.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{Exit, Failure, Global, print, run::End, runtime};
use crate::emulator::{self, Emulator, Fault, Options};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the API's main host listens; loopback only
    #[arg(long, default_value = "127.0.0.1:8099", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the API's auth host listens [default: the next port]
    #[arg(long, value_name = "ADDRESS")]
    auth_listen: Option<SocketAddr>,
    /// Serve TLS; a test CA is written to this directory as ca.pem
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// How long a token lives, for example 90s
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = super::duration)]
    token_ttl: Duration,
    /// Ask for a TOTP code at login
    #[arg(long)]
    mfa: bool,
    /// Sessions that one user may have at once
    #[arg(long, default_value_t = 5, value_name = "N")]
    max_sessions: usize,
    /// Faults to begin with: a JSON file in the form of `POST /_emulator/faults`
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

/// Runs until a signal ends it.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let _ = global;
    let faults = arguments.faults.as_ref().map(faults).transpose()?.unwrap_or_default();
    let auth_listen = arguments.auth_listen.unwrap_or_else(|| next_port(arguments.listen));
    for address in [arguments.listen, auth_listen] {
        if !address.ip().is_loopback() {
            let why = "the emulator knows its password by heart, so it listens on loopback only";
            return Err(Failure::new(Exit::Usage, format!("cannot listen on {address}: {why}")));
        }
    }
    runtime()?.block_on(async {
        let mut end = End::new()?;
        let emulator = Emulator::start(Options {
            api_listen: arguments.listen,
            auth_listen,
            token_ttl: arguments.token_ttl,
            mfa: arguments.mfa,
            max_sessions: arguments.max_sessions,
            tls_dir: arguments.tls_dir.clone(),
            ..Options::default()
        })
        .await
        .map_err(|error| Failure::new(Exit::Io, format!("cannot start the emulator: {error}")))?;
        faults.into_iter().for_each(|fault| emulator.inject(fault));
        print(screen(&emulator, arguments))?;
        end.wait().await;
        emulator.stop().await;
        Ok(())
    })
}

fn next_port(listen: SocketAddr) -> SocketAddr {
    let port = if listen.port() == 0 { 0 } else { listen.port().saturating_add(1) };
    SocketAddr::new(listen.ip(), port)
}

fn faults(path: &PathBuf) -> Result<Vec<Fault>, Failure> {
    let unusable = |why: String| {
        Failure::new(Exit::Config, format!("cannot use the faults of {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    emulator::parse_faults(&text).map_err(unusable)
}

fn screen(emulator: &Emulator, arguments: &Arguments) -> String {
    let (api, auth) = (emulator.api_url(), emulator.auth_url());
    let totp = if arguments.mfa {
        format!("totp_secret = \"{}\"\n", emulator::TOTP_SECRET)
    } else {
        String::new()
    };
    let ca = arguments.tls_dir.as_ref().map_or(String::new(), |directory| {
        format!("ca_file = \"{}\"\n", directory.join("ca.pem").display())
    });
    format!(
        "An emulated Amove, with an account that everybody knows.\n\n\
         [upstream]\napi_url = \"{api}\"\nauth_url = \"{auth}\"\n{ca}\n\
         [identities.main]\nusername = \"{}\"\npassword = \"{}\"\nuser_type = {}\n{totp}\n\
         curl {api}/_emulator/stats\n\
         curl -d '{{\"fault\":\"unauthorized\",\"count\":3}}' {api}/_emulator/faults\n",
        emulator::USERNAME,
        emulator::PASSWORD,
        emulator::USER_TYPE,
    )
}
