//! What `-f` reads: a resource or a whole organisation as YAML or JSON, in the form that the contract says.
//! Owns where the values of credentials come from that a file only points to. Called by verbs.

use std::path::Path;

use anyhow::Context as _;
pub use mcp_gateway::document::Document;
use mcp_gateway::document::Source;
use prost::{Message, Name};

use crate::failure::Failure;
use crate::{config, prompt};

/// Reads a document from a file, `-` for stdin. Everything that is wrong with it is told at once.
pub fn read<T: Message + Name + Default>(path: &Path) -> anyhow::Result<Document<T>> {
    let text = prompt::document(path)?;
    let beside = path.parent().unwrap_or(Path::new(""));
    let document = Document::parse(&text, &mut |source| value(beside, source));
    document.map_err(|faults| Failure::Usage(format!("{}:\n{faults}", path.display())).into())
}

fn value(beside: &Path, source: Source<'_>) -> Result<String, String> {
    match source {
        Source::Variable(name) => {
            config::text(name).ok_or_else(|| format!("expected the environment variable {name}: it is not set"))
        }
        Source::File(path) => {
            let path = beside.join(path);
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
            let text = text.map_err(|error| format!("{error:#}"))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}
