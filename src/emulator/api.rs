//! The main host: every documented route, by its kind; the main resources remember.

use serde_json::{Value, json};

use super::{
    Denial, Options, State, World, auth, control, data,
    faults::HostName,
    http::{Call, Reply},
    resources::{self, Deed},
    routes::{self, Auth, Found, Row},
};

/// Answers a call of the main host.
pub(super) fn answer(world: &World, call: &Call<'_>) -> Reply {
    if let Some(reply) = control::answer(world, call) {
        return reply;
    }
    let now = world.now();
    let mut state = world.state();
    state.auth.forget_expired(now);
    let row = match routes::find(HostName::Api, call.method, call.path) {
        Found::Row(row) => row,
        Found::OtherMethod => return Reply::empty(405),
        Found::Nothing => return undocumented(&mut state, &world.options, call, now),
    };
    if call.method == "POST" && !is_framed(call) {
        return Reply::empty(411);
    }
    match row.auth {
        Auth::Bearer => {
            if let Err(denied) = state.admit(&world.options, call, now) {
                return denied;
            }
        }
        Auth::Nothing | Auth::RequestToken => {
            state.book.stats.stray_bearers += u64::from(call.bearer().is_some());
        }
    }
    if row.auth == Auth::RequestToken
        && let Err(refused) = state.spend(&call.json(), now)
    {
        return refused;
    }
    let reply = state.perform(&world.options, row, call, now);
    if row.changes && reply.status.is_success() {
        state.book.note_effect(&row.method, &row.template);
    }
    reply
}

/// Servers want to know how long the body of a POST is (contract section 4.1).
fn is_framed(call: &Call<'_>) -> bool {
    let has = |name: &str| call.headers.contains_key(name);
    has("content-length") || has("transfer-encoding") || !call.body.is_empty() || has("x-http2")
}

/// Routes that nobody has documented: a few that tests need.
fn undocumented(state: &mut State, options: &Options, call: &Call<'_>, now: u64) -> Reply {
    let path = call.path.to_lowercase();
    let action = path.strip_prefix("/api/v1/emulator/");
    if action.is_none() && path != "/api/rm/negotiate" {
        return Reply::empty(404);
    }
    if let Err(denied) = state.admit(options, call, now) {
        return denied;
    }
    match action {
        Some("echo") => Reply::json(&json!({
            "method": call.method,
            "path": call.path,
            "query": call.query,
            "headers": call.headers.iter().map(|(name, value)| {
                (name.as_str(), String::from_utf8_lossy(value.as_bytes()))
            }).collect::<Vec<_>>(),
            "body_bytes": call.body.len(),
            "body": String::from_utf8_lossy(call.body.get(..64 * 1024).unwrap_or(call.body)),
        })),
        Some("fail") => match (call.parameter("code"), call.parameter("status")) {
            (Some(code), _) => Reply::code(&code, "You asked for it."),
            (None, status) => {
                let status = status.and_then(|it| it.parse().ok()).unwrap_or(500);
                Reply::text(status, call.parameter("body").unwrap_or_default())
            }
        },
        Some(_) => Reply::empty(404),
        None => Reply::json(&json!({
            "connectionId": "emulated",
            "availableTransports": [
                { "transport": "ServerSentEvents", "transferFormats": ["Text"] },
                { "transport": "LongPolling", "transferFormats": ["Text", "Binary"] },
            ],
        })),
    }
}

