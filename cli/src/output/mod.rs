//! Data on stdout as table, JSON or YAML; field names are the JSON names of the protos.
//! Owns stdout; talk goes to stderr and never through here. Called by every verb.

mod diff;
pub mod relative;
mod rows;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::sync::{Arc, LazyLock, OnceLock};

use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use mcp_gateway::proto::admin::v1::ConfigDiff;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _};
use serde::Serialize;
use serde_json::Value;

pub use rows::{Tabular, time};

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; not meant to be parsed
    Table,
    /// Protobuf's JSON mapping
    Json,
    /// The same as YAML; what `-f` reads
    Yaml,
}

static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(mcp_gateway::proto::DESCRIPTORS).expect("the build wrote these descriptors"));

/// Writes data to stdout in the chosen format.
#[derive(Debug, Clone)]
pub struct Output {
    pub format: Format,
    /// What a dry run would change: then that is the data, whatever the verb shows of the resource.
    dry_run: Arc<OnceLock<ConfigDiff>>,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format, dry_run: Arc::default() }
    }

    /// The call that was made was a dry run that would change this.
    pub fn would_change(&self, diff: ConfigDiff) {
        let _ = self.dry_run.set(diff); // a verb makes one change
    }

    /// A difference. As a table: + for new, - for gone, ~ for changed.
    pub fn diff(&self, diff: &ConfigDiff) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Table => diff::table(diff),
            Format::Json | Format::Yaml => structured(self.format, &reflect(diff)?)?,
        };
        self.write(&text)
    }

    /// One resource. As a table: a line per field.
    pub fn one<T: Message + Name>(&self, message: &T) -> anyhow::Result<()> {
        if let Some(diff) = self.dry_run.get() {
            return self.diff(diff);
        }
        self.write(&render_one(self.format, message)?)
    }

    /// A list of resources. As a table: a line per resource.
    pub fn many<T: Message + Name + Tabular>(&self, messages: &[T]) -> anyhow::Result<()> {
        if let Some(diff) = self.dry_run.get() {
            return self.diff(diff);
        }
        self.write(&render_many(self.format, messages)?)
    }

    /// One message that a table of its own says to people.
    pub fn view<T: Message + Name>(&self, message: &T, table: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Table => table(),
            Format::Json | Format::Yaml => structured(self.format, &reflect(message)?)?,
        };
        self.write(&text)
    }

    /// One message of a stream for machines: a line of JSON, or a YAML document.
    pub fn next<T: Message + Name>(&self, message: &T) -> anyhow::Result<()> {
        let message = reflect(message)?;
        self.write(&match self.format {
            Format::Yaml => format!("---\n{}", serde_saphyr::to_string(&message)?),
            Format::Table | Format::Json => serde_json::to_string(&message)?,
        })
    }

    /// Something that is not a protobuf message; `table` says it to people.
    pub fn value<T: Serialize>(&self, value: &T, table: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Table => table(),
            Format::Json | Format::Yaml => structured(self.format, value)?,
        };
        self.write(&text)
    }

    /// As `value`, for one of a stream: a line of JSON, or a YAML document.
    pub fn line<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        self.write(&match self.format {
            Format::Yaml => format!("---\n{}", serde_saphyr::to_string(value)?),
            Format::Table | Format::Json => serde_json::to_string(value)?,
        })
    }

    fn write(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        Ok(stdout.flush()?)
    }
}

/// The message as reflection sees it, for JSON and YAML.
pub fn reflect<T: Message + Name>(message: &T) -> anyhow::Result<DynamicMessage> {
    Ok(DynamicMessage::decode(descriptor::<T>()?, message.encode_to_vec().as_slice())?)
}

fn descriptor<T: Name>() -> anyhow::Result<MessageDescriptor> {
    let name = T::full_name();
    DESCRIPTORS.get_message_by_name(&name).with_context(|| format!("message {name} is not in the descriptor set"))
}

pub(crate) fn render_one<T: Message + Name>(format: Format, message: &T) -> anyhow::Result<String> {
    let message = reflect(message)?;
    match format {
        Format::Table => Ok(fields(&message)?),
        Format::Json | Format::Yaml => structured(format, &message),
    }
}

pub(crate) fn render_many<T: Message + Name + Tabular>(format: Format, messages: &[T]) -> anyhow::Result<String> {
    match format {
        Format::Table => Ok(columns(T::HEADER, messages.iter().map(Tabular::cells))),
        Format::Json | Format::Yaml => {
            let messages: Vec<_> = messages.iter().map(reflect).collect::<anyhow::Result<_>>()?;
            structured(format, &messages)
        }
    }
}

fn structured<T: Serialize>(format: Format, value: &T) -> anyhow::Result<String> {
    match format {
        Format::Yaml => Ok(serde_saphyr::to_string(value)?),
        Format::Table | Format::Json => Ok(serde_json::to_string_pretty(value)?),
    }
}

/// Aligned columns without lines; the header alone if there are no rows.
pub fn columns(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table.add_rows(rows.map(|cells| cells.into_iter().map(one_line).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Cells stay on their line whatever a name or description contains; control characters are not for terminals.
fn one_line(cell: String) -> String {
    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A line per field that is set, in the proto's order; nested fields with dots.
fn fields(message: &DynamicMessage) -> anyhow::Result<String> {
    let json = serde_json::to_value(message)?;
    let mut rows = Vec::new();
    for field in message.descriptor().fields() {
        if let Some(value) = json.get(field.json_name()) {
            flatten(field.json_name(), value, &mut rows);
        }
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows.into_iter().map(|(name, value)| format!("{name:width$}  {}\n", one_line(value)));
    Ok(lines.collect())
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                flatten(&format!("{name}.{key}"), value, rows);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, value) in items.iter().enumerate() {
                flatten(&format!("{name}[{index}]"), value, rows);
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(scalar).collect();
            rows.push((name.to_owned(), items.join(", ")));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            rows.push((name.to_owned(), scalar(value)));
        }
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
