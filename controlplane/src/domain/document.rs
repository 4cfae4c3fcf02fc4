//! Resources as documents: the JSON form of the admin API, without what only answers carry. What history keeps and compares.
//!
//! Pure. Written by the nouns of `api` into `store::change`, read by [`super::diff`] and by rollback.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

/// What the parts of the API that look at messages by reflection share.
pub static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(mcp_gateway::proto::DESCRIPTORS).expect("the descriptors were made at build time"));

/// Fields of answers. `uid` stays: under it a deleted resource comes back.
const OUTPUT_ONLY: [&str; 7] = ["name", "etag", "createTime", "updateTime", "configVersion", "endpointPath", "initialPassword"];

/// The document of a resource of the admin API.
pub fn of<M: Message + Name>(resource: &M) -> Value {
    let dynamic = DynamicMessage::decode(descriptor::<M>(), resource.encode_to_vec().as_slice())
        .expect("both sides were made from the same descriptors");
    let mut document = serde_json::to_value(&dynamic).expect("a message of the admin API has a JSON form");
    if let Value::Object(fields) = &mut document {
        fields.retain(|field, _| !OUTPUT_ONLY.contains(&field.as_str()));
    }
    document
}

/// The resource of a document; none: it has another form than this version knows.
pub fn read<M: Message + Name + Default>(document: &Value) -> Option<M> {
    let dynamic = DynamicMessage::deserialize(descriptor::<M>(), document.clone()).ok()?;
    dynamic.transcode_to().ok()
}

/// The text in a field of a document.
pub fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn descriptor<M: Name>() -> MessageDescriptor {
    DESCRIPTORS.get_message_by_name(&M::full_name()).expect("every message of the admin API is in the descriptors")
}

#[cfg(test)]
mod tests {
    use mcp_gateway::proto::{
        admin::v1::{Policy, Server},
        config::v1::{Effect, Endpoint, Subjects},
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_the_resource_without_what_only_answers_carry_and_reads_back() {
        let server = Server {
            name: "organizations/acme/servers/time".into(),
            endpoints: vec![Endpoint { url: "http://a.example".into(), weight: 2 }],
            call_timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            etag: "x".into(),
            uid: "u".into(),
            config_version: 7,
            ..Default::default()
        };
        let document = of(&server);
        let expected = json!({ "endpoints": [{ "url": "http://a.example", "weight": 2 }], "callTimeout": "1.500s", "uid": "u" });
        assert_eq!(document, expected);
        let blank = Server { name: String::new(), etag: String::new(), config_version: 0, ..server };
        assert_eq!(read::<Server>(&document), Some(blank));

        let subjects = Some(Subjects { roles: vec!["a".into()], ..Default::default() });
        let policy = Policy { effect: Effect::Deny.into(), subjects, ..Default::default() };
        assert_eq!(of(&policy), json!({ "effect": "EFFECT_DENY", "subjects": { "roles": ["a"] } }));
        assert_eq!(read::<Policy>(&json!({ "no such field": 1 })), None);
    }
}
