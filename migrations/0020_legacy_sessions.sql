-- How requests of modern clients share sessions with a server of the legacy era.

ALTER TABLE mcp_servers
    ADD COLUMN legacy_sessions          smallint    NOT NULL DEFAULT 0;       -- config.v1.LegacySessions; 0: pooled
