//! What callers ask: one request of each kind that costs differently.

/// A request that callers send over and over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// What it is called in tables and in the baseline.
    pub(crate) name: &'static str,
    method: &'static str,
    target: &'static str,
    body: &'static str,
    key: Key,
    /// The status that the gateway answers.
    pub(crate) status: u16,
    /// Whether it gets as far as the API.
    pub(crate) is_forwarded: bool,
    /// How many records it leaves.
    pub(crate) records: usize,
    /// How often it comes in a mix of all.
    pub(crate) share: usize,
}

/// With which key a caller comes.
#[derive(Clone, Copy, Debug)]
enum Key {
    Own,
    /// Looks like one and is nobody's.
    Wrong,
}

const USUAL: Scenario = Scenario {
    name: "",
    method: "GET",
    target: "",
    body: "",
    key: Key::Own,
    status: 200,
    is_forwarded: true,
    records: 1,
    share: 1,
};

/// All of them, the usual one first.
pub(crate) const ALL: &[Scenario] = &[
    Scenario { name: "read", target: "/api/v1/user/userinfo", share: 8, ..USUAL },
    Scenario {
        name: "write",
        method: "POST",
        target: "/api/v1/project/insert",
        body: r#"{"name":"Spring campaign","description":"Cuts and stills","members":[4711,4712],"storageId":17}"#,
        records: 2,
        share: 4,
        ..USUAL
    },
    Scenario { name: "problem", target: "/api/v1/sync/get/4711", status: 404, ..USUAL },
    Scenario { name: "legacy", target: "/api/user/userinfo", ..USUAL },
    Scenario {
        name: "page",
        target: "/api/v1/transferhistory/get_all?page=2&pageSize=96",
        ..USUAL
    },
    Scenario {
        name: "stranger",
        target: "/api/v1/user/userinfo",
        key: Key::Wrong,
        status: 401,
        is_forwarded: false,
        ..USUAL
    },
    Scenario {
        name: "denied",
        method: "DELETE",
        target: "/api/v1/project/delete?id=4711",
        status: 403,
        is_forwarded: false,
        ..USUAL
    },
];

impl Scenario {
    /// The request as the caller with that number sends it.
    pub(crate) fn request(&self, caller: usize) -> Vec<u8> {
        let Self { method, target, body, .. } = self;
        let key = match self.key {
            Key::Own => key_of(caller),
            Key::Wrong => format!("amgw_{:048}", u64::MAX),
        };
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\n\
             host: gateway.internal:8080\r\n\
             user-agent: billing/4.2 (linux; x86_64)\r\n\
             accept: application/json\r\n\
             accept-encoding: gzip, br\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
             x-api-key: {key}\r\n"
        );
        if !body.is_empty() {
            let size = body.len();
            request += &format!("content-type: application/json\r\ncontent-length: {size}\r\n");
        }
        request += "\r\n";
        request += body;
        request.into_bytes()
    }
}

/// The API key of a caller. All have one length, and none is secret.
pub(crate) fn key_of(caller: usize) -> String {
    format!("amgw_{caller:048}")
}
