//! The resource types of discovery. Stock xDS clients subscribe to exactly these strings.

pub const GLOBAL: &str = "type.googleapis.com/mcpgw.config.v1.Global";
pub const ORG_BUNDLE: &str = "type.googleapis.com/mcpgw.config.v1.OrgBundle";
pub const CREDENTIAL_SHARD: &str = "type.googleapis.com/mcpgw.config.v1.CredentialShard";
pub const SECRET_ENVELOPE: &str = "type.googleapis.com/mcpgw.config.v1.SecretEnvelope";
pub const MANIFEST: &str = "type.googleapis.com/mcpgw.config.v1.Manifest";
/// Beside the manifest: applied at once, never blocked.
pub const REVOCATION: &str = "type.googleapis.com/mcpgw.config.v1.Revocation";
/// Beside the manifest: applied at once, never blocked.
pub const ENDPOINTS: &str = "type.googleapis.com/mcpgw.config.v1.Endpoints";
/// Beside the manifest: applied at once, never blocked.
pub const PEERS: &str = "type.googleapis.com/mcpgw.config.v1.Peers";

/// Types whose resources the manifest's digest covers, in the order a server sends them; the manifest follows last.
pub const COVERED: [&str; 4] = [GLOBAL, SECRET_ENVELOPE, ORG_BUNDLE, CREDENTIAL_SHARD];
/// Types that travel beside the manifest.
pub const BESIDE: [&str; 3] = [REVOCATION, ENDPOINTS, PEERS];
