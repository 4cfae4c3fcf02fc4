-- Who there is: organisations, people, their keys and their login sessions.

CREATE TABLE organizations (
    id                          uuid        PRIMARY KEY,
    slug                        text        NOT NULL CONSTRAINT organizations_slug_key UNIQUE,
    display_name                text        NOT NULL DEFAULT '',
    allowed_origins             text[]      NOT NULL DEFAULT '{}',
    audit_full                  smallint    NOT NULL DEFAULT 1,   -- mcpgw.config.v1.AuditFullAction
    pool                        text        NOT NULL DEFAULT 'default',
    request_log_retention_days  integer     NOT NULL DEFAULT 90,
    revision                    bigint      NOT NULL DEFAULT 1,   -- the etag
    config_version              bigint      NOT NULL DEFAULT 0,
    created_at                  timestamptz NOT NULL DEFAULT now(),
    updated_at                  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id              uuid        PRIMARY KEY,
    email           text        NOT NULL,
    display_name    text        NOT NULL DEFAULT '',
    password_hash   text        NOT NULL,                         -- argon2id, PHC string
    disabled        boolean     NOT NULL DEFAULT false,
    platform_admin  boolean     NOT NULL DEFAULT false,
    tokens_not_before timestamptz,                                -- earlier access tokens are void
    revision        bigint      NOT NULL DEFAULT 1,
    config_version  bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
CREATE INDEX users_tokens_not_before ON users (tokens_not_before) WHERE tokens_not_before IS NOT NULL;

CREATE TABLE memberships (
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    user_id         uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    role            smallint    NOT NULL,                         -- mcpgw.admin.v1.Role
    policy_roles    text[]      NOT NULL DEFAULT '{}',
    groups          text[]      NOT NULL DEFAULT '{}',
    revision        bigint      NOT NULL DEFAULT 1,
    config_version  bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT memberships_pkey PRIMARY KEY (org_id, user_id)
);
CREATE INDEX memberships_user ON memberships (user_id);

CREATE TABLE api_keys (
    id              text        PRIMARY KEY,                      -- the public part
    uid             uuid        NOT NULL UNIQUE,
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    user_id         uuid        REFERENCES users ON DELETE CASCADE,
    display_name    text        NOT NULL DEFAULT '',
    secret_sha256   bytea       NOT NULL,
    policy_roles    text[]      NOT NULL DEFAULT '{}',
    groups          text[]      NOT NULL DEFAULT '{}',
    expires_at      timestamptz,
    revoked_at      timestamptz,
    revision        bigint      NOT NULL DEFAULT 1,
    config_version  bigint      NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_keys_org ON api_keys (org_id, id);
CREATE INDEX api_keys_revoked ON api_keys (revoked_at) WHERE revoked_at IS NOT NULL;

-- A login session is a family of refresh tokens; only the newest may be used.
-- No references: a revoked session outlives its user and organisation, until every token of it has expired.
CREATE TABLE sessions (
    id              uuid        PRIMARY KEY,                      -- the claim sid
    user_id         uuid        NOT NULL,
    org_id          uuid,
    refresh_sha256  bytea       NOT NULL,                         -- of the newest refresh token
    generation      bigint      NOT NULL DEFAULT 1,
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

-- Answers to mutating requests that named a request_id, for a day.
CREATE TABLE idempotent_answers (
    actor           text        NOT NULL,
    method          text        NOT NULL,
    request_id      uuid        NOT NULL,
    request_sha256  bytea       NOT NULL,
    answer          bytea       NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, method, request_id)
);

-- Keys in custody, each wrapped by the master key, which is not in this database.
CREATE TABLE keys (
    id              text        PRIMARY KEY,
    purpose         text        NOT NULL,                         -- jwt, manifest, node_ca, session, credential, pool/<pool>
    state           text        NOT NULL CHECK (state IN ('next', 'current', 'retiring')),
    wrapped         bytea       NOT NULL,                         -- AES-256-GCM under the master key, bound to id and purpose
    public          bytea       NOT NULL DEFAULT '',              -- public key or certificate, DER
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX keys_one_current ON keys (purpose) WHERE state = 'current';
