//! A generated installation, written straight into the tables: a hundred thousand policies through the API would take an hour and
//! measure nothing. Names are numbered, so that the rig can name what it edits.

use sqlx::{Connection as _, PgConnection};

use super::Options;

/// `organizations/{org}/policies/{policy}` of the first policy of an organisation.
pub(super) fn policy_name(organization: u32) -> String {
    format!("organizations/scale-{organization}/policies/policy-{organization}")
}

/// Fills the tables and makes one version of it, without a log: a publisher reads everything.
pub(super) async fn fill(database: &str, options: &Options) -> anyhow::Result<u64> {
    let mut sql = PgConnection::connect(database).await?;
    let orgs = i64::from(options.organizations.max(1));
    let statements = [
        (
            "INSERT INTO organizations (id, slug, display_name) \
          SELECT md5('org' || n)::uuid, 'scale-' || n, 'Organisation ' || n FROM generate_series(0, $1 - 1) n WHERE $2 > 0",
            orgs,
        ),
        (
            "INSERT INTO mcp_servers (id, org_id, slug, transport, endpoints) \
          SELECT md5('server' || n)::uuid, md5('org' || n % $2)::uuid, 'server-' || n / $2, 1, \
          jsonb_build_array(jsonb_build_object('url', 'https://server-' || n || '.example.com/mcp', 'weight', 1)) \
          FROM generate_series(0, $1 - 1) n",
            i64::from(options.servers),
        ),
        (
            "INSERT INTO policies (id, org_id, name, effect, mode, subjects, servers, match) \
          SELECT md5('policy' || n)::uuid, md5('org' || n % $2)::uuid, 'policy-' || n, CASE WHEN n % 10 = 9 THEN 2 ELSE 1 END, 1, \
          jsonb_build_object('roles', jsonb_build_array('role-' || n % 7), 'groups', jsonb_build_array('group-' || n % 11)), \
          CASE WHEN n / $2 < $3 / $2 THEN ARRAY['server-' || n / $2] ELSE ARRAY['*'] END, \
          jsonb_build_object('tools', jsonb_build_array('tool_' || n, 'search_' || n % 13 || '_*')) \
          FROM generate_series(0, $1 - 1) n",
            i64::from(options.policies),
        ),
        (
            "INSERT INTO api_keys (id, uid, org_id, secret_sha256, policy_roles) \
          SELECT translate(substr(md5('key' || n), 1, 16), '0189', 'ghij'), md5('key' || n)::uuid, md5('org' || n % $2)::uuid, \
          sha256(n::text::bytea), ARRAY['role-' || n % 7] FROM generate_series(0, $1 - 1) n",
            i64::from(options.keys),
        ),
    ];
    for (statement, count) in statements {
        let servers = i64::from(options.servers);
        let query = sqlx::query(statement).bind(count).bind(orgs);
        let query = if statement.contains("$3") { query.bind(servers) } else { query };
        query.execute(&mut sql).await?;
    }
    sqlx::query("ANALYZE").execute(&mut sql).await?;
    let made = "UPDATE config_head SET version = version + 1, committed_at = clock_timestamp() RETURNING version";
    let version: i64 = sqlx::query_scalar(made).fetch_one(&mut sql).await?;
    sqlx::query("SELECT pg_notify('mcpgw_config', '')").execute(&mut sql).await?;
    sql.close().await?;
    Ok(version.unsigned_abs())
}
