//! `audit verify`: whether the audit log is as it was written.

use std::{fmt::Write, fs, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    Exit, Failure, Global, broken,
    place::{Place, Store},
    print, progress,
    source::unanswered,
    unread,
};
use crate::{
    audit::{
        self, Finding, Head, PublicKey, ReadError, Verified,
        central::{self, Central},
    },
    cli::operator::printable,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// The key that heads have to be signed with (PEM; the public one is enough); without it, it
    /// counts that each was signed by the key that it names
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    /// A head that was noted elsewhere: that record must be there, with that hash
    #[arg(long, value_name = "SEQ:HASH")]
    expect: Option<Head>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Goes through all of it, and prints what was found.
pub(super) fn run(arguments: &Arguments, global: &Global) -> Result<(), Failure> {
    let key = arguments.key.as_ref().map(|path| {
        let wrong = |what: String| Failure::new(Exit::Usage, format!("--key: {what}"));
        let pem = fs::read_to_string(path)
            .map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?;
        let expected = || format!("{} is no Ed25519 key in PEM", path.display());
        PublicKey::from_pem(&pem).ok_or_else(|| wrong(expected()))
    });
    let key = key.transpose()?;
    let store = arguments.place.store(global)?.0;
    if matches!(store, Store::Central(_)) {
        return central(arguments, &store.central()?);
    }
    let archive = store.open()?;
    let days = archive.days().map_err(|error| unread(&error))?;
    let bar = progress::bar(days.count());
    drop(days);
    let verdict = audit::verify(&archive, key.as_ref(), arguments.expect, |records| {
        bar.set_position(records);
    });
    bar.finish_and_clear();
    match verdict {
        Ok(verified) if arguments.json => print(format!("{:#}\n", described(&verified))),
        Ok(verified) => print(told(&verified)),
        Err(ReadError::Broken(finding)) => found(&finding, arguments.json),
        Err(error) => Err(unread(&error)),
    }
}

/// Goes through the chain of every gateway that has written there.
fn central(arguments: &Arguments, central: &Central) -> Result<(), Failure> {
    if arguments.key.is_some() || arguments.expect.is_some() {
        let message = "signed and noted heads are those of one gateway: verify its own audit log \
                       with --store PATH";
        return Err(Failure::new(Exit::Usage, message));
    }
    match central.verify(&[], |_| ()) {
        Ok(all) if arguments.json => {
            let all: Vec<_> = all.iter().map(described).collect();
            print(format!("{:#}\n", json!(all)))
        }
        Ok(all) if all.is_empty() => print("the central store is empty\n".to_owned()),
        Ok(all) => {
            let told = |verified: &Verified| {
                let Verified { gateway, records, first, head, .. } = verified;
                let gateway = printable(gateway);
                format!(
                    "{gateway}: whole and unchanged, {records} records from {first} to {head}\n"
                )
            };
            print(all.iter().map(told).collect::<String>())
        }
        Err(central::VerifyError::Broken { gateway, finding }) => {
            let what = format!("{gateway}: {}", finding.what);
            found(&Finding { what, ..finding }, arguments.json)
        }
        Err(central::VerifyError::Central(error)) => Err(unanswered(&error)),
    }
}

fn found(finding: &Finding, json: bool) -> Result<(), Failure> {
    if json {
        let Finding { seq, what } = finding;
        let verdict = json!({ "ok": false, "seq": seq, "what": what });
        print(format!("{verdict:#}\n"))?;
    }
    Err(broken(finding))
}

fn told(verified: &Verified) -> String {
    let Verified { gateway, records, signatures, first, head, unsigned } = verified;
    if *records == 0 {
        return "the audit log is empty\n".to_owned();
    }
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:14} {value}");
    };
    line("audit log", "whole and unchanged".to_owned());
    line("gateway", printable(gateway));
    line("records", format!("{records}, number {first} to {}", head.seq));
    line(
        "signatures",
        match (signatures, unsigned) {
            (0, _) | (_, None) => {
                "none: who can write the files can write another chain".to_owned()
            }
            (heads, Some(0)) => format!("{heads} heads, up to the last record"),
            (heads, Some(rest)) => {
                format!("{heads} heads; the last {rest} records are not signed yet")
            }
        },
    );
    line("head", head.to_string());
    text + "\nNote the head elsewhere: `audit verify --expect HEAD` proves later that nothing up to \
            it was\nchanged or cut off.\n"
}

fn described(verified: &Verified) -> serde_json::Value {
    let Verified { gateway, records, signatures, first, head, unsigned } = verified;
    json!({
        "ok": true,
        "gateway": gateway,
        "records": records,
        "first": first,
        "head": (*records > 0).then(|| head.to_string()),
        "signatures": signatures,
        "unsigned": unsigned,
    })
}
