//! Where in a document a problem of its compiled form lies.

use super::Fault;
use crate::snapshot::Problem;

/// The problem by its path in the document that [`crate::snapshot::check_org`] or `compile` found it in.
#[must_use]
pub fn fault(problem: &Problem) -> Fault {
    let path = match problem {
        Problem::InvalidServer { server, field, .. } => format!("servers.{server}.{field}"),
        Problem::NoEndpoint { server } => format!("servers.{server}.endpoints"),
        Problem::InvalidUrl { server, index, .. } => format!("servers.{server}.endpoints[{index}].url"),
        Problem::BodyLimit { server, .. } => format!("servers.{server}.max_body_bytes"),
        Problem::DanglingCredential { server, .. } => format!("servers.{server}.upstream_credential"),
        Problem::DanglingServer { policy, index, .. } => format!("policies.{policy}.servers[{index}]"),
        Problem::NoServers { policy } => format!("policies.{policy}.servers"),
        Problem::NoSubjects { policy } => format!("policies.{policy}.subjects"),
        Problem::EmptyMatch { policy } => format!("policies.{policy}.match"),
        Problem::InvalidPattern { policy, field, index, .. } => format!("policies.{policy}.{field}[{index}]"),
        Problem::MethodsOnAllow { policy } => format!("policies.{policy}.match.methods"),
        Problem::ConditionUnsupported { policy } => format!("policies.{policy}.when"),
        Problem::LimitedServer { limit, index, .. } => format!("limits.{limit}.servers[{index}]"),
        Problem::InvalidLimit { limit, field, .. } => format!("limits.{limit}.{field}"),
        Problem::InvalidCapture { field, .. } => format!("capture.{field}"),
        Problem::InvalidOrigin { index, .. } => format!("allowed_origins[{index}]"),
        Problem::UnknownEnum { resource, field, .. } | Problem::InvalidSlug { resource, field, .. } => named(resource, field),
        // Of the compiled form only: a document as read cannot have it.
        other => return Fault::new("", other.to_string()),
    };
    // `server github: endpoints: at least one is expected`: the path has said the first two.
    let text = problem.to_string();
    let expected = text.splitn(3, ": ").nth(2).unwrap_or(&text).to_owned();
    Fault::new(path, expected)
}

fn named(resource: &str, field: &str) -> String {
    match resource.split_once(' ') {
        // The name of an entry is its key.
        Some(("server", slug)) if field == "slug" => format!("servers.{slug}"),
        Some(("policy", name)) if field == "name" => format!("policies.{name}"),
        Some(("limit", name)) if field == "name" => format!("limits.{name}"),
        Some(("server", slug)) => format!("servers.{slug}.{field}"),
        Some(("policy", name)) => format!("policies.{name}.{field}"),
        Some(("limit", name)) => format!("limits.{name}.{field}"),
        _ if field == "slug" => "organization".to_owned(),
        Some(_) | None => field.to_owned(),
    }
}
