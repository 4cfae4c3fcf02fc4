//! A difference between configurations for people: a line per resource, and under it what each field was and is.
//!
//! No colours: it is read in terminals, logs and reviews alike. Called by `output` only.

use mcp_gateway::proto::admin::v1::{ConfigDiff, FieldDiff, ResourceDiff};

/// `+` is new, `-` is gone, `~` has changed.
pub fn table(diff: &ConfigDiff) -> String {
    if diff.resources.is_empty() && diff.resources_omitted == 0 {
        return "no difference\n".into();
    }
    let mut text: String = diff.resources.iter().map(resource).collect();
    if diff.resources_omitted > 0 {
        text.push_str(&format!("… and {} more\n", diff.resources_omitted));
    }
    text
}

fn resource(resource: &ResourceDiff) -> String {
    let sign = match resource.operation.as_str() {
        "create" => '+',
        "delete" => '-',
        _ => '~',
    };
    let fields: String = resource.fields.iter().map(field).collect();
    super::one_line(format!("{sign} {} {}", resource.kind, resource.resource)) + "\n" + &fields
}

fn field(field: &FieldDiff) -> String {
    let line = |sign: char, value: &String| match value.as_str() {
        "" => String::new(),
        value => super::one_line(format!("    {sign} {}: {value}", field.field)) + "\n",
    };
    line('-', &field.before) + &line('+', &field.after)
}
