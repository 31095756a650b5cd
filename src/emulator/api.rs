//! The main host: what each route does.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    answer::{self, Outcome, Refusal},
    clock::written,
    desk::Call,
    paging::Page,
    resources::{Listing, Row, masked},
    routes::Kind,
    single, special,
};

/// What a route does.
#[derive(Clone, Copy)]
enum Act {
    /// Lists a kind, sorted by this field, downwards or not.
    List(&'static str, &'static str, bool),
    /// The same, with what belongs to each row.
    Details(&'static str, &'static str, bool),
    Insert(&'static str),
    Update(&'static str),
    Delete(&'static str),
    /// Links things, changes links, removes one: by method.
    Link(&'static str),
    /// Sets `shared`.
    Share(&'static str),
    /// Sets up, shows, changes or removes what there is at most one of: by method.
    Single(&'static str),
}

use Act::{Delete, Details, Insert, Link, List, Share, Single, Update};

/// What most routes do. The others are in `special`.
const ACTS: &[(&str, Act)] = &[
    ("cloudaccount/get_all", List("cloudaccount", "Name", false)),
    ("cloudaccount/insert", Insert("cloudaccount")),
    ("cloudaccount/manage_share", Share("cloudaccount")),
    ("cloudaccount/delete", Delete("cloudaccount")),
    ("cloudaccount/idrive_delete_storage", Delete("cloudaccount")),
    ("desktop/insert", Insert("cloudaccount")),
    ("desktop/delete", Delete("cloudaccount")),
    ("desktop/setup_accountlogsetting", Single("accountlogsetting")),
    ("desktop/get_accountlogsetting", Single("accountlogsetting")),
    ("desktop/update_accountlogsetting", Single("accountlogsetting")),
    ("desktop/delete_accountlogsetting", Single("accountlogsetting")),
    ("fastr/get_all", List("fastr", "Name", false)),
    ("fastr/insert", Insert("fastr")),
    ("fastr/manage_share", Share("fastr")),
    ("fastr/delete", Delete("fastr")),
    ("fastrsettings/get_all", List("fastrsettings", "CreateDate", true)),
    ("fastrsettings/update", Update("fastrsettings")),
    ("fastrsettings/delete", Delete("fastrsettings")),
    ("project/get_all", List("project", "Name", false)),
    ("project/get_all_with_details", Details("project", "Name", false)),
    ("project/insert", Insert("project")),
    ("project/update", Update("project")),
    ("project/delete", Delete("project")),
    (
        "project/get_assigned_sharedclouddrives",
        List("project-drive", "SharedCloudDrive.Name", false),
    ),
    ("project/get_assigned_projects", List("project-drive", "Project.Name", false)),
    ("project/assign_sharedclouddrive", Link("project-drive")),
    ("project/unassign_sharedclouddrive", Link("project-drive")),
    ("sharedclouddrive/get_all", List("sharedclouddrive", "Name", false)),
    ("sharedclouddrive/get_all_with_details", Details("sharedclouddrive", "Name", false)),
    ("sharedclouddrive/insert", Insert("sharedclouddrive")),
    ("sharedclouddrive/update", Update("sharedclouddrive")),
    ("sharedclouddrive/delete", Delete("sharedclouddrive")),
    ("sso/setup_okta", Single("okta")),
    ("sso/get_okta", Single("okta")),
    ("sso/update_okta", Single("okta")),
    ("sso/delete_okta", Single("okta")),
    ("sso/setup_saml", Single("saml")),
    ("sso/get_saml", Single("saml")),
    ("sso/update_saml", Single("saml")),
    ("sso/delete_saml", Single("saml")),
    ("sso/setup_entraid", Single("entraId")),
    ("sso/get_entraid", Single("entraId")),
    ("sso/update_entraid", Single("entraId")),
    ("sso/delete_entraid", Single("entraId")),
    ("storage/get_storage_key", List("storagekey", "CreateDate", true)),
    ("storage/delete_storage_key", Delete("storagekey")),
    ("sync/get_all", List("sync", "CreateDate", true)),
    ("sync/insert", Insert("sync")),
    ("sync/activate", Update("sync")),
    ("transfer/get_all", List("transfer", "RequestDate", true)),
    ("transfer/transfer", Insert("transfer")),
    ("transferhistory/get_all", List("transferhistory", "StartDate", true)),
    ("transferhistory/get_by_name", List("transferhistory", "StartDate", true)),
    ("transferhistory/insert", Insert("transferhistory")),
    ("transferhistory/update_status", Update("transferhistory")),
    ("transferhistory/delete", Delete("transferhistory")),
    ("user/get_all_users", List("user", "CreateDate", true)),
    ("user/get_all_users_with_details", Details("user", "CreateDate", true)),
    ("user/insert_user", Insert("user")),
    ("user/edit_user", Update("user")),
    ("usergroup/get_all", List("usergroup", "Name", false)),
    ("usergroup/get_all_with_details", Details("usergroup", "Name", false)),
    ("usergroup/insert", Insert("usergroup")),
    ("usergroup/update", Update("usergroup")),
    ("usergroup/delete", Delete("usergroup")),
    ("usergroup/get_assigned_users", List("user-group", "User.Username", false)),
    ("usergroup/get_assigned_usergroups", List("user-group", "UserGroup.Name", false)),
    ("usergroup/assign_users", Link("user-group")),
    ("usergroup/unassign_user", Link("user-group")),
    ("permission/users_project_permission", Link("user-project")),
    ("permission/get_users_assigned_to_project", List("user-project", "User.Username", false)),
    ("permission/get_projects_assigned_to_user", List("user-project", "Project.Name", false)),
    ("permission/users_sharedclouddrive_permision", Link("user-drive")),
    (
        "permission/get_users_assigned_to_sharedclouddrive",
        List("user-drive", "User.Username", false),
    ),
    (
        "permission/get_sharedclouddrive_assigned_to_user",
        List("user-drive", "SharedClouDrive.Name", false),
    ),
    ("permission/usergroups_project_permission", Link("group-project")),
    (
        "permission/get_usergroups_assigned_to_project",
        List("group-project", "UserGroup.Name", false),
    ),
    ("permission/get_projects_assigned_to_usergroup", List("group-project", "Project.Name", false)),
    ("permission/usergroup_sharedclouddrive_permission", Link("group-drive")),
    (
        "permission/get_usergroups_assigned_to_sharedclouddrive",
        List("group-drive", "UserGroup.Name", false),
    ),
    (
        "permission/get_sharedclouddrive_assigned_to_usergroup",
        List("group-drive", "SharedCloudDrive.Name", false),
    ),
];

/// Answers a call to the main host.
pub(super) fn act(call: &Call<'_>) -> Outcome {
    check_role(call)?;
    if let Some(outcome) = special::act(call) {
        return outcome;
    }
    let Some((_, act)) = ACTS.iter().find(|(name, _)| *name == call.route.name) else {
        return Err(Refusal::Status(StatusCode::NOT_FOUND));
    };
    match *act {
        List(kind, sort, down) => list(call, kind, (sort, down), false),
        Details(kind, sort, down) => list(call, kind, (sort, down), true),
        Insert(kind) => changed(call, kind, insert(call, kind)?),
        Update(kind) => changed(call, kind, update(call, kind)?),
        Delete(kind) => {
            let identity = &call.holder()?.identity;
            call.world.store.delete(kind, call.parameter("id").unwrap_or(""), Some(identity))?;
            done(call)
        }
        Share(kind) => {
            let shared = json!({"shared": call.body.get("shared")});
            let identity = &call.holder()?.identity;
            call.world.store.update(kind, call.text("id"), &shared, Some(identity))?;
            done(call)
        }
        Link(kind) => link(call, kind),
        Single(name) => single::act(call, name),
    }
}

/// Some routes are for some roles.
fn check_role(call: &Call<'_>) -> Result<(), Refusal> {
    let name = call.route.name.as_str();
    let roles: &[u8] = match name.split('/').next().unwrap_or("") {
        "sync" => &[1, 4, 8],
        "transferhistory" => &[1, 4, 8, 16, 32, 64],
        _ if name == "transfer/transfer" => &[1, 4, 16, 32],
        _ => return Ok(()),
    };
    if roles.contains(&call.holder()?.identity.role) {
        return Ok(());
    }
    Err(Refusal::code("ACCESS", "This role may not do that."))
}

fn list(call: &Call<'_>, kind: &'static str, sort: (&'static str, bool), details: bool) -> Outcome {
    let paged = call.route.paginated;
    let page = if paged { Page::asked(&call.query, sort)? } else { Page::all(sort.0, sort.1) };
    let reader = &call.holder()?.identity;
    let filters = if paged { call.query.as_slice() } else { &[] };
    let listing = Listing { kind, details, reader, filters };
    let (data, total) = call.world.store.list(&listing, &page);
    let mut envelope = json!({"data": data, "total": total});
    if paged || kind == "cloudaccount" {
        envelope["options"] = page.options();
    }
    Ok(answer::json(&envelope))
}

fn insert(call: &Call<'_>, kind: &'static str) -> Result<Row, Refusal> {
    let (owner, now) = (call.holder()?.identity.user_id.as_str(), written(call.world.now()));
    let own = ("userId", owner.into());
    let fields = match kind {
        "sharedclouddrive" => call.with([own, ("creatorUserId", owner.into())])?,
        "transfer" => call.with([own, ("status", 1.into())])?,
        "user" if !call.text("username").contains('@') => {
            return Err(Refusal::code("INVALID_EMAIL", "The username is no e-mail address."));
        }
        "user" => {
            let email = [call.text("email"), call.text("username")];
            let email = email.into_iter().find(|email| !email.is_empty());
            call.with([own, ("userStatus", 4.into()), ("email", email.into())])?
        }
        _ => call.with([own])?,
    };
    call.world.store.insert(kind, &fields, (owner, &now))
}

fn update(call: &Call<'_>, kind: &'static str) -> Result<Row, Refusal> {
    let mut fields = call.body.clone();
    let identity = &call.holder()?.identity;
    if let Some(fields) = fields.as_object_mut() {
        // Who something belongs to does not change; a drive follows whoever changed it last.
        fields.remove("userId");
        fields.insert("creatorUserId".to_owned(), identity.user_id.as_str().into());
    }
    call.world.store.update(kind, call.text("id"), &fields, Some(identity))
}

/// The answer to a change: the row, masked, where the route answers anything.
fn changed(call: &Call<'_>, kind: &'static str, row: Row) -> Outcome {
    match call.route.response {
        Kind::Object => Ok(answer::json(&Value::Object(masked(kind, row)))),
        _ => done(call),
    }
}

/// The answer of a route that has nothing to say.
pub(super) fn done(call: &Call<'_>) -> Outcome {
    match call.route.response {
        Kind::Scalar => Ok(answer::json(&true.into())),
        _ => Ok(answer::empty()),
    }
}

fn link(call: &Call<'_>, kind: &'static str) -> Outcome {
    let store = &call.world.store;
    if call.route.method == http::Method::DELETE {
        store.delete(kind, call.parameter("id").unwrap_or(""), None)?;
        return done(call);
    }
    let links = call.body.as_array();
    let links = links.ok_or_else(|| Refusal::code("DEFAULT", "An array is required."))?;
    for link in links {
        if call.route.method == http::Method::PUT {
            let id = link.get("id").and_then(Value::as_str).unwrap_or("");
            store.update(kind, id, link, None)?;
        } else {
            let ids = link.as_object().map(|fields| {
                fields.iter().filter(|(name, _)| name.ends_with("Id")).collect::<Vec<_>>()
            });
            let ids = ids.unwrap_or_default();
            // Pairs that exist already are skipped.
            let same = |row: &Row| ids.iter().all(|(name, id)| row.get(name.as_str()) == Some(id));
            if store.first(kind, same).is_none() {
                let now = written(call.world.now());
                store.insert(kind, link, ("", &now))?;
            }
        }
    }
    done(call)
}
