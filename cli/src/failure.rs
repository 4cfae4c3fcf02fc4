//! Why a command failed, as an exit code and as text on stderr.
//! Owns the exit codes; never decides whether something is a failure. Called by `main`.

use std::fmt::Write as _;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Printed by `mcpgw --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage: flags, values, or fields that the server refuses
  3  not found
  4  not signed in, or not allowed
  5  conflict: stale etag, name taken, something still refers to it
  6  unreachable or too slow, or some nodes did not answer that had to";

/// A failure with an exit code of its own. Everything else exits with 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Rpc(#[from] Box<Status>),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Rpc(Box::new(status))
    }
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::Unreachable(_) => 6,
            Self::Rpc(status) => rpc_exit_code(status.code()),
        }
    }
}

fn rpc_exit_code(code: Code) -> u8 {
    match code {
        Code::InvalidArgument | Code::OutOfRange => 2,
        Code::NotFound => 3,
        Code::Unauthenticated | Code::PermissionDenied => 4,
        Code::Aborted | Code::AlreadyExists | Code::FailedPrecondition => 5,
        // Cancelled is what our own deadline looks like: nothing else cancels a call.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => 6,
        Code::Ok | Code::Unknown | Code::ResourceExhausted | Code::Unimplemented | Code::Internal | Code::DataLoss => 1,
    }
}

/// The exit code of an error; 0 when the reader of our output went away.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(is_broken_pipe) {
        return 0;
    }
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(1, Failure::exit_code)
}

/// Whether something is not there.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    exit_code(error) == 3
}

/// Whether something could not be reached, or not now.
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    exit_code(error) == 6
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What stderr says: one line, then one line per refused field.
pub fn describe(error: &anyhow::Error) -> String {
    let status = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(Failure::Rpc(status)) => Some(status),
        _ => None,
    });
    let Some(status) = status else {
        return format!("error: {}", chain(error));
    };
    let mut text = format!("error: {}: {}", code_name(status.code()), status.message());
    let details = status.get_error_details();
    let violations = details.bad_request().map(|it| it.field_violations.as_slice());
    for violation in violations.unwrap_or_default() {
        let _ = write!(text, "\n  {}: {}", violation.field, violation.description);
    }
    let preconditions = details.precondition_failure().map(|it| it.violations.as_slice());
    for violation in preconditions.unwrap_or_default() {
        let _ = write!(text, "\n  {}: {}", violation.subject, violation.description);
    }
    for link in details.help().map(|it| it.links.as_slice()).unwrap_or_default() {
        let _ = write!(text, "\n  {}: {}", link.description, link.url);
    }
    text
}

/// The message with its causes; many messages repeat their cause already.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            let _ = write!(text, ": {cause}");
        }
    }
    text
}

/// The name of a gRPC code as the protocol's documents write it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn every_field_violation_has_a_line() {
        let mut details = ErrorDetails::new();
        details
            .add_bad_request_violation("server.endpoints", "at least one")
            .add_bad_request_violation("server_id", "1 to 63 characters");
        let status = Status::with_error_details(Code::InvalidArgument, "2 problems", details);
        let error = anyhow::Error::new(Failure::from(status));
        assert_eq!(
            describe(&error),
            "error: INVALID_ARGUMENT: 2 problems\n  server.endpoints: at least one\n  server_id: 1 to 63 characters"
        );
        assert_eq!(exit_code(&error), 2);
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let busy = || std::io::Error::other("address in use");
        let error = anyhow::Error::new(busy()).context(format!("listening on :80: {}", busy()));
        assert_eq!(describe(&error), "error: listening on :80: address in use");
        let error = anyhow::Error::new(busy()).context("listening on :80");
        assert_eq!(describe(&error), "error: listening on :80: address in use");
    }

    #[test]
    fn exit_codes_follow_the_documented_table() {
        let table = [
            (Code::Internal, 1),
            (Code::InvalidArgument, 2),
            (Code::NotFound, 3),
            (Code::Unauthenticated, 4),
            (Code::PermissionDenied, 4),
            (Code::Aborted, 5),
            (Code::AlreadyExists, 5),
            (Code::Unavailable, 6),
            (Code::DeadlineExceeded, 6),
        ];
        for (code, expected) in table {
            let error = anyhow::Error::new(Failure::from(Status::new(code, "x"))).context("doing");
            assert_eq!(exit_code(&error), expected, "{code:?}");
        }
        assert_eq!(exit_code(&anyhow::anyhow!("plain")), 1);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(exit_code(&anyhow::Error::new(gone).context("printing")), 0);
    }
}
