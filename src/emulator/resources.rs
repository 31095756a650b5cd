//! Which route does what to which collection.

/// What a route does to a collection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deed {
    List,
    Get,
    Insert,
    Update,
    Delete,
}

/// The collection that a route is about, and what it does to it.
pub(super) fn find(resource: &str, action: &str) -> Option<(&'static str, Deed)> {
    use Deed::*;
    let collection = match resource {
        "apitoken" => "apitokens",
        "cloudaccount" | "desktop" => "cloudaccounts",
        "fastr" => "fastr",
        "fastrlicense" => "licences",
        "fastrsettings" => "fastrsettings",
        "project" => "projects",
        "sharedclouddrive" => "sharedclouddrives",
        "storage" => "storagekeys",
        "sync" => "syncs",
        "transfer" => "transfers",
        "transferhistory" => "transferhistory",
        "user" => "users",
        "usergroup" => "usergroups",
        _ => return None,
    };
    let deed = match (resource, action) {
        ("desktop", "insert") => Insert,
        ("desktop", "delete") => Delete,
        ("desktop", _) => return None,
        (
            _,
            "get_all" | "get_all_with_details" | "get_all_users" | "get_all_users_with_details",
        ) => List,
        (_, "get_storage_key" | "get_jobs" | "get_by_name" | "my-licenses") => List,
        ("sync", "get") | (_, "get_by_cloud_account") => Get,
        (_, "insert" | "insert_user" | "insert_for_user" | "create_storage_key" | "generate") => {
            Insert
        }
        ("transfer", "transfer") => Insert,
        (_, "update" | "update_for_user" | "edit_user" | "manage_share" | "update_status") => {
            Update
        }
        ("sync", "activate") => Update,
        (
            _,
            "delete" | "delete_user" | "delete_for_user" | "delete_storage_key" | "cancel_transfer",
        ) => Delete,
        _ => return None,
    };
    Some((collection, deed))
}
