//! Query parameters as a request message: named as in its JSON or its proto form, `a.b` for fields within fields, repeated for lists.
//! Everything that is wrong is said at once, with the parameter's name.

use prost::Message as _;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::super::error::Error;
use crate::domain::Violation;

/// Takes a parameter that is `true` or `false` out; absent is `false`, alone is `true`.
pub fn take_flag(parameters: &mut Vec<(String, String)>, name: &str) -> Result<bool, Error> {
    let values: Vec<String> = parameters.extract_if(.., |(parameter, _)| parameter == name).map(|(_, value)| value).collect();
    match values.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["false"] => Ok(false),
        ["true" | ""] => Ok(true),
        _ => Err(Error::invalid(name, "expected true or false, once")),
    }
}

/// The request that the parameters ask for.
pub fn message(descriptor: &MessageDescriptor, parameters: &[(String, String)]) -> Result<DynamicMessage, Error> {
    let mut whole = DynamicMessage::new(descriptor.clone());
    let mut wrong = Vec::new();
    let mut known: Vec<String> = Vec::new();
    for (name, value) in parameters {
        match one(descriptor, name, value) {
            Ok(part) => {
                if let Err(error) = whole.merge(part.message.encode_to_vec().as_slice()) {
                    wrong.push(Violation::new(name, error.to_string()));
                }
                if known.contains(&part.field) && !part.is_list {
                    wrong.push(Violation::new(name, "expected once"));
                }
                known.push(part.field);
            }
            Err(expected) => wrong.push(Violation::new(name, expected)),
        }
    }
    if wrong.is_empty() { Ok(whole) } else { Err(Error::Invalid(wrong)) }
}

/// A message with one field.
struct Part {
    message: DynamicMessage,
    /// The field's full name, however it was spelled.
    field: String,
    is_list: bool,
}

fn one(descriptor: &MessageDescriptor, name: &str, value: &str) -> Result<Part, String> {
    let mut path = Vec::new();
    let mut within = descriptor.clone();
    let mut names = name.split('.').peekable();
    let leaf = loop {
        let part = names.next().unwrap_or_default();
        let field = field(&within, part).ok_or_else(|| format!("unknown; expected one of {}", listed(&within)))?;
        match (names.peek(), field.kind()) {
            (None, _) => break field,
            (Some(_), Kind::Message(message)) if !field.is_list() && !field.is_map() => {
                path.push(field);
                within = message;
            }
            (Some(_), _) => return Err(format!("{part} has no fields")),
        }
    };
    let mut json = scalar(&leaf, value)?;
    if leaf.is_list() {
        json = Value::Array(vec![json]);
    }
    let mut full = leaf.json_name().to_owned();
    json = object(&leaf, json);
    for field in path.iter().rev() {
        full = format!("{}.{full}", field.json_name());
        json = object(field, json);
    }
    let message = DynamicMessage::deserialize(descriptor.clone(), json)
        .map_err(|error| format!("expected {}: {error}", expected(&leaf)))?;
    Ok(Part { message, field: full, is_list: leaf.is_list() })
}

fn object(field: &FieldDescriptor, value: Value) -> Value {
    Value::Object(Map::from_iter([(field.json_name().to_owned(), value)]))
}

fn field(within: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    within.get_field_by_json_name(name).or_else(|| within.get_field_by_name(name))
}

