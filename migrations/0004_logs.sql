-- What happened. Both tables are partitioned by day (UTC); the default partition catches clocks that are wrong.

CREATE TABLE audit_logs (
    id              uuid        NOT NULL,
    occurred_at     timestamptz NOT NULL DEFAULT now(),
    org_id          uuid,
    org_slug        text        NOT NULL DEFAULT '',
    actor           text        NOT NULL,
    action          text        NOT NULL,
    resource        text        NOT NULL DEFAULT '',
    outcome         text        NOT NULL CHECK (outcome IN ('ok', 'denied')),
    config_version  bigint      NOT NULL DEFAULT 0,
    detail          jsonb       NOT NULL DEFAULT '{}',
    client_address  text        NOT NULL DEFAULT '',
    PRIMARY KEY (occurred_at, id)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE audit_logs_default PARTITION OF audit_logs DEFAULT;
CREATE INDEX audit_logs_org ON audit_logs (org_id, occurred_at DESC);

CREATE TABLE request_logs (
    request_id      uuid        NOT NULL,
    decided_at      timestamptz NOT NULL,
    node_id         uuid        NOT NULL,
    boot_id         uuid        NOT NULL,
    lane            integer     NOT NULL,
    seq             bigint      NOT NULL,                         -- of the decided frame
    class           smallint    NOT NULL,
    org_id          uuid,
    server_id       uuid,
    server          text        NOT NULL DEFAULT '',
    subject         text        NOT NULL DEFAULT '',
    roles           text[]      NOT NULL DEFAULT '{}',
    groups          text[]      NOT NULL DEFAULT '{}',
    via             smallint    NOT NULL DEFAULT 0,
    credential_id   text        NOT NULL DEFAULT '',
    client_address  text        NOT NULL DEFAULT '',
    method          text        NOT NULL DEFAULT '',
    target          text        NOT NULL DEFAULT '',
    client_protocol_version text NOT NULL DEFAULT '',
    client_transport text       NOT NULL DEFAULT '',
    client_era      text        NOT NULL DEFAULT '',
    server_transport text       NOT NULL DEFAULT '',
    server_era      text        NOT NULL DEFAULT '',
    decision        smallint    NOT NULL,
    rule_id         text        NOT NULL DEFAULT '',
    rule            text        NOT NULL DEFAULT '',
    mode            text        NOT NULL DEFAULT '',
    reason          text        NOT NULL DEFAULT '',
    config_epoch    bigint      NOT NULL DEFAULT 0,
    config_version  bigint      NOT NULL DEFAULT 0,
    org_digest      bytea       NOT NULL DEFAULT '',
    request_bytes   bigint      NOT NULL DEFAULT 0,
    arguments_digest bytea      NOT NULL DEFAULT '',
    session         text        NOT NULL DEFAULT '',
    shadow_rule_id  text        NOT NULL DEFAULT '',
    shadow_decision smallint    NOT NULL DEFAULT 0,
    -- from the ended frame; outcome is null until it arrives
    ended_at        timestamptz,
    outcome         smallint,
    status          integer     NOT NULL DEFAULT 0,
    error_code      integer     NOT NULL DEFAULT 0,
    response_bytes  bigint      NOT NULL DEFAULT 0,
    upstream        text        NOT NULL DEFAULT '',
    decide_us       bigint      NOT NULL DEFAULT 0,
    upstream_us     bigint      NOT NULL DEFAULT 0,
    total_us        bigint      NOT NULL DEFAULT 0,
    stage_us        bigint[]    NOT NULL DEFAULT '{}',
    events          bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (decided_at, request_id)
) PARTITION BY RANGE (decided_at);
CREATE TABLE request_logs_default PARTITION OF request_logs DEFAULT;
CREATE INDEX request_logs_org ON request_logs (org_id, decided_at DESC);
CREATE INDEX request_logs_request ON request_logs (request_id);

-- Creates the partitions of the days from `first_day` to `last_day` where they do not exist.
CREATE FUNCTION create_log_partitions(first_day date, last_day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day date;
    parent text;
BEGIN
    FOR day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        FOREACH parent IN ARRAY ARRAY['audit_logs', 'request_logs'] LOOP
            EXECUTE format(
                'CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                parent || '_' || to_char(day, 'YYYYMMDD'), parent,
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        END LOOP;
    END LOOP;
END $$;
SELECT create_log_partitions((now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + 7);
