//! Which kinds of things Amove keeps, and how they belong together.

/// A kind of thing, such as projects.
#[derive(Debug)]
pub(super) struct Kind {
    /// What it is called here.
    pub(super) name: &'static str,
    /// The fields a new one has, as JSON; other fields of a request are ignored.
    pub(super) fields: &'static str,
    /// Fields without which none is made.
    pub(super) required: &'static [&'static str],
    /// The field that no two may share.
    pub(super) unique: Option<&'static str>,
    /// Fields that are never shown.
    pub(super) masked: &'static [&'static str],
    /// The code for one that does not exist.
    pub(super) missing: &'static str,
    /// Whose rows a caller sees.
    pub(super) sees: Sees,
    /// What somebody hears who changes another's.
    pub(super) foreign: Foreign,
}

/// Whose rows a caller sees.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sees {
    /// Everybody's.
    All,
    /// One's own; in these roles everybody's.
    Own(&'static [u8]),
    /// One's own; in these roles also what others share.
    Shared(&'static [u8]),
}

/// What somebody hears who changes another's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Foreign {
    /// Nothing: it may be changed.
    Welcome,
    /// 403.
    Forbidden,
    /// 400 with a plain message.
    BadRequest,
    /// 499 `ACCESS`.
    Access,
}

const PLAIN: Kind = Kind {
    name: "",
    fields: "{}",
    required: &[],
    unique: None,
    masked: &[],
    missing: "NOT_FOUND",
    sees: Sees::All,
    foreign: Foreign::Welcome,
};

const GROUP: &str = r#"{"name":"","description":"","active":true}"#;

/// All kinds of things.
pub(super) const KINDS: &[Kind] = &[
    Kind { name: "project", fields: GROUP, required: &["name"], unique: Some("name"), ..PLAIN },
    Kind { name: "usergroup", fields: GROUP, required: &["name"], unique: Some("name"), ..PLAIN },
    Kind {
        name: "user",
        fields: r#"{"username":"","email":"","firstname":"","lastname":"","userType":8,
            "userStatus":4,"authProvider":0,"mfa":false}"#,
        required: &["username"],
        unique: Some("username"),
        ..PLAIN
    },
    Kind {
        name: "sharedclouddrive",
        fields: r#"{"name":"","description":"","cloudAccountId":"","storageName":"","path":"",
            "driveType":1,"syncType":1,"active":true,"creatorUserId":""}"#,
        required: &["name"],
        ..PLAIN
    },
    Kind {
        name: "cloudaccount",
        fields: r#"{"name":"","cloudType":1,"accessKey":"","secretKey":"","credentialsData":"",
            "serviceUrl":"","shared":false,"active":true,"internal":false,"regionName":"",
            "storageTier":0}"#,
        masked: &["accessKey", "secretKey", "credentialsData"],
        missing: "Global",
        sees: Sees::Shared(&[16, 32]),
        foreign: Foreign::Access,
        ..PLAIN
    },
    Kind {
        name: "fastr",
        fields: r#"{"name":"","serviceUrl":"","port":"","username":"","password":"",
            "shared":false,"active":true}"#,
        masked: &["username", "password"],
        sees: Sees::Shared(&[16]),
        foreign: Foreign::BadRequest,
        ..PLAIN
    },
    Kind {
        name: "license",
        fields: r#"{"licenseKey":"","licenseType":0,"status":0,"validityDays":30,
            "maxConnections":1,"machineId":null,"machineName":null}"#,
        sees: Sees::Own(&[1]),
        foreign: Foreign::Forbidden,
        ..PLAIN
    },
    Kind {
        name: "fastrsettings",
        fields: r#"{"cloudAccountId":"","verifyChecksum":false,"fileExistsAction":0,
            "active":true}"#,
        sees: Sees::Own(&[1, 4, 16]),
        foreign: Foreign::Forbidden,
        ..PLAIN
    },
    Kind {
        name: "transfer",
        fields: r#"{"name":"","type":1,"status":1,"sourceCloudAccountId":"",
            "targetCloudAccountId":"","requestDate":"","cost":0.0}"#,
        ..PLAIN
    },
    Kind {
        name: "transferhistory",
        fields: r#"{"name":"","startDate":"","endDate":null,"origin":1,"status":2,"direction":1,
            "volume":0}"#,
        sees: Sees::Own(&[1, 4, 16]),
        foreign: Foreign::Forbidden,
        ..PLAIN
    },
    Kind {
        name: "sync",
        fields: r#"{"name":"","sourceCloudAccountId":"","targetCloudAccountId":"","active":true}"#,
        ..PLAIN
    },
    Kind {
        name: "storagekey",
        fields: r#"{"name":"","region":"","storageDn":"","permission":2,"allBuckets":true,
            "selectedBuckets":[],"cloudAccountId":"","accessKey":"","secretKey":""}"#,
        masked: &["secretKey"],
        sees: Sees::Own(&[]),
        ..PLAIN
    },
    Kind {
        name: "apitoken",
        fields: r#"{"title":"","isEncrypted":false,"encryptionKey":"","expirationDate":"",
            "sessionId":"","token":""}"#,
        sees: Sees::Own(&[]),
        foreign: Foreign::Access,
        ..PLAIN
    },
    Kind {
        name: "bucket",
        fields: r#"{"cloudAccountId":"","name":"","isPublic":false,"encryptionEnabled":false,
            "versioningEnabled":false,"objectLockEnabled":false}"#,
        ..PLAIN
    },
    Kind { name: "setting", fields: r#"{"setting":"","content":null}"#, ..PLAIN },
    Kind { name: "user-project", ..LINK },
    Kind { name: "user-drive", ..LINK },
    Kind { name: "group-project", ..LINK },
    Kind { name: "group-drive", ..LINK },
    Kind { name: "project-drive", ..LINK },
    Kind { name: "user-group", ..LINK },
];