fn listed(within: &MessageDescriptor) -> String {
    within.fields().map(|field| field.json_name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// Text as the JSON mapping has it for the field: numbers and moments may be text there, truth may not.
fn scalar(field: &FieldDescriptor, value: &str) -> Result<Value, String> {
    match field.kind() {
        Kind::Bool => match value {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("expected true or false".into()),
        },
        Kind::Enum(names) => enumerated(&names, value).map(Value::String),
        Kind::Message(message) if !message.full_name().starts_with("google.protobuf.") => {
            Err(format!("expected its fields, such as {}.{}", field.json_name(), listed(&message)))
        }
        _ => Ok(Value::String(value.to_owned())),
    }
}

/// An enum's value by its name, or by its last words in any case.
fn enumerated(names: &EnumDescriptor, value: &str) -> Result<String, String> {
    let short = format!("_{}", value.to_uppercase().replace('-', "_"));
    let found = names.values().find(|it| it.name() == value || it.name().ends_with(&short)).filter(|it| it.number() != 0);
    let all = || names.values().filter(|it| it.number() != 0).map(|it| it.name().to_owned()).collect::<Vec<_>>().join(", ");
    found.map(|it| it.name().to_owned()).ok_or_else(|| format!("expected one of {}", all()))
}

fn expected(field: &FieldDescriptor) -> &'static str {
    match field.kind() {
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => "a moment such as 2026-01-31T12:00:00Z",
        Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => "a duration such as 300s",
        Kind::String | Kind::Bytes => "text",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::aip::DESCRIPTORS;

    fn read(message: &str, query: &[(&str, &str)]) -> Result<Value, Vec<String>> {
        let descriptor = DESCRIPTORS.get_message_by_name(&format!("mcpgw.admin.v1.{message}")).unwrap();
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match super::message(&descriptor, &query) {
            Ok(message) => Ok(serde_json::to_value(message).unwrap()),
            Err(Error::Invalid(violations)) => Err(violations.into_iter().map(|it| it.field).collect()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn parameters_are_the_fields_of_the_request() {
        let query = [
            ("parent", "organizations/acme"),
            ("groupBy", "server"),
            ("group_by", "STATS_DIMENSION_TARGET"),
            ("filter.server", "git*"),
            ("filter.outcome", "ok"),
            ("since", "2026-01-31T12:00:00Z"),
            ("step", "300s"),
            ("series", "7"),
        ];
        let expected = serde_json::json!({
            "parent": "organizations/acme",
            "groupBy": ["STATS_DIMENSION_SERVER", "STATS_DIMENSION_TARGET"],
            "filter": { "server": "git*", "outcome": "ok" },
            "since": "2026-01-31T12:00:00Z",
            "step": "300s",
            "series": 7,
        });
        assert_eq!(read("GetStatsRequest", &query), Ok(expected));
        assert_eq!(read("GetStatsRequest", &[]), Ok(serde_json::json!({})));
        let follow = read("FollowRequestLogsRequest", &[("includeOpen", "true")]);
        assert_eq!(follow, Ok(serde_json::json!({ "includeOpen": true })));
    }

    #[test]
    fn every_mistake_is_named() {
        let query = [
            ("unknown", "1"),
            ("series", "seven"),
            ("since", "yesterday"),
            ("step", "5 minutes"),
            ("groupBy", "colour"),
            ("groupBy", "unspecified"),
            ("filter", "server"),
            ("filter.colour", "red"),
            ("parent.x", "1"),
            ("until", "2026-01-31T12:00:00Z"),
            ("until", "2026-01-31T13:00:00Z"),
            ("", ""),
        ];
        let wrong =
            ["unknown", "series", "since", "step", "groupBy", "groupBy", "filter", "filter.colour", "parent.x", "until", ""];
        assert_eq!(read("GetStatsRequest", &query), Err(wrong.map(str::to_owned).to_vec()));
        assert_eq!(read("FollowRequestLogsRequest", &[("include_open", "1")]), Err(vec!["include_open".to_owned()]));
    }

    #[test]
    fn a_flag_is_taken_out() {
        let flag = |query: &[(&str, &str)]| {
            let mut query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            (take_flag(&mut query, "follow").ok(), query.len())
        };
        let table: [(&[(&str, &str)], _); 5] = [
            (&[("a", "b")], (Some(false), 1)),
            (&[("a", "b"), ("follow", "true")], (Some(true), 1)),
            (&[("follow", "")], (Some(true), 0)),
            (&[("follow", "1")], (None, 0)),
            (&[("follow", "true"), ("follow", "false")], (None, 0)),
        ];
        for (query, expected) in table {
            assert_eq!(flag(query), expected, "{query:?}");
        }
    }
}
