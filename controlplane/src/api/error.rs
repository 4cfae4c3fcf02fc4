//! Every way an admin call can fail, and the one table that turns each into a gRPC status.
//!
//! Messages name the thing and the remedy; causes go to the log under an id, never to the caller.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};
use tracing::error;

use crate::{domain::Violation, keys, open, store};

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No credential, or not a good one. One text for all reasons that a guesser could tell apart.
    #[error("{0}")]
    Unauthenticated(&'static str),
    #[error("{0}")]
    Denied(String),
    /// Also what callers of another organisation get.
    #[error("{0} does not exist, or is not yours to see")]
    NotFound(String),
    #[error("{0} exists already")]
    AlreadyExists(String),
    #[error("{0} has changed since it was read: read it again and repeat the change")]
    Stale(String),
    #[error("changed at the same time by somebody else: try again")]
    Contended,
    #[error("{0}")]
    Precondition(String),
    /// Others name it.
    #[error("{what} is named by {}: change or delete what names it first", .by.join(", "))]
    InUse { what: String, by: Vec<String> },
    #[error("the request is not valid")]
    Invalid(Vec<Violation>),
    #[error("too many sign-ins at once: try again in a moment")]
    Busy,
    #[error("too many sign-ins from your address failed: try again in {} s", .wait.as_secs() + 1)]
    TooManyFailed { wait: Duration },
    #[error("{0}")]
    Exhausted(&'static str),
    #[error("{0}")]
    Unavailable(&'static str),
    #[error("the database is away: try again later")]
    Away,
    #[error("an internal error; the log has it under {id}")]
    Internal { id: uuid::Uuid },
}

impl Error {
    /// One violation.
    pub fn invalid(field: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::new(field, expected)])
    }

    /// What no caller can mend: logged here, once.
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        let id = uuid::Uuid::now_v7();
        error!(%id, cause = %open::chain(cause), "an admin call failed");
        Self::Internal { id }
    }

    fn code(&self) -> Code {
        match self {
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Denied(_) => Code::PermissionDenied,
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::Stale(_) | Self::Contended => Code::Aborted,
            Self::Precondition(_) | Self::InUse { .. } => Code::FailedPrecondition,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Busy | Self::TooManyFailed { .. } | Self::Exhausted(_) => Code::ResourceExhausted,
            Self::Away | Self::Unavailable(_) => Code::Unavailable,
            Self::Internal { .. } => Code::Internal,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.code();
        if let Error::InUse { by, .. } = &error {
            let named = |name: &String| PreconditionViolation::new("IN_USE", name, "names what was to be deleted");
            let details = ErrorDetails::with_precondition_failure(by.iter().map(named).collect::<Vec<_>>());
            return Self::with_error_details(code, error.to_string(), details);
        }
        if let Error::TooManyFailed { wait } = error {
            return Self::with_error_details(code, error.to_string(), ErrorDetails::with_retry_info(Some(wait)));
        }
        let Error::Invalid(violations) = error else { return Self::new(code, error.to_string()) };
        let text = violations.iter().map(|v| format!("{}: {}", v.field, v.expected)).collect::<Vec<_>>().join("; ");
        let fields: Vec<FieldViolation> = violations.into_iter().map(|v| FieldViolation::new(v.field, v.expected)).collect();
        Self::with_error_details(code, text, ErrorDetails::with_bad_request(fields))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NotFound(what) => Self::NotFound(what),
            store::Error::Taken(what) => Self::AlreadyExists(what),
            store::Error::Stale(what) => Self::Stale(what),
            store::Error::Invalid(violations) => Self::Invalid(violations),
            store::Error::Precondition(why) => Self::Precondition(why),
            store::Error::Contended => Self::Contended,
            store::Error::Away(cause) => {
                tracing::warn!(%cause, "the database is away");
                Self::Away
            }
            store::Error::Settings(_) | store::Error::Corrupt(_) | store::Error::Internal(_) => Self::internal(&error),
        }
    }
}

impl From<keys::Error> for Error {
    fn from(error: keys::Error) -> Self {
        match error {
            keys::Error::NotLoaded => Self::Away,
            keys::Error::Store(error) => error.into(),
            keys::Error::WrongMasterKey { .. } | keys::Error::Malformed { .. } | keys::Error::Unreadable => {
                Self::internal(&error)
            }
        }
    }
}
