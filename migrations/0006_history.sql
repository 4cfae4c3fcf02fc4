-- What each change was, so that versions can be compared and taken back.

ALTER TABLE config_change
    ADD COLUMN before     jsonb,                                  -- the resource as a document; null: it was not there, or none is kept
    ADD COLUMN after      jsonb,
    ADD COLUMN reason     text NOT NULL DEFAULT '',               -- as the caller gave it
    ADD COLUMN credential_wrapped bytea;                          -- of a deleted server: under the credential key in custody, as it was
CREATE INDEX config_change_resource ON config_change (kind, resource, epoch, version);

-- Since when the stored value is the stored value: what history shows in its place. Sealing it again under another key is no change.
ALTER TABLE mcp_servers ADD COLUMN credential_set_at timestamptz;
UPDATE mcp_servers SET credential_set_at = updated_at WHERE credential_wrapped IS NOT NULL;

-- How many servers and policies of each organisation a pool was published with: what vanishes without a recorded delete shows.
ALTER TABLE config_scope ADD COLUMN counts jsonb;                 -- {"organisation id": {"s": servers, "p": policies}}
