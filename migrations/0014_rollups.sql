-- The reading side of the logs: in which order rows arrived, what they add up to by the minute, and errors by what they have in common.

-- A number whose transaction has an id already when the number is drawn: who sees a later number but not this one can wait for every
-- transaction that began before, and then knows that it will never come.
CREATE FUNCTION arrive(numbers regclass) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_current_xact_id();
    RETURN nextval(numbers);
END $$;

-- What one committed batch of audit frames brought: rows that became complete, and rows that were begun and are still open.
CREATE SEQUENCE log_arrival_numbers;
CREATE TABLE log_arrivals (
    number          bigint        PRIMARY KEY DEFAULT arrive('log_arrival_numbers'),
    arrived_at      timestamptz   NOT NULL DEFAULT now(),
    done_at         timestamptz[] NOT NULL,                       -- decided_at and request_id of each, pairwise
    done_ids        uuid[]        NOT NULL,
    open_at         timestamptz[] NOT NULL,
    open_ids        uuid[]        NOT NULL
);
CREATE INDEX log_arrivals_age ON log_arrivals USING brin (arrived_at);

-- Administrative records are few: each has a number of its own.
CREATE SEQUENCE audit_arrival_numbers;
ALTER TABLE audit_logs ADD COLUMN arrival bigint NOT NULL DEFAULT arrive('audit_arrival_numbers');
CREATE INDEX audit_logs_arrival ON audit_logs (arrival);

-- Calls whose node was found gone before they ended are on record as interrupted since then; an end that arrives after all still counts.
ALTER TABLE request_logs ADD COLUMN interrupted_at timestamptz;
CREATE INDEX request_logs_open ON request_logs (node_id, boot_id) WHERE outcome IS NULL AND interrupted_at IS NULL;

-- Complete calls by the minute of their decision. The nil UUID: none.
CREATE TABLE rollup_minutes (
    org_id          uuid        NOT NULL,
    minute          timestamptz NOT NULL,
    server_id       uuid        NOT NULL,
    server          text        NOT NULL,
    method          text        NOT NULL,                         -- one of MCP's, `GET`, `DELETE`, empty, or `other`
    target          text        NOT NULL,                         -- empty without one; `other` beyond the names that are kept apart
    decision        smallint    NOT NULL,
    outcome         smallint    NOT NULL,                         -- 0: interrupted
    calls           bigint      NOT NULL,
    request_bytes   bigint      NOT NULL,
    response_bytes  bigint      NOT NULL,
    total_us        bigint      NOT NULL,
    buckets         bigint[]    NOT NULL,                         -- calls by time until the end; the bounds are in the code
    PRIMARY KEY (org_id, minute, server_id, server, method, target, decision, outcome)
) WITH (fillfactor = 60);
CREATE INDEX rollup_minutes_age ON rollup_minutes USING brin (minute);

CREATE FUNCTION add_buckets(a bigint[], b bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE AS
    'SELECT array_agg(coalesce(x, 0) + coalesce(y, 0) ORDER BY n) FROM unnest(a, b) WITH ORDINALITY AS t (x, y, n)';

-- Errors that have everything in common that does not change from call to call.
CREATE TABLE error_groups (
    id              uuid        PRIMARY KEY,                      -- made of the columns below
    org_id          uuid        NOT NULL,
    server_id       uuid        NOT NULL,
    server          text        NOT NULL,
    method          text        NOT NULL,
    target          text        NOT NULL,
    outcome         smallint    NOT NULL,
    code            integer     NOT NULL,
    reason          text        NOT NULL,
    upstream        text        NOT NULL,
    shape           bigint      NOT NULL,                         -- of the message, never the message; 0: none was seen
    calls           bigint      NOT NULL,
    first_seen_at   timestamptz NOT NULL,
    last_seen_at    timestamptz NOT NULL,
    sample_id       uuid        NOT NULL                          -- the newest call seen
);
CREATE INDEX error_groups_org ON error_groups (org_id, last_seen_at DESC);
