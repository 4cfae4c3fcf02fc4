-- How full the fullest counts of rate limits are, as each node last reported it: the newest report takes the place of the one before.
-- Unlogged: after a crash of the database nodes tell it anew within seconds.

CREATE UNLOGGED TABLE limit_usage (
    node_id         uuid        NOT NULL REFERENCES nodes ON DELETE CASCADE,
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    counts          jsonb       NOT NULL,                         -- an array; its form is the code's
    PRIMARY KEY (node_id, org_id)
);
CREATE INDEX limit_usage_org ON limit_usage (org_id);

-- Records that nodes left out while they had no room for them, or that a disk refused.
CREATE TABLE record_gaps (
    id              uuid        PRIMARY KEY,                      -- made of the gap's in the node's record, and of the organisation's
    org_id          uuid,                                         -- null: of organisations that the record does not tell apart, or of none
    node_id         uuid        NOT NULL,
    from_at         timestamptz NOT NULL,                         -- when the first of their calls was decided
    until_at        timestamptz NOT NULL,                         -- when the last one was
    access          bigint      NOT NULL,                         -- records of class access
    audit           bigint      NOT NULL                          -- records of class audit
);
CREATE INDEX record_gaps_org ON record_gaps (org_id, until_at DESC);
CREATE INDEX record_gaps_age ON record_gaps (until_at DESC);
