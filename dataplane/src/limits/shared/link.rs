//! The connection to Redis: one, pipelined, to a server or to a Cluster. Owns credentials, TLS and deadlines; knows no counts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates, Value};
use secrecy::{ExposeSecret, SecretString};

use super::script::{Answer, Ask, Broken, Script, answers};
use crate::config;
use crate::limits::Stats;

/// Until a connection must stand.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Why Redis said nothing.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("redis.{setting} {}: {source}", path.display())]
    File { setting: &'static str, path: PathBuf, source: std::io::Error },
    #[error("there is no connection")]
    NoConnection,
    #[error("no answer within {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("the connection broke: {0}")]
    Lost(RedisError),
    #[error(transparent)]
    Refused(#[from] RedisError),
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl LinkError {
    /// Whether asking again is of no use until there is a new connection.
    pub fn is_final(&self) -> bool {
        match self {
            Self::NoConnection | Self::Lost(_) | Self::File { .. } => true,
            Self::Slow(_) | Self::Refused(_) | Self::Broken(_) => false,
        }
    }
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// See the module.
pub(super) struct Link {
    settings: config::Redis,
    script: Script,
    connection: ArcSwapOption<Connection>,
}

impl Link {
    pub fn new(settings: config::Redis) -> Self {
        Self { settings, script: Script::default(), connection: ArcSwapOption::empty() }
    }

    /// Makes a connection; credentials are read anew each time.
    pub async fn connect(&self) -> Result<(), LinkError> {
        let password = self.password()?;
        let certificates = self.certificates()?;
        let connection = within(CONNECT_DEADLINE, self.dial(password, certificates)).await?;
        self.connection.store(Some(Arc::new(connection)));
        Ok(())
    }

    pub fn hang_up(&self) {
        self.connection.store(None);
    }

    /// Whether anybody answers.
    pub async fn ping(&self) -> Result<(), LinkError> {
        let connection = self.connection.load_full().ok_or(LinkError::NoConnection)?;
        within(CONNECT_DEADLINE, self.send(&connection, &redis::cmd("PING"))).await.map(drop)
    }

    /// What the script says, within the deadline of a call.
    pub async fn decide(&self, asks: &[Ask<'_>], stats: &Stats) -> Result<Vec<Answer>, LinkError> {
        let started = Instant::now();
        let answers = self.run(asks, self.settings.deadline).await?;
        stats.answered(started.elapsed());
        Ok(answers)
    }

    /// What the script says to what no call waits for.
    pub async fn tell(&self, ask: &Ask<'_>) -> Result<Answer, LinkError> {
        let answers = self.run(std::slice::from_ref(ask), CONNECT_DEADLINE.max(self.settings.deadline)).await?;
        Ok(answers.first().copied().unwrap_or_default())
    }

    async fn run(&self, asks: &[Ask<'_>], deadline: Duration) -> Result<Vec<Answer>, LinkError> {
        let connection = self.connection.load_full().ok_or(LinkError::NoConnection)?;
        let asked = async {
            match self.send(&connection, &self.script.by_name(asks)).await {
                // It is another Redis, or it was started again.
                Err(LinkError::Refused(error)) if error.code() == Some("NOSCRIPT") => {
                    self.send(&connection, &self.script.in_full(asks)).await
                }
                said => said,
            }
        };
        Ok(answers(&within(deadline, asked).await?, asks.len())?)
    }

    async fn send(&self, connection: &Arc<Connection>, command: &Cmd) -> Result<Value, LinkError> {
        let said = match (**connection).clone() {
            Connection::Single(mut connection) => command.query_async::<Value>(&mut connection).await,
            Connection::Cluster(mut connection) => command.query_async::<Value>(&mut connection).await,
        };
        said.map_err(|error| {
            // A Cluster's connection mends itself.
            let broken = matches!(**connection, Connection::Single(_)) && error.is_unrecoverable_error();
            // What broke may be a connection that has been replaced.
            let current = self.connection.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, connection));
            if broken && current { LinkError::Lost(error) } else { LinkError::Refused(error) }
        })
    }

    async fn dial(&self, password: Option<SecretString>, certificates: Option<TlsCertificates>) -> Result<Connection, LinkError> {
        let infos = self.addresses(password.as_ref())?;
        if self.settings.cluster {
            let builder = ClusterClientBuilder::new(infos).connection_timeout(CONNECT_DEADLINE).retries(2);
            let builder = certificates.into_iter().fold(builder, ClusterClientBuilder::certs);
            return Ok(Connection::Cluster(builder.build()?.get_async_connection().await?));
        }
        let info = infos.into_iter().next().ok_or(LinkError::NoConnection)?;
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        };
        // Deadlines are set where it is asked.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(Some(CONNECT_DEADLINE));
        Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&patient).await?))
    }

    fn addresses(&self, password: Option<&SecretString>) -> Result<Vec<ConnectionInfo>, RedisError> {
        let mut infos = Vec::new();
        for url in self.settings.urls() {
            let info = url.into_connection_info()?;
            let mut access = info.redis_settings().clone();
            if let Some(username) = &self.settings.username {
                access = access.set_username(username);
            }
            if let Some(password) = password {
                access = access.set_password(password.expose_secret());
            }
            infos.push(info.set_redis_settings(access));
        }
        Ok(infos)
    }

    fn password(&self) -> Result<Option<SecretString>, LinkError> {
        let Some(path) = &self.settings.password_file else { return Ok(self.settings.password.clone()) };
        let text = read("password_file", path)?;
        Ok(Some(text.trim().to_owned().into()))
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, LinkError> {
        let Some(path) = &self.settings.ca_file else { return Ok(None) };
        Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(read("ca_file", path)?.into_bytes()) }))
    }
}

async fn within<T>(deadline: Duration, asked: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    tokio::time::timeout(deadline, asked).await.unwrap_or(Err(LinkError::Slow(deadline)))
}

fn read(setting: &'static str, path: &std::path::Path) -> Result<String, LinkError> {
    std::fs::read_to_string(path).map_err(|source| LinkError::File { setting, path: path.to_owned(), source })
}