impl State {
    /// Whether the call carries the token of an open session.
    pub(super) fn admit(
        &mut self,
        options: &Options,
        call: &Call<'_>,
        now: u64,
    ) -> Result<(), Reply> {
        let is_known = call.bearer().is_some_and(|token| self.auth.knows(token, now));
        if is_known && !self.faults.denies() {
            return Ok(());
        }
        self.book.stats.denied += 1;
        Err(match options.denial {
            Denial::Plain => Reply::empty(401),
            Denial::Challenge => Reply::empty(401)
                .with(::http::header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
            Denial::Session => Reply::code("SESSION", "The session is over."),
            Denial::Token => Reply::code("TOKEN", "The token is not valid."),
        })
    }

    fn perform(&mut self, options: &Options, row: &Row, call: &Call<'_>, now: u64) -> Reply {
        let path = row.template.to_lowercase();
        let mut parts = path.trim_start_matches("/api/v1/").trim_start_matches("/api/").split('/');
        let (resource, action) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let body = call.json();
        if let Some(reply) = self.special(options, resource, action, call, &body, now) {
            return reply;
        }
        if let Some((collection, deed)) = resources::find(resource, action) {
            return self.remember(row, resource, collection, deed, call, &body);
        }
        generic(options, row, resource, action)
    }

    /// Routes with an answer of their own.
    fn special(
        &mut self,
        options: &Options,
        resource: &str,
        action: &str,
        call: &Call<'_>,
        body: &Value,
        now: u64,
    ) -> Option<Reply> {
        let last = call.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let id = call.parameter("id").unwrap_or_default();
        let is_foreign = id == "foreign" || body["id"] == "foreign";
        Some(match (resource, action) {
            ("user", "userinfo") => Reply::json(&data::user()),
            ("user", "update_subscription")
                if !matches!(body["subscriptionType"].as_u64(), Some(1 | 2)) =>
            {
                Reply::text(400, "Only the account owner may change the subscription.")
            }
            ("user", "resend_user_email") if body["username"] != "pending@corp.test" => {
                Reply::text(400, "Nothing is pending for this user.")
            }
            ("user", "signupinfo") if call.parameter("token").as_deref() != Some("signup") => {
                Reply::code("TOKEN", "The signup token is not valid.")
            }
            ("apitoken", "get_all") => Reply::json(&self.data.all("apitokens").into()),
            ("apitoken", "insert") => self.insert_api_token(options, body, now),
            ("apitoken", "delete") => {
                self.auth.close_api_token(&id);
                match self.data.delete("apitokens", &id) {
                    true => Reply::empty(200),
                    false => Reply::code("NOT_FOUND", "No API token with this id."),
                }
            }
            ("desktop", "confirm_signup") if body["token"] == "unknown" => Reply::empty(404),
            ("desktop", "resend_confirmation_email") if body["email"] == "unknown@corp.test" => {
                Reply::empty(404)
            }
            ("desktop", "dropbox_authorization_callback") if body["state"] == "bad" => {
                Reply::text(400, "The state check failed.")
            }
            ("desktop", "onedrive_authorization_callback") if body["error"].is_string() => {
                let error = json!({ "error": body["error"], "errorDescription": "The user cancelled consent." });
                Reply::json_with(401, &error)
            }
            ("sso", "saml_acs")
                if !String::from_utf8_lossy(call.body).contains("SAMLResponse=") =>
            {
                Reply::text(400, "The signature is bad.")
            }
            ("fastr", "manage_share")
                if self.data.find("fastr", body["id"].as_str().unwrap_or_default()).is_none() =>
            {
                Reply::text(400, "Only the owner may change this server.")
            }
            ("fastrlicense", "activate") if body["licenseKey"] == "bound" => {
                let error = "Licence already bound to another machine.";
                Reply::json_with(
                    400,
                    &json!({ "success": false, "error": error, "licenseKey": null }),
                )
            }
            ("fastrlicense", "info") if last == "foreign" => Reply::empty(403),
            ("fastrlicense", "info") if last == "unknown" => Reply::empty(404),
            ("fastrsettings", "insert_for_user")
                if body["userId"].as_str().is_none_or(str::is_empty) =>
            {
                Reply::text(400, "userId must not be empty.")
            }
            ("fastrsettings" | "transferhistory", "update" | "update_status" | "delete")
                if is_foreign =>
            {
                Reply::empty(403)
            }
            ("usergroup", "import_users") if body.as_array().is_none_or(Vec::is_empty) => {
                Reply::empty(402)
            }
            _ => return None,
        })
    }

    fn insert_api_token(&mut self, options: &Options, body: &Value, now: u64) -> Reply {
        let token = auth::token(options, now, now + 365 * 24 * 60 * 60);
        let row = json!({
            "userId": data::USER_ID,
            "sessionId": uuid::Uuid::new_v4(),
            "title": body["title"],
            "token": token,
            "encryptionKey": body["encryptionKey"],
            "isEncrypted": body["isEncrypted"].as_bool().unwrap_or_default(),
            "expirationDate": body["expirationDate"],
        });
        let Some(row) = self.data.insert("apitokens", &row) else { return Reply::empty(500) };
        self.auth.open_api_token(
            row["id"].as_str().unwrap_or_default(),
            &token,
            now + 365 * 24 * 60 * 60,
        );
        Reply::json(&row)
    }

    /// Does to a collection what the route says, and answers by its kind.
    fn remember(
        &mut self,
        row: &Row,
        resource: &str,
        collection: &'static str,
        deed: Deed,
        call: &Call<'_>,
        body: &Value,
    ) -> Reply {
        let id = call
            .parameter("id")
            .or_else(|| body["id"].as_str().map(str::to_owned))
            .unwrap_or_default();
        let missing = match resource {
            "cloudaccount" => "Global",
            _ => "NOT_FOUND",
        };
        let done = match deed {
            Deed::List if row.answer == "json array" => Some(self.data.all(collection).into()),
            Deed::List => Some(self.data.page(collection, call)),
            Deed::Get => self.data.find(collection, &id).map(|found| found.clone().into()),
            Deed::Insert => self.data.insert(collection, body),
            Deed::Update => self.data.update(collection, body),
            Deed::Delete => self.data.delete(collection, &id).then_some(Value::Bool(true)),
        };
        match (done, &*row.answer) {
            (None, _) if deed == Deed::Insert => Reply::empty(500),
            (None, _) => Reply::code(missing, &format!("Nothing with the id {id}.")),
            (Some(_), "none") => Reply::empty(200),
            (Some(value), _) => Reply::json(&value),
        }
    }
}

/// An answer of the right kind, for routes that remember nothing.
fn generic(options: &Options, row: &Row, resource: &str, action: &str) -> Reply {
    match &*row.answer {
        "none" => Reply::empty(200),
        "string" => {
            auth::string(options, "https://bucket.storage.test/reel.mov?X-Sig=fake&X-Exp=3600")
        }
        "json array" => Reply::json(
            &json!([{ "name": "Frankfurt", "code": "FR" }, { "name": "Dublin", "code": "DU" }]),
        ),
        "paginated" => Reply::json(&json!({
            "data": [],
            "total": 0,
            "options": { "pageSize": 0, "page": 0, "sort": [{ "field": "Name", "descending": false }] },
        })),
        "json scalar" => Reply::json(&match action {
            "calculate_cost" => json!(12.305),
            "idrive_get_daily_usage" => json!(7_340_032.5),
            _ => json!(true),
        }),
        "redirect" => Reply::empty(302)
            .with(::http::header::LOCATION, "https://app.corp.test/sso?jwt=fake.jwt.one"),
        _ if action == "get_accountlogsetting" => Reply::json(&Value::Null),
        _ => Reply::json(
            &json!({ "id": uuid::Uuid::new_v4(), "accountId": data::ACCOUNT_ID, "resource": resource, "active": true }),
        ),
    }
}
