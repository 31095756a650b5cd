//! The machine, without sockets: every transition one by one, and fleets in which anything happens.

mod fleet;
mod transitions;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;

use super::*;
use crate::{
    config::{Credentials, RefreshAhead, UserType, secret::Secret},
    session::store::Note,
};

const HOUR: Duration = Duration::from_secs(3600);

fn identity() -> Identity {
    Identity {
        name: "main".into(),
        credentials: Credentials::Password {
            username: "svc@corp.test".to_owned(),
            password: Secret::Inline("correct horse".into()),
            user_type: UserType::AccountAdmin,
            totp: None,
        },
        refresh_ahead: RefreshAhead::Share(0.2),
        max_age: HOUR * 12,
        replay_buffer: 65_536,
        logout_on_shutdown: true,
    }
}

/// Seconds after the beginning.
fn time(seconds: f64) -> Timestamp {
    let begin = Timestamp::from_second(1_800_000_000).expect("a time");
    later(begin, Duration::from_secs_f64(seconds))
}

fn at(seconds: f64) -> Moment {
    Moment { now: time(seconds), chance: 0.5 }
}

fn password(text: &str) -> Fingerprint {
    Fingerprint::of(&[text])
}

/// A session opened by `password` at this time, for an hour.
fn session(password: Fingerprint, issued: f64) -> Stored {
    let id = Uuid::now_v7();
    Stored {
        id,
        jwt: SecretString::from(format!("jwt-of-{id}")),
        issued: time(issued),
        expires: Some(later(time(issued), HOUR)),
        second_factor: false,
        secrets: password,
    }
}

fn failed(failure: Failure, password: Fingerprint) -> Event {
    Event::LoginFailed(Failed { failure, reason: "a reason".into(), tried: password, asked: None })
}

fn seen(revision: u64, entry: Entry, members: usize) -> Event {
    Event::Looked(Ok(Seen { revision: Revision(revision), entry: Some(entry), members }))
}

/// What is to be done, in a word each.
fn words(actions: &[Action]) -> Vec<&'static str> {
    let word = |action: &Action| match action {
        Action::Claim => "claim",
        Action::LogIn => "log in",
        Action::Write(_) => "write",
        Action::GiveBack => "give back",
        Action::Serve { adopted: false, .. } => "serve",
        Action::Serve { adopted: true, .. } => "adopt",
        Action::Suspect => "suspect",
        Action::Trust => "trust",
        Action::Withdraw => "withdraw",
        Action::LogOut { .. } => "log out",
    };
    actions.iter().map(word).collect()
}
