//! The API reference, written from the comments of `proto/`: what reflection serves, for people. Used by the binary that writes
//! `docs/API.md` and by the test that compares.

use std::fmt::Write as _;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

const INTRODUCTION: &str = "# API reference

Generated from the comments in `proto/` by `make doc`; edit those. The same text is in the descriptor set that the admin listener serves by
gRPC reflection. Field numbers are in the files.
";

/// Packages of our own, in reading order.
const PACKAGES: [(&str, &str); 3] = [
    ("mcpgw.admin.v1", "Administration"),
    ("mcpgw.config.v1", "Configuration: what a snapshot contains"),
    ("mcpgw.node.v1", "Nodes: enrolment, status, audit"),
];

/// The whole reference as Markdown.
#[must_use]
pub fn markdown() -> String {
    let set = FileDescriptorSet::decode(mcp_gateway::proto::DESCRIPTORS).expect("the build script wrote it");
    let mut page = Page { text: INTRODUCTION.to_owned() };
    for (package, title) in PACKAGES {
        page.line(&format!("\n## {title} (`{package}`)"));
        for file in set.file.iter().filter(|file| file.package() == package) {
            page.file(file);
        }
    }
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("writing to a string cannot fail");
    }

    fn file(&mut self, file: &FileDescriptorProto) {
        for (index, service) in (0..).zip(&file.service) {
            self.service(file, index, service);
        }
        for (index, message) in (0..).zip(&file.message_type) {
            self.message(file, index, message);
        }
        for (index, item) in (0..).zip(&file.enum_type) {
            self.enumeration(file, index, item);
        }
    }

    fn service(&mut self, file: &FileDescriptorProto, index: i32, service: &ServiceDescriptorProto) {
        self.line(&format!("\n### service {}\n\n{}\n", service.name(), comment(file, &[6, index])));
        self.line("| method | request | answer | |\n|---|---|---|---|");
        for (number, method) in (0..).zip(&service.method) {
            let stream = |streams: bool, name: &str| format!("{}`{}`", if streams { "stream of " } else { "" }, short(name));
            let request = stream(method.client_streaming(), method.input_type());
            let answer = stream(method.server_streaming(), method.output_type());
            let said = cell(&comment(file, &[6, index, 2, number]));
            self.line(&format!("| `{}` | {request} | {answer} | {said} |", method.name()));
        }
    }

    fn message(&mut self, file: &FileDescriptorProto, index: i32, message: &DescriptorProto) {
        self.line(&format!("\n### {}\n\n{}", message.name(), comment(file, &[4, index])));
        if message.field.is_empty() {
            return;
        }
        self.line("\n| field | type | |\n|---|---|---|");
        for (number, field) in (0..).zip(&message.field) {
            let said = cell(&comment(file, &[4, index, 2, number]));
            self.line(&format!("| `{}` | {} | {said} |", field.name(), type_of(field)));
        }
    }

    fn enumeration(&mut self, file: &FileDescriptorProto, index: i32, item: &EnumDescriptorProto) {
        self.line(&format!("\n### {}\n\n{}\n\n| value | |\n|---|---|", item.name(), comment(file, &[5, index])));
        for (number, value) in (0..).zip(&item.value) {
            self.line(&format!("| `{}` | {} |", value.name(), cell(&comment(file, &[5, index, 2, number]))));
        }
    }
}

/// The comment before the thing at a path of the descriptor.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let info = file.source_code_info.as_ref().expect("comments are included");
    let place = info.location.iter().find(|place| place.path == path);
    place.map(|place| place.leading_comments().trim().to_owned()).unwrap_or_default()
}

/// Fit for a table's cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn type_of(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    if field.label() == Label::Repeated { format!("repeated `{name}`") } else { format!("`{name}`") }
}

fn short(name: &str) -> String {
    name.trim_start_matches('.').trim_start_matches("mcpgw.").to_owned()
}
