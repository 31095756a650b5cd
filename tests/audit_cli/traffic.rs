//! A gateway that had a bit of everything to write down, and the verbs over its log.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use amove_gateway::{
    caller::api_key,
    emulator::{Emulator, Options},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;

use crate::process_support::{Gateway, call, emulator, eventually, run, stderr, stdout};

pub(crate) const USERINFO: &str = "/api/v1/user/userinfo";
pub(crate) const INSERT: &str = "/api/v1/project/insert";

/// What must be in no record and no file.
pub(crate) const CANARY: &str = "c4n4ry";

const BILLING: &str = "amgw_billing-c4n4ry-key";
const REPORTS: &str = "amgw_reports-c4n4ry-key";
const HASTY: &str = "amgw_hasty-c4n4ry-key";

/// A running gateway, and the folder of its audit log.
pub(crate) struct Busy {
    pub(crate) gateway: Gateway,
    pub(crate) store: PathBuf,
    _amove: Emulator,
    folder: TempDir,
}

impl Busy {
    /// One that has served nobody yet.
    pub(crate) async fn idle() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("audit");
        Self::at(folder, store).await
    }

    /// The same, with its log in `store`.
    pub(crate) async fn at(folder: TempDir, store: PathBuf) -> Self {
        let amove = emulator(Options { mfa: false, ..Options::default() }).await;
        let file = folder.path().join("gateway.toml");
        std::fs::write(&file, configuration(&store)).expect("a file");
        let settings = [("AMOVE_GATEWAY_CONFIG", file.to_str().expect("text"))];
        let gateway = Gateway::ready(&amove, &settings).await;
        Self { gateway, store, _amove: amove, folder }
    }

    /// One that has served [`REQUESTS`] of every kind, which are in the log.
    pub(crate) async fn after_traffic() -> Self {
        let busy = Self::idle().await;
        busy.traffic().await;
        busy
    }

    async fn traffic(&self) {
        for number in 0..8 {
            self.get(BILLING, USERINFO, &format!("ok-{number}")).await;
        }
        for number in 0..3 {
            self.get(BILLING, &format!("/api/v1/sync/get?id={CANARY}"), &format!("none-{number}"))
                .await;
            self.send("POST", REPORTS, INSERT, &format!("write-{number}")).await;
            self.send("DELETE", REPORTS, "/api/v1/project/delete", &format!("denied-{number}"))
                .await;
            self.get("", USERINFO, &format!("stranger-{number}")).await;
            self.get(HASTY, USERINFO, &format!("hasty-{number}")).await;
        }
        self.get(BILLING, "/api/user/userinfo", "legacy").await;
        self.get(BILLING, &format!("/api/v1/no/{CANARY}"), "=unknown,\"1\"").await;
        let expected = 8 + 3 * 5 + 2;
        eventually("everything is in the log", async || {
            let records = self.records(&[]).await;
            records.iter().filter(|record| record["phase"] == "outcome").count() == expected
        })
        .await;
    }

    /// Gets `path` with a key.
    pub(crate) async fn get(&self, key: &str, path: &str, id: &str) {
        self.send("GET", key, path, id).await;
    }

    /// A caller that may do so gets something.
    pub(crate) async fn get_well(&self, id: &str) {
        self.get(BILLING, USERINFO, id).await;
    }

    async fn send(&self, method: &str, key: &str, path: &str, id: &str) {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        request = request.header("x-request-id", id).header("content-type", "application/json");
        request = request.header("cookie", format!("session={CANARY}"));
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = match method {
            "POST" => format!(r#"{{"name":"{CANARY}","password":"{CANARY}"}}"#),
            _ => String::new(),
        };
        let request = request.body(Full::from(Bytes::from(body))).expect("a request");
        call(self.gateway.address, request).await.expect("an answer");
    }

    /// Runs `audit` with these arguments over the log.
    pub(crate) async fn audit(&self, arguments: &[&str]) -> Output {
        audit(arguments, &self.store).await
    }

    /// The records that `audit query` finds with these flags, the newest first.
    pub(crate) async fn records(&self, flags: &[&str]) -> Vec<Value> {
        let output = self.audit(&[&["query", "--json", "--limit", "1000"], flags].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        lines(&output)
    }

    /// A path for a file of this test.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("text").to_owned()
    }
}

/// Runs `audit` with these arguments over the log in `store`.
pub(crate) async fn audit(arguments: &[&str], store: &Path) -> Output {
    let store = ["--store", store.to_str().expect("text")];
    run(&[&["audit"], arguments, &store].concat(), &[]).await
}

/// The lines of JSON on standard output.
pub(crate) fn lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn configuration(store: &Path) -> String {
    let hash = |key: &str| api_key::written_hash(&key.to_owned().into());
    format!(
        "[identities.main]\ndefault = true\n\
         [callers.billing]\napi_key_hash = \"{}\"\n\
         [callers.reports]\napi_key_hash = \"{}\"\ndeny = [\"DELETE *\"]\n\
         [callers.hasty]\napi_key_hash = \"{}\"\nrate = \"1/h\"\nburst = 1\n\
         [audit]\nstore = \"{}\"\n",
        hash(BILLING),
        hash(REPORTS),
        hash(HASTY),
        store.display(),
    )
}
