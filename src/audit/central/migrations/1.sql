-- The central audit store: the records of all gateways, in one table.
--
-- A gateway whose role may create tables runs this by itself. Otherwise an owner runs it once:
--
--     psql --single-transaction -v ON_ERROR_STOP=1 -f 1.sql postgres://OWNER@HOST/DATABASE
--
-- Afterwards a gateway needs no more than
--
--     GRANT INSERT ON audit_records TO gateway_role;
--
-- and whoever reads (`audit query --store postgres://...`)
--
--     GRANT SELECT ON audit_records TO auditor_role;

-- Everything is in the first schema of the search path, and what runs here later looks nowhere else.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE IF NOT EXISTS audit_migrations (
    version integer     PRIMARY KEY,
    applied timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON audit_migrations TO PUBLIC;

-- The columns are the values of a record, by their names. Texts are compared byte by byte: that is
-- faster, and no update of the system's locales can spoil an index.
CREATE TABLE audit_records (
    seq             bigint      NOT NULL,
    phase           text        COLLATE "C" NOT NULL,
    id              uuid        NOT NULL,
    request_id      text        COLLATE "C",
    time            timestamptz NOT NULL,
    gateway         text        COLLATE "C" NOT NULL,
    caller          text        COLLATE "C",
    identity        text        COLLATE "C",
    method          text        COLLATE "C",
    route           text        COLLATE "C",
    effect          text        COLLATE "C",
    status          smallint,
    upstream_status smallint,
    code            text        COLLATE "C",
    outcome         text        COLLATE "C",
    duration_us     bigint,
    upstream_us     bigint,
    bytes_in        bigint,
    bytes_out       bigint,
    attempts        integer,
    replay          text        COLLATE "C",
    rule            text        COLLATE "C",
    legacy          boolean     NOT NULL,
    peer            text        COLLATE "C",
    trace_id        text        COLLATE "C",
    lost            bigint,
    prev_hash       bytea       NOT NULL,
    hash            bytea       NOT NULL,
    -- What was shipped twice is the same row. Two records that claim the same place in a chain are
    -- not: both are kept, as evidence.
    PRIMARY KEY (id, phase, time)
) PARTITION BY RANGE (time);

CREATE INDEX audit_records_chain      ON audit_records (gateway, seq);
CREATE INDEX audit_records_time       ON audit_records (time, seq);
CREATE INDEX audit_records_request_id ON audit_records (request_id);
CREATE INDEX audit_records_caller     ON audit_records (caller, time, seq);
CREATE INDEX audit_records_route      ON audit_records (route, time, seq);
CREATE INDEX audit_records_status     ON audit_records (status, time, seq)  WHERE status >= 400;
CREATE INDEX audit_records_code       ON audit_records (code, time, seq)    WHERE code IS NOT NULL;
CREATE INDEX audit_records_outcome    ON audit_records (outcome, time, seq) WHERE outcome <> 'ok';

-- Takes what belongs to no month that has a partition, so that no record is ever refused for its
-- time: a clock may be wrong.
CREATE TABLE audit_records_default PARTITION OF audit_records DEFAULT;

-- Makes the partition of a month (UTC), if that is worth while; says whether it did. Gateways call
-- it ahead of time. It runs as its owner, so that they need no right to create tables, and makes
-- nothing that lies far away, so that nobody can fill the catalogue with it. To have old records
-- deleted, drop old partitions.
CREATE FUNCTION audit_make_partition(month date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    -- Never lets those who insert wait long behind somebody who reads.
    SET lock_timeout = '1s'
    SET timezone = 'UTC'
AS $$
DECLARE
    first date := date_trunc('month', month::timestamp)::date;
    after date := (first + interval '1 month')::date;
    name  text := 'audit_records_' || to_char(first, 'YYYY_MM');
BEGIN
    IF to_regclass(quote_ident(name)) IS NOT NULL
        OR first NOT BETWEEN current_date - 800 AND current_date + 100
    THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(7020389948438181220);
    IF to_regclass(quote_ident(name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- To attach one is gentler than to create one in its place: queries go on meanwhile.
    EXECUTE format('CREATE TABLE %I (LIKE audit_records INCLUDING ALL)', name);
    EXECUTE format(
        'ALTER TABLE audit_records ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, first::timestamptz, after::timestamptz
    );
    RETURN true;
EXCEPTION
    -- Somebody holds a table, or the default partition has records of that month and keeps it.
    WHEN lock_not_available OR check_violation THEN RETURN false;
END
$$;

SELECT audit_make_partition(((now() AT TIME ZONE 'UTC') + make_interval(months => ahead))::date)
    FROM generate_series(0, 2) AS ahead;

INSERT INTO audit_migrations (version) VALUES (1);
