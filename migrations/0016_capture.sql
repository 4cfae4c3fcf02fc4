-- What of calls an organisation keeps beside their records, and when a record counts as written.

ALTER TABLE organizations
    ADD COLUMN audit_sync               smallint    NOT NULL DEFAULT 1,   -- mcpgw.config.v1.AuditSync
    ADD COLUMN capture_arguments        boolean     NOT NULL DEFAULT false,
    ADD COLUMN capture_results          boolean     NOT NULL DEFAULT false,
    ADD COLUMN capture_max_bytes        integer     NOT NULL DEFAULT 0,   -- 0: as nodes have it
    ADD COLUMN capture_redact           text[]      NOT NULL DEFAULT '{}',
    ADD COLUMN capture_retention_days   integer     NOT NULL DEFAULT 0;   -- 0: 7

-- Arguments and results that organisations asked for, redacted and cut by the node that saw them. Not part of request_logs: it is kept for
-- another time, and read by others. No reference to the organisation: a node may tell of one that is gone meanwhile.
CREATE TABLE captured_payloads (
    request_id      uuid        NOT NULL,
    decided_at      timestamptz NOT NULL,
    kind            smallint    NOT NULL,                         -- mcpgw.node.v1.PayloadKind
    org_id          uuid        NOT NULL,
    text            text        NOT NULL,
    bytes           bigint      NOT NULL,                         -- of the whole, before anything was taken out
    cut             boolean     NOT NULL,
    redactions      bigint      NOT NULL,
    captured_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request_id, kind)
);
CREATE INDEX captured_payloads_age ON captured_payloads (org_id, captured_at);
