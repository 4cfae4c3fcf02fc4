//! What is known of servers' endpoints beyond the configuration: rows of `endpoint_states`. An endpoint without a row is in use.

use mcp_gateway::proto::config::v1::{EndpointState, EndpointStatus};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, change::CHANNEL, rows::small_of};

/// A row as publishers read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The pool of the server's organisation.
    pub pool: String,
    pub server: Uuid,
    pub status: EndpointStatus,
}

/// The states of the endpoints of these servers, sorted by server and URL.
pub async fn of(connection: &mut PgConnection, servers: &[Uuid]) -> Result<Vec<(Uuid, EndpointStatus)>, Error> {
    let rows: Vec<(Uuid, String, i16)> = sqlx::query_as(
        "SELECT server_id, url, state FROM endpoint_states WHERE server_id = ANY ($1) ORDER BY server_id, url COLLATE \"C\"",
    )
    .bind(servers)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(server, url, state)| (server, EndpointStatus { url, state: state.into() })).collect())
}

/// All of them, sorted by server and URL.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<Row>, Error> {
    let rows: Vec<(String, Uuid, String, i16)> = sqlx::query_as(
        "SELECT o.pool, e.server_id, e.url, e.state FROM endpoint_states e JOIN mcp_servers s ON s.id = e.server_id \
         JOIN organizations o ON o.id = s.org_id ORDER BY e.server_id, e.url COLLATE \"C\"",
    )
    .fetch_all(connection)
    .await?;
    let row =
        |(pool, server, url, state): (_, _, _, i16)| Row { pool, server, status: EndpointStatus { url, state: state.into() } };
    Ok(rows.into_iter().map(row).collect())
}

/// Says what state an endpoint is in, and wakes publishers: no version tells them.
pub async fn set(connection: &mut PgConnection, server: Uuid, url: &str, state: EndpointState, actor: &str) -> Result<(), Error> {
    match state {
        EndpointState::Unspecified | EndpointState::Active => {
            sqlx::query("DELETE FROM endpoint_states WHERE server_id = $1 AND url = $2")
                .bind(server)
                .bind(url)
                .execute(&mut *connection)
                .await?;
        }
        EndpointState::Drained => {
            sqlx::query(
                "INSERT INTO endpoint_states (server_id, url, state, actor) VALUES ($1, $2, $3, $4) ON CONFLICT (server_id, url) \
                 DO UPDATE SET state = excluded.state, actor = excluded.actor, at = now() WHERE endpoint_states.state <> excluded.state",
            )
            .bind(server)
            .bind(url)
            .bind(small_of(state.into()))
            .bind(actor)
            .execute(&mut *connection)
            .await?;
        }
    }
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(connection).await?;
    Ok(())
}

/// Forgets endpoints that the server does not have any more: one that comes back is a new one.
pub async fn prune(connection: &mut PgConnection, server: Uuid, urls: &[String]) -> Result<(), Error> {
    let gone = sqlx::query("DELETE FROM endpoint_states WHERE server_id = $1 AND url <> ALL ($2)").bind(server).bind(urls);
    gone.execute(connection).await?;
    Ok(())
}
