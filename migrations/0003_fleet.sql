-- Nodes and how they come to be.

CREATE TABLE join_tokens (
    id              text        PRIMARY KEY,
    secret_sha256   bytea       NOT NULL,
    pool            text        NOT NULL,
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz,
    node_id         uuid,
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE nodes (
    id              uuid        PRIMARY KEY,
    display_name    text        NOT NULL DEFAULT '',
    pool            text        NOT NULL,
    spki_sha256     bytea       NOT NULL,                         -- of the key that enrolled
    hpke_public_key bytea       NOT NULL,
    certificate_expires_at timestamptz NOT NULL,
    revoked_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE node_status (
    node_id         uuid        PRIMARY KEY REFERENCES nodes ON DELETE CASCADE,
    replica         text        NOT NULL DEFAULT '',              -- of the control plane that holds the stream
    connected       boolean     NOT NULL DEFAULT false,
    epoch           bigint      NOT NULL DEFAULT 0,
    version         bigint      NOT NULL DEFAULT 0,
    digest          bytea       NOT NULL DEFAULT '',
    build           text        NOT NULL DEFAULT '',
    problems        text[]      NOT NULL DEFAULT '{}',
    last_seen_at    timestamptz NOT NULL DEFAULT now()
);

-- How far each lane's frames are committed; with the rows in one transaction, so that a frame is inserted once and gaps show.
CREATE TABLE ship_cursor (
    node_id         uuid        NOT NULL,
    boot_id         uuid        NOT NULL,
    lane            integer     NOT NULL,
    last_seq        bigint      NOT NULL,
    last_hash       bytea       NOT NULL,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, boot_id, lane)
);
