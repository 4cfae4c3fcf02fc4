-- What nodes say of themselves about every ten seconds, beside what their discovery streams show.

ALTER TABLE node_status
    ADD COLUMN applied_at      timestamptz,                       -- when a stream last told the version: an overtaken report does not undo it
    ADD COLUMN refused_epoch   bigint,                            -- the version that it refused since; 0: none
    ADD COLUMN refused_version bigint,
    ADD COLUMN reported_at     timestamptz,
    ADD COLUMN stale_seconds   bigint  NOT NULL DEFAULT 0,        -- since a control plane last confirmed what runs; 0: one does
    ADD COLUMN quarantined     integer NOT NULL DEFAULT 0,        -- organisations kept on their last good configuration
    ADD COLUMN spool_frames    bigint  NOT NULL DEFAULT 0,
    ADD COLUMN spool_oldest_ms bigint  NOT NULL DEFAULT 0,
    ADD COLUMN open_streams    integer NOT NULL DEFAULT 0;
