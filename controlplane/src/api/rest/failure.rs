//! A failed call as HTTP says it: a status code, and the google.rpc.Status that gRPC callers get, as JSON.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::super::error::Error;

/// See the module.
#[derive(Debug)]
pub struct Failure(pub Status);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (http_status(self.0.code()), axum::Json(body(&self.0))).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.0.code() == Code::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A google.rpc.Status.
pub fn body(status: &Status) -> Value {
    let details = status.get_error_details();
    let mut said = Vec::new();
    if let Some(bad) = details.bad_request() {
        let violations = bad.field_violations.iter().map(|it| json!({ "field": it.field, "description": it.description }));
        said.push(json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": violations.collect::<Vec<_>>(),
        }));
    }
    if let Some(failed) = details.precondition_failure() {
        let violation = |it: &tonic_types::PreconditionViolation| json!({ "type": it.r#type, "subject": it.subject, "description": it.description });
        said.push(json!({
            "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
            "violations": failed.violations.iter().map(violation).collect::<Vec<_>>(),
        }));
    }
    json!({ "code": i32::from(status.code()), "message": status.message(), "details": said })
}

/// As google.rpc.Code says.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
