-- What organisations configure, and the version order of its changes.

CREATE TABLE mcp_servers (
    id              uuid        PRIMARY KEY,
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    slug            text        NOT NULL,
    display_name    text        NOT NULL DEFAULT '',
    transport       smallint    NOT NULL,                         -- mcpgw.config.v1.Transport
    era             smallint    NOT NULL DEFAULT 0,               -- mcpgw.config.v1.Era
    endpoints       jsonb       NOT NULL,                         -- [{"url", "weight"}]
    allow_anonymous boolean     NOT NULL DEFAULT false,
    disabled        boolean     NOT NULL DEFAULT false,
    credential_header text,                                       -- with credential_wrapped, or neither
    credential_wrapped bytea,                                     -- under the credential key in custody
    call_timeout_ms integer     NOT NULL DEFAULT 0,
    max_body_bytes  integer     NOT NULL DEFAULT 0,
    revision        bigint      NOT NULL DEFAULT 1,
    config_version  bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT mcp_servers_slug_key UNIQUE (org_id, slug)
);

CREATE TABLE policies (
    id              uuid        PRIMARY KEY,
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name            text        NOT NULL,
    display_name    text        NOT NULL DEFAULT '',
    effect          smallint    NOT NULL,                         -- mcpgw.config.v1.Effect
    mode            smallint    NOT NULL DEFAULT 1,               -- mcpgw.config.v1.Mode
    subjects        jsonb       NOT NULL,
    servers         text[]      NOT NULL,
    match           jsonb       NOT NULL,
    "when"          text        NOT NULL DEFAULT '',
    revision        bigint      NOT NULL DEFAULT 1,
    config_version  bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT policies_name_key UNIQUE (org_id, name)
);

CREATE TABLE rate_limits (
    id              uuid        PRIMARY KEY,
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name            text        NOT NULL,
    spec            jsonb       NOT NULL,
    revision        bigint      NOT NULL DEFAULT 1,
    config_version  bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT rate_limits_name_key UNIQUE (org_id, name)
);

-- One row: its lock, taken late and held to commit, makes version order commit order.
CREATE TABLE config_head (
    one             boolean     PRIMARY KEY DEFAULT true CHECK (one),
    epoch           bigint      NOT NULL,
    version         bigint      NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO config_head (epoch, version) VALUES (1, 0);

CREATE TABLE config_change (
    epoch           bigint      NOT NULL,
    version         bigint      NOT NULL,
    seq             integer     NOT NULL,
    org_id          uuid,                                         -- no reference: outlives the organisation
    org_slug        text        NOT NULL DEFAULT '',
    kind            text        NOT NULL,
    resource        text        NOT NULL,
    operation       text        NOT NULL CHECK (operation IN ('create', 'update', 'delete')),
    actor           text        NOT NULL,
    committed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (epoch, version, seq)
);
CREATE INDEX config_change_org ON config_change (org_id, version);

-- The version that last changed what a pool's nodes get: whichever replica asks, a scope's manifest has the same version.
CREATE TABLE config_scope (
    pool            text        PRIMARY KEY,
    epoch           bigint      NOT NULL,
    version         bigint      NOT NULL,
    digest          bytea       NOT NULL,
    committed_at    timestamptz NOT NULL
);
