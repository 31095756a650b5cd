-- One day of the audit log.

-- The records in the order of the chain, many to a row. Each block holds the hash before its first
-- record, and then for each its length, its compact form and its hash, which covers all that it
-- says, the gateway's name and the hash before it (`block.rs`). No block reaches over the end of a
-- span.
CREATE TABLE blocks (
    first   INTEGER PRIMARY KEY, -- the number of its first record
    records BLOB    NOT NULL
) STRICT;

-- The outcome of an intent is looked up here. Only what may act, is unknown or lasts has one.
CREATE TABLE outcomes (
    id  BLOB    NOT NULL, -- of the request
    seq INTEGER NOT NULL, -- the number of the record
    PRIMARY KEY (id, seq)
) STRICT, WITHOUT ROWID;

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

-- In the order of the chain, so that new ones come to lie beside each other.
CREATE TABLE facets (
    first INTEGER NOT NULL, -- of the span
    kind  TEXT    NOT NULL, -- caller, identity, route, status, code, outcome
    value TEXT    NOT NULL,
    PRIMARY KEY (first, kind, value)
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

PRAGMA user_version = 2;
