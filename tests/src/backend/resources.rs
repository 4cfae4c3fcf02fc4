//! The backend's resources: the suite's static ones and its template.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::tools::PIXEL_PNG;

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
const WATCHED: &str = "test://watched-resource";

pub(super) fn list() -> Vec<Resource> {
    let described = |uri: &str, name: &str, kind: &str| {
        Resource::new(uri, name).with_description(format!("{name} of the suite")).with_mime_type(kind)
    };
    vec![
        described(TEXT, "Static text", "text/plain"),
        described(BINARY, "Static binary", "image/png"),
        described(WATCHED, "Watched resource", "text/plain"),
    ]
}

pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("test://template/{id}/data", "Data by id")
            .with_description("Any id gives a document about it")
            .with_mime_type("application/json"),
    ]
}

pub(super) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let contents = match uri {
        TEXT => ResourceContents::text("This is the content of the static text resource.", uri).with_mime_type("text/plain"),
        BINARY => ResourceContents::blob(PIXEL_PNG, uri).with_mime_type("image/png"),
        WATCHED => ResourceContents::text("Watch me.", uri).with_mime_type("text/plain"),
        _ => templated(uri)?,
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

fn templated(uri: &str) -> Result<ResourceContents, ErrorData> {
    let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data")).ok_or_else(|| {
        let data = json!({ "uri": uri });
        ErrorData::resource_not_found(format!("there is no resource {uri}"), Some(data))
    })?;
    let document = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
    Ok(ResourceContents::text(document.to_string(), uri).with_mime_type("application/json"))
}
