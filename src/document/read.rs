//! Text to a message: every unknown field, wrong value and missing secret by its path, all at once.
//! Never reads files itself: values that lie elsewhere come from the caller's reader of [`Source`]s.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::{Fault, Faults};

pub(super) static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(crate::proto::DESCRIPTORS).expect("the build wrote these descriptors"));

/// Set by the server, whatever a document says. `etag` is read, but is no field to change.
const OUTPUT_ONLY: [&str; 10] = [
    "name",
    "uid",
    "etag",
    "create_time",
    "update_time",
    "config_version",
    "endpoint_path",
    "endpoint_states",
    "found_out",
    "revoke_time",
];
/// The message whose value may lie outside of the document.
const CREDENTIAL: &str = "mcpgw.admin.v1.UpstreamCredential";

const TEXT: &str = "expected a text, in quotes if it looks like something else";

/// Where the value of a credential lies that is not in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// `value_env`: an environment variable.
    Variable(&'a str),
    /// `value_file`: a file; a relative path means from where the document lies. A last line end is not part of the value.
    File(&'a str),
}

/// A resource and which of its fields the document sets, in the proto's own spelling: the update mask.
#[derive(Debug)]
pub struct Document<T> {
    pub resource: T,
    pub fields: Vec<String>,
}

impl<T: Message + Name + Default> Document<T> {
    /// Unknown fields are refused; enum values may be written short (`allow` for `EFFECT_ALLOW`). `source` gives values that lie
    /// elsewhere, or says why not.
    pub fn parse(text: &str, source: &mut dyn FnMut(Source<'_>) -> Result<String, String>) -> Result<Self, Faults> {
        let whole = |expected: String| Faults(vec![Fault::new("", expected)]);
        let descriptor = DESCRIPTORS
            .get_message_by_name(&T::full_name())
            .ok_or_else(|| whole(format!("message {} is not in the descriptor set", T::full_name())))?;
        // Without the snippet: the line that it shows may hold a secret.
        let value: Value = serde_saphyr::from_str(text).map_err(|error| whole(error.without_snippet().to_string()))?;
        let Value::Object(mut object) = value else {
            return Err(whole(format!("expected a map of the fields of {}", descriptor.name())));
        };
        let mut reader = Reader { source, faults: Vec::new() };
        reader.message(&descriptor, &mut object, "");
        if !reader.faults.is_empty() {
            return Err(Faults(reader.faults));
        }
        let fields = object.keys().filter_map(|key| field(&descriptor, key)).map(|it| it.name().to_owned());
        let fields = fields.filter(|name| !OUTPUT_ONLY.contains(&name.as_str())).collect();
        let message = DynamicMessage::deserialize_with(descriptor, object).map_err(whole)?;
        let resource = T::decode(message.encode_to_vec().as_slice()).map_err(|error| whole(error.to_string()))?;
        Ok(Self { resource, fields })
    }
}

trait FromObject: Sized {
    fn deserialize_with(descriptor: MessageDescriptor, object: Map<String, Value>) -> Result<Self, String>;
}

impl FromObject for DynamicMessage {
    fn deserialize_with(descriptor: MessageDescriptor, object: Map<String, Value>) -> Result<Self, String> {
        Self::deserialize(descriptor, Value::Object(object)).map_err(|error| error.to_string())
    }
}

struct Reader<'r> {
    source: &'r mut dyn FnMut(Source<'_>) -> Result<String, String>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, path: &str, expected: impl Into<String>) {
        self.faults.push(Fault::new(path, expected));
    }

    /// Checks and completes the fields of a message in place.
    fn message(&mut self, descriptor: &MessageDescriptor, object: &mut Map<String, Value>, path: &str) {
        if descriptor.full_name() == CREDENTIAL {
            self.credential(object, path);
        }
        let mut seen = Vec::new();
        for (key, value) in object.iter_mut() {
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match field(descriptor, key) {
                None => self.fault(&at, unknown(descriptor, key)),
                Some(field) if seen.contains(&field.number()) => self.fault(&at, "is given twice, in two spellings"),
                Some(field) => {
                    seen.push(field.number());
                    self.field(&field, key, value, &at);
                }
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor, key: &str, value: &mut Value, path: &str) {
        if value.is_null() {
            return; // as if it were not there
        }
        match (value, field.kind()) {
            (Value::Object(entries), Kind::Message(entry)) if field.is_map() => {
                let kind = entry.map_entry_value_field();
                for (name, value) in entries {
                    self.single(&kind, kind.name(), value, &format!("{path}.{name}"));
                }
            }
            (_, _) if field.is_map() => self.fault(path, "expected a map"),
            (Value::Array(items), _) if field.is_list() => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.single(field, key, item, &format!("{path}[{index}]"));
                }
            }
            (_, _) if field.is_list() => self.fault(path, "expected a list"),
            (value, _) => self.single(field, key, value, path),
        }
    }

    /// One value of a field, an element of a list, or a value of a map.
    fn single(&mut self, field: &FieldDescriptor, key: &str, value: &mut Value, path: &str) {
        match field.kind() {
            Kind::Message(nested) if !nested.full_name().starts_with("google.protobuf.") => match value {
                Value::Object(object) => self.message(&nested, object, path),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    self.fault(path, format!("expected a map of the fields of {}", nested.name()));
                }
            },
            Kind::Enum(kind) => self.enumerated(&kind, value, path),
            // What is well known and what is plain is judged by the parser, each value alone.
            _ => {
                let alone = if field.is_list() { Value::Array(vec![value.clone()]) } else { value.clone() };
                let object = Map::from_iter([(key.to_owned(), alone)]);
                if let Err(found) = DynamicMessage::deserialize_with(field.parent_message().clone(), object) {
                    let secret = field.parent_message().full_name() == CREDENTIAL;
                    self.fault(path, if secret { TEXT.to_owned() } else { in_words(&field.kind(), found) });
                }
            }
        }
    }

    /// Turns `allow` into `EFFECT_ALLOW`.
    fn enumerated(&mut self, kind: &EnumDescriptor, value: &mut Value, path: &str) {
        let prefix = screaming_snake(kind.name());
        if let Some(short) = value.as_str() {
            let full = format!("{prefix}_{}", short.to_uppercase().replace('-', "_"));
            if kind.get_value_by_name(short).is_some() {
                return;
            }
            if kind.get_value_by_name(&full).is_some() {
                *value = Value::String(full);
                return;
            }
        }
        let known: Vec<String> = kind.values().filter(|it| it.number() != 0).map(|it| short(kind, it.name())).collect();
        self.fault(path, format!("expected one of {}, found {value}", known.join(", ")));
    }

    /// Puts in what `valueEnv` or `valueFile` names, in either spelling.
    fn credential(&mut self, object: &mut Map<String, Value>, path: &str) {
        let mut take = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, object.remove(name)?)));
        let (variable, file) = (take(["value_env", "valueEnv"]), take(["value_file", "valueFile"]));
        let given = [object.contains_key("value"), variable.is_some(), file.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            return self.fault(path, "expected one of value, valueEnv and valueFile");
        }
        let (name, place) = match (&variable, &file) {
            (Some((name, Value::String(variable))), _) => (name, Source::Variable(variable)),
            (_, Some((name, Value::String(file)))) => (name, Source::File(file)),
            (Some((name, _)), _) => return self.fault(&format!("{path}.{name}"), "expected the name of an environment variable"),
            (_, Some((name, _))) => return self.fault(&format!("{path}.{name}"), "expected the path of a file"),
            (None, None) => return,
        };
        match (self.source)(place) {
            Ok(value) if value.is_empty() => self.fault(&format!("{path}.{name}"), "expected a value there: it is empty"),
            Ok(value) => drop(object.insert("value".to_owned(), Value::String(value))),
            Err(why) => self.fault(&format!("{path}.{name}"), why),
        }
    }
}

