-- Proof that the logs are what was recorded: what each committed batch brought, sealed lane by lane; the chain of administrative records;
-- checkpoints over both; and what was deleted because it was too old. Hashes are SHA-256, signatures Ed25519 over them.

-- Seals name what they cover: per half of a row its key, its sequence number and the hash of its content.
CREATE SEQUENCE log_seal_numbers;
CREATE TABLE log_seals (
    number          bigint      PRIMARY KEY,
    node_id         uuid        NOT NULL,                         -- the nil UUID: the control plane's own lane of interruptions
    boot_id         uuid        NOT NULL,
    lane            integer     NOT NULL,
    ordinal         bigint      NOT NULL,                         -- 1, 2, 3 within the lane
    sealed_at       timestamptz NOT NULL,
    first_seq       bigint      NOT NULL,
    last_seq        bigint      NOT NULL,
    chain_hash      bytea       NOT NULL,                         -- of the node's own chain, after `last_seq`
    first_at        timestamptz NOT NULL,                         -- decisions of the entries; without entries: `sealed_at`
    last_at         timestamptz NOT NULL,
    orgs            uuid[]      NOT NULL,                         -- what entries refer to; the nil UUID: none was known
    entries         bytea       NOT NULL,
    entries_hash    bytea       NOT NULL,
    previous_hash   bytea       NOT NULL,                         -- of the lane's seal before this one
    hash            bytea       NOT NULL,
    key_id          text        NOT NULL,                         -- empty: not signed
    signature       bytea       NOT NULL,
    UNIQUE (node_id, boot_id, lane, ordinal)
);
ALTER TABLE log_seals ALTER COLUMN entries SET STORAGE EXTERNAL; -- hashes do not compress
CREATE INDEX log_seals_age ON log_seals (sealed_at);

-- Where a lane's seals stand.
ALTER TABLE ship_cursor
    ADD COLUMN sealed bigint NOT NULL DEFAULT 0,                  -- ordinal of the last seal
    ADD COLUMN seal_hash bytea NOT NULL DEFAULT '',
    ADD COLUMN checkpointed bigint NOT NULL DEFAULT 0;            -- ordinal of the last seal that a checkpoint covers

-- Up to which ordinal the seals of a lane were deleted because everything they cover was too old.
CREATE TABLE log_seal_floors (
    node_id         uuid        NOT NULL,
    boot_id         uuid        NOT NULL,
    lane            integer     NOT NULL,
    ordinal         bigint      NOT NULL,
    seal_hash       bytea       NOT NULL,
    before          timestamptz NOT NULL,
    key_id          text        NOT NULL,
    signature       bytea       NOT NULL,
    PRIMARY KEY (node_id, boot_id, lane)
);

-- Which seal covers which half of a row; null: there is no such half, or it is from before there were seals.
ALTER TABLE request_logs
    ADD COLUMN decided_seal bigint,
    ADD COLUMN ended_seal bigint,
    ADD COLUMN interrupted_seal bigint;

-- Administrative records: numbered without gaps, each with the hash of the one before. Null: from before there was a chain.
ALTER TABLE audit_logs
    ADD COLUMN number bigint,
    ADD COLUMN previous_hash bytea,
    ADD COLUMN hash bytea,
    ADD COLUMN key_id text,
    ADD COLUMN signature bytea;
CREATE INDEX audit_logs_number ON audit_logs (number);
CREATE TABLE audit_chain (
    one             boolean     PRIMARY KEY DEFAULT true CHECK (one),
    number          bigint      NOT NULL,
    hash            bytea       NOT NULL,
    began_at        timestamptz NOT NULL DEFAULT now()            -- rows of before have neither seal nor number
);
INSERT INTO audit_chain (number, hash) VALUES (0, '\x0000000000000000000000000000000000000000000000000000000000000000');

CREATE TABLE log_checkpoints (
    number          bigint      PRIMARY KEY,
    taken_at        timestamptz NOT NULL,
    began_at        timestamptz NOT NULL,                         -- of `audit_chain`
    seals           bigint      NOT NULL,                         -- since the checkpoint before
    lanes           bytea,                                        -- lanes that moved, and their last seals; null: forgotten
    root            bytea       NOT NULL,                         -- over `lanes`
    audit_number    bigint      NOT NULL,
    audit_hash      bytea       NOT NULL,
    previous_hash   bytea       NOT NULL,
    hash            bytea       NOT NULL,
    key_id          text        NOT NULL,
    signature       bytea       NOT NULL
);

-- What was deleted because it was older than its organisation keeps it.
CREATE TABLE log_purges (
    id              uuid        PRIMARY KEY,
    purged_at       timestamptz NOT NULL,
    log             text        NOT NULL CHECK (log IN ('request_logs', 'audit_logs')),
    orgs            uuid[]      NOT NULL,                         -- the nil UUID: of every organisation and of none
    before          timestamptz[] NOT NULL,                       -- pairwise, as the next two
    days            integer[]   NOT NULL,
    counts          bigint[]    NOT NULL,
    numbers         bigint[]    NOT NULL,                         -- of administrative records, first and last of each run
    hash            bytea       NOT NULL,
    key_id          text        NOT NULL,
    signature       bytea       NOT NULL
);
CREATE INDEX log_purges_time ON log_purges (log, purged_at);

ALTER TABLE organizations ADD COLUMN audit_log_retention_days integer NOT NULL DEFAULT 400;
