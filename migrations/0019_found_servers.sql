-- What nodes found out about servers whose registrations do not say, as each last reported it: what it does not report any more is gone.
-- Unlogged: after a crash of the database nodes tell it anew within seconds.

CREATE UNLOGGED TABLE found_servers (
    node_id         uuid        NOT NULL REFERENCES nodes ON DELETE CASCADE,
    server_id       uuid        NOT NULL REFERENCES mcp_servers ON DELETE CASCADE,
    transport       smallint    NOT NULL,                         -- config.v1.Transport; 0: not found out
    era             smallint    NOT NULL,                         -- config.v1.Era; 0: not found out
    found_at        timestamptz NOT NULL,                         -- by the node's clock
    PRIMARY KEY (node_id, server_id)
);
CREATE INDEX found_servers_server ON found_servers (server_id);
