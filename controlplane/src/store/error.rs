//! What can go wrong with the store, sorted by what the caller may do about it.
//!
//! SQL and constraint names stay here: they are sources for the log, never part of a message.

use crate::domain::Violation;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} does not exist")]
    NotFound(String),
    #[error("{0} exists already")]
    Taken(String),
    #[error("{0} has changed since it was read: read it again and repeat the change")]
    Stale(String),
    #[error("the request is not valid")]
    Invalid(Vec<Violation>),
    #[error("{0}")]
    Precondition(String),
    #[error("changed at the same time by somebody else: try again")]
    Contended,
    #[error("the database is away: try again later")]
    Away(#[source] sqlx::Error),
    #[error("{0}")]
    Settings(String),
    #[error("the database holds a value that this version does not understand: {0}")]
    Corrupt(String),
    #[error("the database refused a statement")]
    Internal(#[source] sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => Self::Away(error),
            E::Database(database) => match database.code().as_deref() {
                // serialization failure, deadlock, lock timeout
                Some("40001" | "40P01" | "55P03") => Self::Contended,
                // connection exceptions, shutdown, start-up, too many connections, statement timeout, out of disk or memory
                Some(code) if code.starts_with("08") || code.starts_with("57") || code.starts_with("53") => Self::Away(error),
                // Postgres keeps no zero byte in a text, and no row can have one.
                Some("22021") => Self::Invalid(vec![Violation::new("", "expected texts without zero bytes")]),
                _ => Self::Internal(error),
            },
            _ => Self::Internal(error),
        }
    }
}

impl Error {
    /// Whether a row holds what this version does not understand: asking again would not help, and other rows are well.
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Corrupt(_) => true,
            Self::Internal(cause) => matches!(cause, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)),
            Self::NotFound(_) | Self::Taken(_) | Self::Stale(_) | Self::Invalid(_) | Self::Precondition(_) => false,
            Self::Contended | Self::Away(_) | Self::Settings(_) => false,
        }
    }
}

/// Translates the violation of a named constraint where the query is.
pub trait OnConstraint<T> {
    /// `Err(translated())` if exactly this constraint was violated.
    fn on_constraint(self, name: &str, translated: impl FnOnce() -> Error) -> Result<T, Error>;
}

impl<T> OnConstraint<T> for Result<T, sqlx::Error> {
    fn on_constraint(self, name: &str, translated: impl FnOnce() -> Error) -> Result<T, Error> {
        self.map_err(|error| match error.as_database_error().and_then(|d| d.constraint()) {
            Some(found) if found == name => translated(),
            _ => Error::from(error),
        })
    }
}
