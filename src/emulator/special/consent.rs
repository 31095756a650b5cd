//! The four OAuth consent flows.

use http::StatusCode;
use serde_json::{Value, json};

use crate::emulator::{
    answer::{self, Outcome, Refusal},
    clock::written,
    desk::Call,
    resources::masked,
};

/// Providers by the name in the route, with their number and how a wrong state is told.
const PROVIDERS: &[(&str, u16)] =
    &[("dropbox", 128), ("onedrive", 512), ("googledrive", 1024), ("box", 256)];

pub(super) fn act(call: &Call<'_>) -> Option<Outcome> {
    let name = call.route.name.strip_prefix("desktop/")?;
    if let Some(provider) = name.strip_suffix("_authorization_url") {
        return Some(url(call, provider.strip_prefix("generate_")?));
    }
    let provider = name.strip_suffix("_authorization_callback")?;
    let (provider, number) = PROVIDERS.iter().find(|(known, _)| *known == provider)?;
    Some(callback(call, provider, *number))
}

fn url(call: &Call<'_>, provider: &str) -> Outcome {
    let state = state(call, provider)?;
    let url = format!("https://{provider}.consent.test/authorize?response_type=code&state={state}");
    Ok(call.world.string(&url))
}

fn callback(call: &Call<'_>, provider: &str, number: u16) -> Outcome {
    let asks_again = matches!(provider, "onedrive" | "googledrive");
    if asks_again && !call.text("error").is_empty() {
        let description = call.body.get("errorDescription");
        let body = json!({"error": call.text("error"), "errorDescription": description});
        return Err(Refusal::Json(StatusCode::UNAUTHORIZED, body));
    }
    if call.text("state") != state(call, provider)? {
        let message = "The state is not valid.";
        return Err(match provider {
            "dropbox" => Refusal::Plain(StatusCode::BAD_REQUEST, message),
            _ => Refusal::code("SECURITY", message),
        });
    }
    let fields = json!({
        "name": provider, "cloudType": number, "credentialsData": call.text("code"),
    });
    let (owner, now) = (&call.holder()?.identity.user_id, written(call.world.now()));
    let row = call.world.store.insert("cloudaccount", &fields, (owner, &now))?;
    Ok(answer::json(&Value::Object(masked("cloudaccount", row))))
}

/// Binds both halves of a flow to the same caller.
fn state(call: &Call<'_>, provider: &str) -> Result<String, Refusal> {
    let bound = format!("{provider} {}", call.holder()?.identity.user_id);
    Ok(blake3::hash(bound.as_bytes()).to_hex().to_string())
}
