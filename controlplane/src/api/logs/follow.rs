//! Following the logs: what is there since a moment, then what arrives, in the order in which it is settled, each row once.
//!
//! A follower reads from the tables at its own pace; where it stands is in its token, which any replica understands.

use std::{convert::Infallible, time::Duration};

use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1::{
    FollowAuditLogsRequest, FollowAuditLogsResponse, FollowRequestLogsRequest, FollowRequestLogsResponse, RequestLog,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::Request;
use uuid::Uuid;

use super::{
    super::{
        Api,
        aip::{self, Pages},
        error::Error,
        standing::{Answers, Say, Standing},
    },
    request_filter, wire,
};
use crate::{
    app::Core,
    store::logs::{
        AuditFilter,
        follow::{self, Log, Numbered, Wanted, WantedAudit},
    },
};

const REQUESTS: &str = "/mcpgw.admin.v1.LogService/FollowRequestLogs";
const AUDIT: &str = "/mcpgw.admin.v1.LogService/FollowAuditLogs";
/// Rows of one response.
const PAGE: usize = 100;
/// Batches that are read at once.
const BATCHES: i64 = 20;
/// A token that does not move is not said again sooner.
const SILENCE: Duration = Duration::from_secs(15);

/// Where a follower stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// In what arrived up to `line`, behind a row.
    Before { line: i64, micros: i64, id: Uuid },
    /// Behind a number, and so many rows of the next.
    Behind { number: i64, rows: usize },
}

/// The rights to a stream's tokens: which stream, with which filters.
struct Tokens {
    core: Core,
    binding: Vec<String>,
}

impl Tokens {
    fn pages(&self) -> Result<Pages<'_>, Error> {
        let binding: Vec<&str> = self.binding.iter().map(String::as_str).collect();
        Pages::new(&self.core.custody, 0, &binding)
    }

    fn read(&self, token: &str) -> Result<Option<Place>, Error> {
        self.pages()?.position_of("resume_token", token)
    }

    fn write(&self, place: Place) -> Result<String, Error> {
        self.pages()?.token(&place)
    }
}

pub async fn requests(
    api: &Api,
    request: Request<FollowRequestLogsRequest>,
) -> Result<Answers<FollowRequestLogsResponse>, Error> {
    let (standing, request) = Standing::of(&api.core, request, |request: &FollowRequestLogsRequest| &request.parent).await?;
    let filter = request_filter(&request)?;
    let since = request.since.as_ref().map(|at| aip::moment("since", at)).transpose()?;
    let include_open = request.include_open || request.outcome == "pending";
    let wanted = Wanted { org: standing.org, since, include_open, filter };
    let resume_token = request.resume_token.clone();
    let rest = FollowRequestLogsRequest { resume_token: String::new(), ..request };
    let org = standing.org.map(|id| id.to_string()).unwrap_or_default();
    let tokens = Tokens { core: api.core.clone(), binding: vec![REQUESTS.into(), org, format!("{rest:?}")] };
    let place = tokens.read(&resume_token)?;
    let settled = api.core.arrivals.settled(Log::Requests);
    let core = api.core.clone();
    Ok(standing.start("follow-requests", move |say| Requests { core, wanted, tokens, settled, say }.run(place)))
}

/// A follower of requests.
struct Requests {
    core: Core,
    wanted: Wanted,
    tokens: Tokens,
    settled: watch::Receiver<Option<i64>>,
    say: Say<FollowRequestLogsResponse>,
}

impl Requests {
    async fn run(mut self, place: Option<Place>) -> Result<Infallible, Error> {
        let place = match place {
            Some(place) => place,
            None => {
                let line = settled(&mut self.settled, i64::MIN).await?;
                match self.wanted.since {
                    // Behind no row: no id is smaller.
                    Some(since) => Place::Before { line, micros: since.timestamp_micros(), id: Uuid::nil() },
                    None => Place::Behind { number: line, rows: 0 },
                }
            }
        };
        self.say(Vec::new(), place).await?;
        let (mut number, mut skip) = match place {
            Place::Before { line, micros, id } => (self.before(line, (moment(micros), id)).await?, 0),
            Place::Behind { number, rows } => (number, rows),
        };
        loop {
            let upto = match tokio::time::timeout(SILENCE, settled(&mut self.settled, number)).await {
                Ok(upto) => upto?,
                Err(_silence) => {
                    self.say(Vec::new(), Place::Behind { number, rows: skip }).await?;
                    continue;
                }
            };
            (number, skip) = (self.batches(number, skip, upto).await?, 0);
        }
    }

    /// What arrived up to `line`.
    async fn before(&mut self, line: i64, mut after: (DateTime<Utc>, Uuid)) -> Result<i64, Error> {
        let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        loop {
            let mut connection = self.core.store.connection().await?;
            if !follow::is_kept(&mut connection, line).await? {
                return Err(too_late());
            }
            let found = follow::requests_before(&mut connection, line, after, &self.wanted, limit).await?;
            drop(connection);
            let more = found.len() == PAGE;
            if let Some(last) = found.last() {
                after = (last.decided_at, last.request_id);
            }
            let place = match more {
                true => Place::Before { line, micros: after.0.timestamp_micros(), id: after.1 },
                false => Place::Behind { number: line, rows: 0 },
            };
            if !found.is_empty() {
                self.say(found.into_iter().map(wire::request_log).collect(), place).await?;
            }
            if !more {
                return Ok(line);
            }
        }
    }

