//! How much of the limits is used, from what nodes last reported. Reads only.

use std::ops::Bound;

use mcp_gateway::proto::admin::v1::{LimitUsage, ListLimitUsageRequest, ListLimitUsageResponse};

use super::{fields, ids};
use crate::{
    api::{
        Api,
        aip::{self, Pages, timestamp},
        caller::{Caller, Hold},
        error::Error,
    },
    domain::usage::{self, Key, Line},
    store::limit_usage,
};

const LIST: &str = "/mcpgw.admin.v1.RateLimitService/ListLimitUsage";

pub(super) async fn list(api: &Api, caller: &Caller, request: &ListLimitUsageRequest) -> Result<ListLimitUsageResponse, Error> {
    let slug = aip::organization("parent", &request.parent)?;
    let mut connection = api.core.store.connection().await?;
    let org = caller.organization(&mut connection, slug, Hold::Read).await?;
    let mut names = limit_usage::names(&mut connection, org.id).await?;
    if !request.rate_limit.is_empty() {
        let [of, wanted] = ids("rate_limit", &request.rate_limit)?;
        if of != slug {
            return Err(Error::invalid("rate_limit", format!("expected a limit of {}", request.parent)));
        }
        names.retain(|_, name| name == wanted);
        if names.is_empty() {
            return Err(Error::NotFound(request.rate_limit.clone()));
        }
    }
    let binding = [LIST, &org.id.to_string(), &request.rate_limit, &request.subject];
    let pages = Pages::new(&api.core.custody, request.page_size, &binding)?;
    let after = pages.position::<Key>(&request.page_token)?.map_or(Bound::Unbounded, Bound::Excluded);
    let reports = limit_usage::of(&mut connection, &org).await?;
    let lines = usage::merge(reports.told, &names);
    let wanted = |(key, _): &(&Key, &Line)| request.subject.is_empty() || key.subject == request.subject;
    let most = usize::try_from(pages.size).unwrap_or(usize::MAX).saturating_add(1);
    let mut found: Vec<_> = lines.range((after, Bound::Unbounded)).filter(wanted).take(most).collect();
    let next_page_token = pages.cut(&mut found, |(key, _)| (*key).clone())?;
    let usage = found.into_iter().map(|(key, line)| message(&org.slug, key, line)).collect();
    let (reporting_nodes, silent_nodes) = (reports.reporting, reports.silent);
    Ok(ListLimitUsageResponse { usage, next_page_token, reporting_nodes, silent_nodes })
}

fn message(org: &str, key: &Key, line: &Line) -> LimitUsage {
    let count = &line.count;
    LimitUsage {
        rate_limit: fields::name(org, &key.limit),
        subject: count.subject.clone(),
        server: count.server.clone(),
        pattern: count.pattern.clone(),
        seconds: count.seconds,
        limit: count.admits,
        used: count.used,
        headroom: line.headroom(),
        free_time: line.free_at().map(timestamp),
        refused: count.refused,
        mode: count.mode.name().to_owned(),
        node: format!("nodes/{}", line.node),
        nodes: line.nodes,
        report_time: Some(timestamp(line.at)),
    }
}
