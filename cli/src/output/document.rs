//! What `-f` reads: a resource as YAML or JSON, with the JSON names of its proto, as `-o yaml` writes it.
//! Never reads files itself. Called by the create and update verbs.

use anyhow::{Context as _, bail};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::descriptor;

/// Set by the server, whatever a document says. `etag` is read, but is no field to change.
const OUTPUT_ONLY: [&str; 8] =
    ["name", "uid", "etag", "create_time", "update_time", "config_version", "endpoint_path", "revoke_time"];

/// A resource and which of its fields the document sets, in the proto's own spelling: the update mask.
#[derive(Debug)]
pub struct Document<T> {
    pub resource: T,
    pub fields: Vec<String>,
}

impl<T: Message + Name + Default> Document<T> {
    /// Unknown fields are refused; enum values may be written short (`allow` for `EFFECT_ALLOW`).
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let descriptor = descriptor::<T>()?;
        let value: Value = serde_saphyr::from_str(text)?;
        let Value::Object(mut object) = value else {
            bail!("expected a map of the fields of {}", descriptor.name());
        };
        spell_out_enums(&descriptor, &mut object);
        let fields = object.keys().filter_map(|key| field(&descriptor, key)).map(|it| it.name().to_owned());
        let fields = fields.filter(|name| !OUTPUT_ONLY.contains(&name.as_str())).collect();
        let message = DynamicMessage::deserialize(descriptor.clone(), Value::Object(object))
            .with_context(|| format!("not a {}", descriptor.name()))?;
        let resource = T::decode(message.encode_to_vec().as_slice())?;
        Ok(Self { resource, fields })
    }
}

fn field(descriptor: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_json_name(key).or_else(|| descriptor.get_field_by_name(key))
}

/// Turns `effect: allow` into `effect: EFFECT_ALLOW`, at every depth. What fits nowhere is left for the parser to refuse.
fn spell_out_enums(descriptor: &MessageDescriptor, object: &mut Map<String, Value>) {
    for (key, value) in object.iter_mut() {
        match field(descriptor, key).map(|it| it.kind()) {
            Some(Kind::Enum(kind)) => {
                let Some(short) = value.as_str() else {
                    continue;
                };
                let prefix = screaming_snake(kind.name());
                let full = format!("{prefix}_{}", short.to_uppercase().replace('-', "_"));
                if kind.get_value_by_name(&full).is_some() {
                    *value = Value::String(full);
                }
            }
            Some(Kind::Message(nested)) => match value {
                Value::Object(object) => spell_out_enums(&nested, object),
                Value::Array(items) => {
                    items.iter_mut().filter_map(Value::as_object_mut).for_each(|it| spell_out_enums(&nested, it));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            },
            // A scalar or an unknown name.
            Some(_) | None => {}
        }
    }
}

/// `AuditFullAction` as its values start: `AUDIT_FULL_ACTION`.
fn screaming_snake(camel: &str) -> String {
    let mut out = String::new();
    for (index, c) in camel.chars().enumerate() {
        if c.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(c.to_uppercase());
    }
    out
}
