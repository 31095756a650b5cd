-- One day of the audit log. `seq` is the order of the chain; the hash of a record covers all of
-- its columns, the gateway's name and the hash before it.
CREATE TABLE records (
    seq             INTEGER PRIMARY KEY,
    phase           TEXT    NOT NULL,
    id              BLOB    NOT NULL,
    request_id      TEXT    NOT NULL,
    time            INTEGER NOT NULL, -- microseconds since 1970
    caller          TEXT,
    identity        TEXT,
    method          TEXT    NOT NULL,
    route           TEXT,
    effect          TEXT,
    status          INTEGER,
    upstream_status INTEGER,
    code            TEXT,
    outcome         TEXT,
    duration_us     INTEGER NOT NULL,
    upstream_us     INTEGER NOT NULL,
    bytes_in        INTEGER NOT NULL,
    bytes_out       INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    replay          TEXT,
    rule            TEXT,
    legacy          INTEGER NOT NULL,
    peer            TEXT    NOT NULL,
    trace_id        TEXT,
    lost            INTEGER NOT NULL,
    hash            BLOB    NOT NULL
) STRICT;

-- The outcome of an intent is looked up by it. Only what may act, is unknown or lasts has one.
CREATE INDEX by_id ON records (id) WHERE effect IS NOT 'read' OR route = '/api/rm';

-- Whose records these are, where the chain comes from, and how far it has got.
CREATE TABLE chain (
    gateway   TEXT    NOT NULL,
    first     INTEGER NOT NULL,
    prev_hash BLOB    NOT NULL,
    seq       INTEGER NOT NULL,
    hash      BLOB    NOT NULL
) STRICT;

-- Stretches of the chain, from when to when, and what occurs in each: a query opens only those that
-- can have what it looks for. An index over all records would cost more than the records.
CREATE TABLE spans (
    first    INTEGER PRIMARY KEY,
    last     INTEGER NOT NULL,
    earliest INTEGER NOT NULL,
    latest   INTEGER NOT NULL
) STRICT;

CREATE TABLE facets (
    kind  TEXT    NOT NULL, -- caller, identity, route, status, code, outcome
    value TEXT    NOT NULL,
    first INTEGER NOT NULL, -- of the span
    PRIMARY KEY (kind, value, first)
) STRICT, WITHOUT ROWID;

-- Heads of the chain that were signed.
CREATE TABLE heads (
    seq       INTEGER PRIMARY KEY,
    time      INTEGER NOT NULL,
    hash      BLOB    NOT NULL,
    key       BLOB    NOT NULL, -- the public key
    signature BLOB    NOT NULL
) STRICT;

-- Days that were deleted because they were old, so that what is missing can be told from it.
CREATE TABLE pruned (
    first     INTEGER PRIMARY KEY,
    last      INTEGER NOT NULL,
    hash      BLOB    NOT NULL, -- of the last
    time      INTEGER NOT NULL,
    key       BLOB,
    signature BLOB
) STRICT;

-- How far each journal has been read.
CREATE TABLE journals (
    name     TEXT    PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 1;
