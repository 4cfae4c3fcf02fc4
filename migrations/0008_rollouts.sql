-- Changes of one organisation that some nodes try before all get them.

CREATE TABLE rollouts (
    id              uuid        PRIMARY KEY,
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    org_slug        text        NOT NULL,
    pool            text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('running', 'halted', 'promoted', 'aborted')),
    -- {"organization": row, "servers": [row], "policies": [row]} as they are to become. A credential is in it only where it is new; else the
    -- server's own holds. Null once the rollout is over.
    candidate       jsonb,
    diff            bytea       NOT NULL,                         -- mcpgw.admin.v1.ConfigDiff
    labels          jsonb       NOT NULL DEFAULT '{}',            -- nodes without these get it last
    steps           jsonb       NOT NULL,                         -- [{"nodes": 1}, {"percent": 10}]
    step            integer     NOT NULL DEFAULT 0,
    bake_seconds    integer     NOT NULL,
    min_calls       integer     NOT NULL,
    canaries        uuid[]      NOT NULL,                         -- the nodes of this step: decided once, the same on every replica
    step_epoch      bigint      NOT NULL DEFAULT 0,               -- the version that began the step: canaries at or after it run the candidate
    step_version    bigint      NOT NULL DEFAULT 0,
    step_started_at timestamptz NOT NULL DEFAULT now(),
    baking_since    timestamptz,                                  -- since when every connected canary has run it
    halt_reason     text        NOT NULL DEFAULT '',
    halt_detail     text        NOT NULL DEFAULT '',
    actor           text        NOT NULL,
    reason          text        NOT NULL DEFAULT '',
    revision        bigint      NOT NULL DEFAULT 1,
    config_version  bigint      NOT NULL DEFAULT 0,               -- of its last transition that nodes had to learn of
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX rollouts_one_open ON rollouts (pool) WHERE state IN ('running', 'halted');
CREATE INDEX rollouts_org ON rollouts (org_id, id);

-- The manifest of a scope carries at least this version, even if its content is older: nodes that are moved to the scope have run newer ones.
ALTER TABLE config_scope ADD COLUMN floor_epoch bigint NOT NULL DEFAULT 0;
ALTER TABLE config_scope ADD COLUMN floor_version bigint NOT NULL DEFAULT 0;
