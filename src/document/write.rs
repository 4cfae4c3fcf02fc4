//! A message as a text that [`super::read`] takes: fields in the order of the proto, enum values short, defaults left out.

use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use super::read::{DESCRIPTORS, short};

/// A message, ready to be written as YAML or JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    /// Fields or entries, in order.
    Map(Vec<(String, Written)>),
    /// Elements, in order.
    List(Vec<Written>),
    /// Anything plain.
    Plain(Value),
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Map(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Self::List(items) => {
                let mut list = to.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Plain(value) => value.serialize(to),
        }
    }
}

/// The message as it is written; `None` only for a message that the contract does not have.
pub fn written<T: Message + Name>(message: &T) -> Option<Written> {
    let descriptor = DESCRIPTORS.get_message_by_name(&T::full_name())?;
    let dynamic = DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice()).ok()?;
    Some(ordered(&descriptor, serde_json::to_value(dynamic).ok()?))
}

fn ordered(descriptor: &MessageDescriptor, value: Value) -> Written {
    let Value::Object(mut object) = value else { return Written::Plain(value) };
    let fields = descriptor.fields().filter_map(|field| {
        let value = object.remove(field.json_name())?;
        Some((field.json_name().to_owned(), written_field(&field, value)))
    });
    Written::Map(fields.collect())
}

fn written_field(field: &FieldDescriptor, value: Value) -> Written {
    match (value, field.kind()) {
        (Value::Object(entries), Kind::Message(entry)) if field.is_map() => {
            let kind = entry.map_entry_value_field();
            Written::Map(entries.into_iter().map(|(name, value)| (name, single(&kind, value))).collect())
        }
        (Value::Array(items), _) if field.is_list() => Written::List(items.into_iter().map(|item| single(field, item)).collect()),
        (value, _) => single(field, value),
    }
}

fn single(field: &FieldDescriptor, value: Value) -> Written {
    match (field.kind(), value) {
        (Kind::Message(nested), value) if !nested.full_name().starts_with("google.protobuf.") => ordered(&nested, value),
        // JSON writes numbers of 64 bits as texts; people write them as numbers.
        (Kind::Uint64, Value::String(digits)) => {
            Written::Plain(digits.parse().map_or(Value::String(digits), |it: u64| it.into()))
        }
        (Kind::Enum(kind), Value::String(full)) => Written::Plain(Value::String(short(&kind, &full))),
        (_, value) => Written::Plain(value),
    }
}
