//! The document of a first start: read, and applied like any other. What does not fit refuses the start, with every reason.

use std::path::{Path, PathBuf};

use mcp_gateway::document::{Document, Source};
use mcp_gateway::proto::admin::v1::OrganizationDocument;
use tracing::{info, warn};

use crate::{
    api::{
        Api,
        documents::{self, Authority, How},
        error,
    },
    app::{Core, Error},
    config,
    store::{self, change::Change},
};

/// A document and where it was.
pub struct Wanted {
    path: PathBuf,
    document: OrganizationDocument,
}

/// The document at `path`, unless its organisation is there, or was and is not to come back.
pub async fn wanted(change: &mut Change, path: &Path) -> Result<Option<Wanted>, Error> {
    let refused = |why: String| Error::Start(format!("bootstrap_file {}: {why}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // Its work is done: a running installation does not depend on it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && store::users::any(change.connection()).await? => {
            warn!(file = %path.display(), "bootstrap_file {} is not there; this is not a first start, so it goes on", path.display());
            return Ok(None);
        }
        Err(error) => return Err(refused(error.to_string())),
    };
    let beside = path.parent().unwrap_or(Path::new(""));
    // The name alone first: where there is nothing to do, nothing that the document points to has to be there.
    let slug = Document::<OrganizationDocument>::parse(&text, &mut |_| Ok("later".into()))
        .map_err(|faults| refused(format!("it is no document of an organisation:\n{faults}")))?
        .resource
        .organization;
    if store::config_versions::ever_was(change.connection(), &slug).await? {
        info!(organization = slug, "organizations/{slug} is or was there: the bootstrap file is not applied");
        return Ok(None);
    }
    let document = Document::parse(&text, &mut |source| value(beside, source));
    let document = document.map_err(|faults| refused(format!("it does not fit:\n{faults}")))?.resource;
    Ok(Some(Wanted { path: path.to_owned(), document }))
}

/// Writes it. The owner who is created beside it stays a member, whoever the document names.
pub async fn apply(core: &Core, change: &mut Change, wanted: &Wanted) -> Result<(), Error> {
    let Wanted { path, document } = wanted;
    let api = Api::new(core);
    let how = How { keep_unlisted: true, authority: Authority::system() };
    let notes = documents::write(&api, change, document, &how).await.map_err(|error| failed(path, error))?;
    documents::record(change, &document.organization);
    let slug = &document.organization;
    info!(organization = slug, file = %path.display(), "organizations/{slug} is created from the bootstrap file");
    for note in notes {
        info!(organization = slug, "bootstrap file: {note}");
    }
    Ok(())
}

fn failed(path: &Path, error: error::Error) -> Error {
    let why = match error {
        // Waiting may mend it.
        error::Error::Away | error::Error::Contended => return Error::Store(store::Error::Contended),
        error::Error::Invalid(violations) => {
            let lines: Vec<String> = violations.iter().map(|it| format!("{}: {}", it.field, it.expected)).collect();
            format!("it does not fit:\n{}", lines.join("\n"))
        }
        other => other.to_string(),
    };
    Error::Start(format!("bootstrap_file {}: {why}", path.display()))
}

/// The value of a credential that is not in the document.
fn value(beside: &Path, source: Source<'_>) -> Result<String, String> {
    match source {
        Source::Variable(name) => {
            config::variable(name).ok_or_else(|| format!("expected the environment variable {name}: it is not set"))
        }
        Source::File(path) => {
            let path = beside.join(path);
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        }
    }
}
