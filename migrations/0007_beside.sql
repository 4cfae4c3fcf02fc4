-- What is said of nodes and endpoints without a configuration version.

ALTER TABLE join_tokens ADD COLUMN labels jsonb NOT NULL DEFAULT '{}';     -- what the node that uses it begins with

ALTER TABLE nodes ADD COLUMN labels jsonb NOT NULL DEFAULT '{}';
ALTER TABLE nodes ADD COLUMN revision bigint NOT NULL DEFAULT 1;
-- The keys of the certificate that the last renewal was asked with: a node that never got the answer still has these.
ALTER TABLE nodes ADD COLUMN previous_spki_sha256 bytea;
ALTER TABLE nodes ADD COLUMN previous_hpke_public_key bytea;
ALTER TABLE nodes ADD COLUMN recoveries timestamptz[] NOT NULL DEFAULT '{}'; -- of the last day, oldest first

ALTER TABLE node_status ADD COLUMN advertise text NOT NULL DEFAULT '';      -- host:port for other nodes; empty: none

-- Endpoints that are not simply in use. A server's endpoint without a row here is.
CREATE TABLE endpoint_states (
    server_id       uuid        NOT NULL REFERENCES mcp_servers ON DELETE CASCADE,
    url             text        NOT NULL,
    state           smallint    NOT NULL,                         -- mcpgw.config.v1.EndpointState
    actor           text        NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server_id, url)
);