/// What is expected of a value that the parser refused as `found`.
fn in_words(kind: &Kind, found: String) -> String {
    match kind {
        Kind::Message(known) if known.full_name() == "google.protobuf.Duration" => "expected seconds, such as 1.5s".into(),
        Kind::Message(known) if known.full_name() == "google.protobuf.Timestamp" => {
            "expected a moment, such as '2030-01-01T00:00:00Z'".into()
        }
        Kind::String => TEXT.to_owned(),
        _ => found,
    }
}

fn field(descriptor: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_json_name(key).or_else(|| descriptor.get_field_by_name(key))
}

fn unknown(descriptor: &MessageDescriptor, key: &str) -> String {
    let fields: Vec<FieldDescriptor> = descriptor.fields().collect();
    let near = fields.iter().map(|field| (strsim::jaro_winkler(key, field.json_name()), field.json_name()));
    match near.filter(|(closeness, _)| *closeness > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, near)) => format!("{} has no such field; did you mean {near}?", descriptor.name()),
        None => format!("{} has no such field", descriptor.name()),
    }
}

/// `allow`, of `EFFECT_ALLOW`.
pub(super) fn short(kind: &EnumDescriptor, full: &str) -> String {
    let prefix = format!("{}_", screaming_snake(kind.name()));
    full.strip_prefix(&prefix).unwrap_or(full).to_lowercase().replace('_', "-")
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
