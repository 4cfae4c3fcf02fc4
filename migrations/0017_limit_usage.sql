-- How full the fullest counts of rate limits are, as each node last reported it: the newest report takes the place of the one before.
-- Unlogged: after a crash of the database nodes tell it anew within seconds.

CREATE UNLOGGED TABLE limit_usage (
    node_id         uuid        NOT NULL REFERENCES nodes ON DELETE CASCADE,
    org_id          uuid        NOT NULL REFERENCES organizations ON DELETE CASCADE,
    counts          jsonb       NOT NULL,                         -- an array; its form is the code's
    PRIMARY KEY (node_id, org_id)
);
CREATE INDEX limit_usage_org ON limit_usage (org_id);
