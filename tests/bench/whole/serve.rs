//! The gateway inside this program, with more callers than anybody would write into a file.

use std::path::Path;

use amove_gateway::{
    app::App,
    caller::api_key,
    clock::Clock,
    config::load::{self, Sources},
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::scenario::key_of;

/// Serves like `run`, with so many callers that are like the first one of the configuration; tells
/// where, and ends at SIGTERM.
pub(crate) fn serve(config: &Path, callers: usize) {
    let sources = Sources { files: vec![config.to_owned()], environment: Vec::new() };
    let mut config = load::load(&sources).expect("a configuration").config;
    let first = config.callers.swap_remove(0);
    let caller = |number| {
        let mut caller = first.clone();
        caller.name = format!("caller-{number:07}").into();
        caller.api_key_hashes = vec![api_key::hash(key_of(number).as_bytes())];
        caller
    };
    config.callers = (0..callers).map(caller).collect();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut end = signal(SignalKind::terminate()).expect("signals");
        let app = App::start(&config, Clock::system()).await.expect("a gateway");
        let listen: Vec<_> = app.addresses().iter().map(ToString::to_string).collect();
        let started = serde_json::json!({
            "message": "gateway started",
            "listen": format!("{listen:?}"),
            "admin": format!("{:?}", app.admin_addresses()),
        });
        eprintln!("{started}");
        end.recv().await;
        app.drain().await;
    });
}