const LINK: Kind = Kind { fields: r#"{"permissionType":1}"#, ..PLAIN };

/// One side of a link: the field with the id, the key the thing is shown under, and its kind.
pub(super) type Side = (&'static str, &'static str, &'static str);

const USER: Side = ("userId", "user", "user");
const GROUPS: Side = ("userGroupId", "userGroup", "usergroup");
const PROJECT: Side = ("projectId", "project", "project");
const DRIVE: Side = ("sharedCloudDriveId", "sharedCloudDrive", "sharedclouddrive");
/// The misspelling is Amove's.
const CLOU_DRIVE: Side = ("sharedCloudDriveId", "sharedClouDrive", "sharedclouddrive");

/// What is shown inside a row, because the row has its id.
pub(super) const SIDES: &[(&str, &[Side])] = &[
    ("user-project", &[USER, PROJECT]),
    ("user-drive", &[USER, CLOU_DRIVE]),
    ("group-project", &[GROUPS, PROJECT]),
    ("group-drive", &[GROUPS, DRIVE]),
    ("project-drive", &[PROJECT, DRIVE]),
    ("user-group", &[USER, GROUPS]),
    ("sharedclouddrive", &[("cloudAccountId", "cloudAccount", "cloudaccount")]),
];

/// What `…_with_details` adds to a kind: a key, and the links it is filled from.
pub(super) const DETAILS: &[(&str, &[(&str, &str)])] = &[
    (
        "project",
        &[
            ("users", "user-project"),
            ("userGroups", "group-project"),
            ("sharedCloudDrives", "project-drive"),
        ],
    ),
    (
        "usergroup",
        &[
            ("users", "user-group"),
            ("projects", "group-project"),
            ("sharedCloudDrives", "group-drive"),
        ],
    ),
    (
        "user",
        &[
            ("userGroups", "user-group"),
            ("projects", "user-project"),
            ("sharedClouDrive", "user-drive"),
        ],
    ),
    (
        "sharedclouddrive",
        &[("users", "user-drive"), ("userGroups", "group-drive"), ("projects", "project-drive")],
    ),
];

/// The kind called `name`.
pub(super) fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == name).unwrap_or(&PLAIN)
}