    /// What batches behind `after` brought, and up to where that was.
    async fn batches(&mut self, after: i64, mut skip: usize, upto: i64) -> Result<i64, Error> {
        let mut connection = self.core.store.connection().await?;
        if !follow::is_kept(&mut connection, after).await? {
            return Err(too_late());
        }
        let batches = follow::arrivals(&mut connection, after, upto, BATCHES).await?;
        drop(connection);
        // Numbers without a batch never come.
        let done = if i64::try_from(batches.len()).is_ok_and(|count| count == BATCHES) { None } else { Some(upto) };
        let mut before = after;
        for batch in &batches {
            let keys: Vec<_> = batch.keys(self.wanted.include_open).collect();
            let mut rows = std::mem::take(&mut skip).min(keys.len());
            for part in keys[rows..].chunks(PAGE) {
                let found = follow::requests_of(&mut *self.core.store.connection().await?, part, &self.wanted).await?;
                rows += part.len();
                if !found.is_empty() {
                    let place = match rows == keys.len() {
                        true => Place::Behind { number: batch.number, rows: 0 },
                        false => Place::Behind { number: before, rows },
                    };
                    self.say(found.into_iter().map(wire::request_log).collect(), place).await?;
                }
            }
            before = batch.number;
        }
        Ok(done.unwrap_or(before))
    }

    async fn say(&self, request_logs: Vec<RequestLog>, place: Place) -> Result<(), Error> {
        let response = FollowRequestLogsResponse { request_logs, resume_token: self.tokens.write(place)? };
        self.say.send(Ok(response)).await.map_err(|_gone| Error::Unavailable("the caller is gone"))
    }
}

pub async fn audit(api: &Api, request: Request<FollowAuditLogsRequest>) -> Result<Answers<FollowAuditLogsResponse>, Error> {
    let (standing, request) = Standing::of(&api.core, request, |request: &FollowAuditLogsRequest| &request.parent).await?;
    let FollowAuditLogsRequest { actor, action, resource, outcome, .. } = request.clone();
    let filter = AuditFilter { actor, action, resource, outcome };
    super::audit_texts(&filter)?;
    let since = request.since.as_ref().map(|at| aip::moment("since", at)).transpose()?;
    let resume_token = request.resume_token.clone();
    let rest = FollowAuditLogsRequest { resume_token: String::new(), ..request };
    let org = standing.org.map(|id| id.to_string()).unwrap_or_default();
    let tokens = Tokens { core: api.core.clone(), binding: vec![AUDIT.into(), org, format!("{rest:?}")] };
    let place = tokens.read(&resume_token)?;
    let (core, wanted) = (api.core.clone(), WantedAudit { org: standing.org, since, filter });
    let mut settled_audit = api.core.arrivals.settled(Log::Audit);
    let work = move |say: Say<FollowAuditLogsResponse>| async move {
        let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let mut number = match (place, since) {
            (Some(Place::Behind { number, .. } | Place::Before { line: number, .. }), _) => number,
            (None, Some(_)) => 0,
            (None, None) => settled(&mut settled_audit, i64::MIN).await?,
        };
        let mut found = Vec::new();
        loop {
            // The first answer is empty: it says where the stream begins.
            let resume_token = tokens.write(Place::Behind { number, rows: 0 })?;
            let audit_logs = found.drain(..).map(|row: Numbered| wire::audit_log(row.log)).collect();
            let said = say.send(Ok(FollowAuditLogsResponse { audit_logs, resume_token })).await;
            said.map_err(|_gone| Error::Unavailable("the caller is gone"))?;
            while found.is_empty() {
                let Ok(upto) = tokio::time::timeout(SILENCE, settled(&mut settled_audit, number)).await else { break };
                let (upto, connection) = (upto?, &mut *core.store.connection().await?);
                found = follow::audit_logs(connection, (number, upto), &wanted, limit).await?;
                number = found.last().filter(|_| found.len() == PAGE).map_or(upto, |row| row.arrival);
            }
        }
    };
    Ok(standing.start("follow-audit", work))
}

/// Waits until more is settled than `after`: up to where.
async fn settled(line: &mut watch::Receiver<Option<i64>>, after: i64) -> Result<i64, Error> {
    let stopping = |_gone| Error::Unavailable("this replica is stopping: go on at another one");
    let settled = line.wait_for(|settled| settled.is_some_and(|settled| settled > after)).await.map_err(stopping)?;
    Ok(settled.unwrap_or(after))
}

fn moment(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

fn too_late() -> Error {
    Error::Precondition("what came next is not kept in order any more: begin again with `since`, or list it".into())
}
