//! `mcpgw apply`: makes an organisation what a document says. Shows the difference before it asks, and asks before it changes.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::document_service_client::DocumentServiceClient;
use mcp_gateway::proto::admin::v1::{ApplyOrganizationRequest, ApplyOrganizationResponse, ConfigDiff, OrganizationDocument};

use crate::args::Change;
use crate::context::{self, Context, Service};
use crate::document;
use crate::failure::Failure;
use crate::output::{Format, reflect};

const EXAMPLES: &str = "\
The file is what `mcpgw export` writes. What it does not name is removed: servers, policies and limits always, members and API keys only
if it names any. Values of credentials may lie elsewhere: valueEnv names an environment variable, valueFile a file beside the document. A
credential without a value stays as it is stored.

Examples:
  mcpgw apply -f acme.yaml
  mcpgw apply -f acme.yaml --validate-only
  mcpgw apply -f acme.yaml --yes --reason \"release 12\"
  mcpgw export acme | sed s/old.example/new.example/ | mcpgw apply -f - --yes";

/// Flags of `apply`.
#[derive(Debug, Flags)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The document of an organisation, YAML or JSON, - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Keep what the document does not name, instead of removing it
    #[arg(long)]
    no_prune: bool,
    /// Do it even where that removes more than half of the servers, policies and limits
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: Change,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let document = document::read::<OrganizationDocument>(&args.file)?.resource;
    let name = format!("organizations/{}", document.organization);
    let found = call(cx, &args, &document, true).await?;
    for note in &found.notes {
        eprintln!("note: {note}");
    }
    let changes = found.diff.as_ref().is_some_and(|diff| !diff.resources.is_empty());
    if !changes {
        eprintln!("{name} is what the document says; nothing was changed");
        return show(cx, &found);
    }
    if args.change.validate_only {
        args.change.say("");
        return show(cx, &found);
    }
    if cx.out.format == Format::Table {
        cx.out.diff(found.diff.as_ref().unwrap_or(&ConfigDiff::default()))?;
    }
    if !args.yes && !confirmed(&name)? {
        eprintln!("nothing was changed");
        return Ok(());
    }
    let done = call(cx, &args, &document, false).await?;
    match done.config_version {
        0 => eprintln!("{name} has become what the document says meanwhile; nothing was changed"),
        version => eprintln!("applied {name} as version {version}"),
    }
    match cx.out.format {
        Format::Table => Ok(()), // shown above
        Format::Json | Format::Yaml => show(cx, &done),
    }
}

async fn call(
    cx: &Context,
    args: &Args,
    document: &OrganizationDocument,
    validate_only: bool,
) -> anyhow::Result<ApplyOrganizationResponse> {
    let request = ApplyOrganizationRequest {
        document: Some(document.clone()),
        keep_unlisted: args.no_prune,
        validate_only,
        request_id: if validate_only { String::new() } else { args.change.request_id() },
    };
    let call = async |c: &mut DocumentServiceClient<Service>, r| c.apply_organization(context::forced(r, args.force)).await;
    cx.call(DocumentServiceClient::new, request, call).await
}

/// The answer for scripts, the difference for people.
fn show(cx: &Context, answer: &ApplyOrganizationResponse) -> anyhow::Result<()> {
    match cx.out.format {
        Format::Table => cx.out.diff(answer.diff.as_ref().unwrap_or(&ConfigDiff::default())),
        Format::Json | Format::Yaml => cx.out.value(&reflect(answer)?, String::new),
    }
}

/// Asks at the terminal, wherever stdin comes from. Without one nobody can answer: scripts say `--yes`.
fn confirmed(name: &str) -> anyhow::Result<bool> {
    let nobody = || Failure::Usage("no terminal to ask whether to apply this: add --yes".into());
    if !std::io::stderr().is_terminal() {
        return Err(nobody().into());
    }
    let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_absent| nobody())?;
    write!(terminal, "Apply this to {name}? [y/N] ")?;
    let mut line = String::new();
    BufReader::new(terminal).read_line(&mut line).context("reading the answer")?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}
