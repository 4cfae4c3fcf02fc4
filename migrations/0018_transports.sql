-- Servers that are processes on the nodes, and what clients may use to reach a server.

ALTER TABLE mcp_servers
    ADD COLUMN stdio                    jsonb,                                -- {"command", "environment", "directory", "scope"}; null: it has endpoints
    ADD COLUMN client_transports        jsonb       NOT NULL DEFAULT '[]';    -- [{"transport", "disabled", ...}], by transport
