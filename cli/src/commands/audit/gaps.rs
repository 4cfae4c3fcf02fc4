//! `mcpgw audit gaps`: which records are missing.

use clap::Args as Flags;
use mcp_gateway::proto::admin::v1::ListRecordGapsRequest;
use mcp_gateway::proto::admin::v1::log_service_client::LogServiceClient;
use prost_types::Timestamp;

use crate::args::{self, Page};
use crate::context::Context;

/// Flags of `audit gaps`.
#[derive(Debug, Flags)]
#[command(
    after_help = "A node whose spool is nearly full keeps only a part of the access records, and says later how many are missing.\n\nExamples:\n  mcpgw audit gaps --since 1d\n  mcpgw audit gaps --org acme -o json"
)]
pub struct Args {
    /// Only gaps that reach behind this: an RFC 3339 moment, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    since: Option<Timestamp>,
    /// Only gaps that begin before this
    #[arg(long, value_name = "WHEN", value_parser = args::moment)]
    until: Option<Timestamp>,
    #[command(flatten)]
    page: Page,
}

pub async fn run(cx: &Context, args: Args) -> anyhow::Result<()> {
    let parent = cx.org_or_all()?;
    let (since, until) = (args.since, args.until);
    let fetch = async |page_size, page_token| {
        let request = ListRecordGapsRequest { parent: parent.clone(), page_size, page_token, since, until };
        let page = cx.call(LogServiceClient::new, request, async |c, r| c.list_record_gaps(r).await).await?;
        Ok((page.record_gaps, page.next_page_token))
    };
    let gaps = args.page.collect(fetch).await?;
    cx.out.many(&gaps)
}
