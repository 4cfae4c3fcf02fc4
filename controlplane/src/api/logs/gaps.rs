//! Which records are missing, as nodes say. Reads only.

use mcp_gateway::proto::admin::v1::{ListRecordGapsRequest, ListRecordGapsResponse, RecordGap};

use super::{Span, mark, scope};
use crate::{
    api::{
        Api,
        aip::{Pages, timestamp},
        caller::Caller,
        error::Error,
    },
    store::gaps::{self, Gap},
};

const GAPS: &str = "/mcpgw.admin.v1.LogService/ListRecordGaps";

pub(super) async fn list(api: &Api, caller: &Caller, request: &ListRecordGapsRequest) -> Result<ListRecordGapsResponse, Error> {
    let span = Span::of(request.since.as_ref(), request.until.as_ref())?;
    let mut connection = api.core.store.connection().await?;
    let org = scope(caller, &mut connection, &request.parent).await?;
    let (org_id, [since, until]) = (org.map(|id| id.to_string()).unwrap_or_default(), span.binding());
    let pages = Pages::new(&api.core.custody, request.page_size, &[GAPS, &org_id, &since, &until])?;
    let window = span.window(org, pages.position(&request.page_token)?);
    let mut found = gaps::page(&mut connection, &window, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |gap| mark(gap.until_at, gap.id))?;
    Ok(ListRecordGapsResponse { record_gaps: found.into_iter().map(message).collect(), next_page_token })
}

fn message(gap: Gap) -> RecordGap {
    RecordGap {
        from_time: Some(timestamp(gap.from_at)),
        until_time: Some(timestamp(gap.until_at)),
        organization: gap.org_slug.map(|slug| format!("organizations/{slug}")).unwrap_or_default(),
        node: format!("nodes/{}", gap.node_id),
        access: gap.access.unsigned_abs(),
        audit: gap.audit.unsigned_abs(),
    }
}
