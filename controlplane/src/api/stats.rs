//! StatsService: what calls add up to, once or watched. Reads only what ingest has added up.

use std::time::Duration;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use mcp_gateway::proto::admin::v1::{
    GetStatsRequest, Stats, StatsDimension, StatsFilter, WatchStatsRequest, stats_service_server::StatsService,
};
use tokio::time::MissedTickBehavior;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, admitted, aip,
    error::Error,
    logs::{scope, wire},
    standing::{Answers, Say, Standing},
};
use crate::{
    app::Core,
    domain::Violation,
    ingest::account::INTERRUPTED,
    store::{
        logs::OutcomeFilter,
        stats::{self, Dimension, Wanted},
    },
};

mod series;

/// Rollups are kept this long.
const KEPT: TimeDelta = TimeDelta::days(31);
const MINUTE: TimeDelta = TimeDelta::minutes(1);
/// Points of one answer.
const MOST_POINTS: i64 = 1500;
/// How often a watcher is told without a word of its own.
const INTERVAL: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl StatsService for Api {
    async fn get_stats(&self, request: Request<GetStatsRequest>) -> Result<Response<Stats>, Status> {
        let (caller, request) = admitted(request)?;
        let asked = Asked::of(&request, Utc::now())?;
        let org = scope(&caller, &mut *self.core.store.connection().await.map_err(Error::from)?, &request.parent).await?;
        Ok(Response::new(asked.answer(&self.core, org).await?))
    }

    type WatchStatsStream = Answers<Stats>;

    async fn watch_stats(&self, request: Request<WatchStatsRequest>) -> Result<Response<Answers<Stats>>, Status> {
        Ok(Response::new(watch(&self.core, request).await?))
    }
}

async fn watch(core: &Core, request: Request<WatchStatsRequest>) -> Result<Answers<Stats>, Error> {
    let (standing, request) = Standing::of(core, request, |request: &WatchStatsRequest| &request.parent).await?;
    let minutes = match request.minutes {
        0 => 1,
        minutes @ 1..=60 => minutes,
        _ => return Err(Error::invalid("minutes", "expected 0 to 60")),
    };
    let interval = match request.interval {
        None => INTERVAL,
        Some(given) => {
            let interval = Duration::try_from(given).ok().filter(|it| (1..=60).contains(&it.as_secs()));
            interval.ok_or_else(|| Error::invalid("interval", "expected 1 s to 60 s"))?
        }
    };
    let last_minutes = move |now: DateTime<Utc>| {
        let since = floor(now) - MINUTE * (minutes - 1);
        let request = GetStatsRequest {
            since: Some(aip::timestamp(since)),
            step: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            group_by: request.group_by.clone(),
            filter: request.filter.clone(),
            series: request.series,
            ..GetStatsRequest::default()
        };
        Asked::of(&request, now)
    };
    last_minutes(Utc::now())?; // a mistake is told at once
    let (core, org) = (core.clone(), standing.org);
    let work = move |say: Say<Stats>| async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stats = match last_minutes(Utc::now())?.answer(&core, org).await {
                Ok(stats) => stats,
                Err(Error::Away) => continue, // said again when the database is back
                Err(error) => return Err(error),
            };
            say.send(Ok(stats)).await.map_err(|_gone| Error::Unavailable("the caller is gone"))?;
        }
    };
    Ok(standing.start("stats-watch", work))
}

/// What a request asks for, read.
struct Asked {
    wanted: Wanted,
    step: TimeDelta,
    /// Series, at most.
    series: usize,
}

impl Asked {
    fn of(request: &GetStatsRequest, now: DateTime<Utc>) -> Result<Self, Error> {
        let until = request.until.as_ref().map(|at| aip::moment("until", at)).transpose()?;
        let until = ceil(until.unwrap_or(now));
        let since = request.since.as_ref().map(|at| aip::moment("since", at)).transpose()?;
        let since = floor(since.unwrap_or(until - TimeDelta::hours(1)));
        let span = until - since;
        if span < MINUTE || span > KEPT {
            return Err(Error::invalid("since", "expected a time of 1 minute to 31 days before `until`"));
        }
        let step = match request.step {
            None => span,
            Some(step) => {
                let whole = TimeDelta::try_seconds(step.seconds)
                    .filter(|_| step.nanos == 0 && step.seconds > 0 && step.seconds % 60 == 0);
                whole.ok_or_else(|| Error::invalid("step", "expected whole minutes, such as 300s"))?
            }
        };
        if span.num_seconds() / step.num_seconds() > MOST_POINTS {
            return Err(Error::invalid("step", "expected at most 1500 points: a longer step, or a shorter time"));
        }
        let series = match request.series {
            0 => 50,
            series @ 1..=500 => usize::try_from(series).unwrap_or(500),
            _ => return Err(Error::invalid("series", "expected 0 to 500")),
        };
        let filter = request.filter.clone().unwrap_or_default();
        let wanted = Wanted {
            org: None,
            since,
            until,
            step_seconds: step.num_seconds(),
            by: dimensions(&request.group_by)?,
            decision: within_filter(wire::decision_filter(&filter.decision))?,
            outcome: outcome(&filter)?,
            server: filter.server,
            method: filter.method,
            target: filter.target,
        };
        let texts = [("filter.server", &wanted.server), ("filter.method", &wanted.method), ("filter.target", &wanted.target)];
        super::logs::texts(&texts)?;
        Ok(Self { wanted, step, series })
    }

    async fn answer(mut self, core: &Core, org: Option<Uuid>) -> Result<Stats, Error> {
        self.wanted.org = org;
        let found = stats::sums(&mut *core.store.connection().await?, &self.wanted).await?;
        let step = self.step.to_std().ok().and_then(|step| prost_types::Duration::try_from(step).ok());
        Ok(Stats {
            since: Some(aip::timestamp(self.wanted.since)),
            until: Some(aip::timestamp(self.wanted.until)),
            step,
            series: series::of(found, &self.wanted, self.series),
        })
    }
}

fn dimensions(given: &[i32]) -> Result<Vec<Dimension>, Error> {
    let one = |number: &i32| match StatsDimension::try_from(*number) {
        Ok(StatsDimension::Organization) => Ok(Dimension::Organization),
        Ok(StatsDimension::Server) => Ok(Dimension::Server),
        Ok(StatsDimension::Method) => Ok(Dimension::Method),
        Ok(StatsDimension::Target) => Ok(Dimension::Target),
        Ok(StatsDimension::Decision) => Ok(Dimension::Decision),
        Ok(StatsDimension::Outcome) => Ok(Dimension::Outcome),
        Ok(StatsDimension::Unspecified) | Err(_) => Err(Error::invalid("group_by", "expected dimensions that are known")),
    };
    given.iter().map(one).collect()
}

fn outcome(filter: &StatsFilter) -> Result<Option<i16>, Error> {
    match within_filter(wire::outcome_filter(&filter.outcome))? {
        None => Ok(None),
        Some(OutcomeFilter::Ended(outcome)) => Ok(Some(outcome)),
        Some(OutcomeFilter::Interrupted) => Ok(Some(INTERRUPTED)),
        Some(OutcomeFilter::Pending) => Err(Error::invalid("filter.outcome", "calls count when they have ended")),
    }
}

/// The fields of `filter` have its name before theirs.
fn within_filter<T>(read: Result<T, Error>) -> Result<T, Error> {
    let named = |it: Violation| Violation::new(format!("filter.{}", it.field), it.expected);
    read.map_err(|error| match error {
        Error::Invalid(violations) => Error::Invalid(violations.into_iter().map(named).collect()),
        other => other,
    })
}

fn floor(at: DateTime<Utc>) -> DateTime<Utc> {
    at.duration_trunc(MINUTE).unwrap_or(at)
}

fn ceil(at: DateTime<Utc>) -> DateTime<Utc> {
    let floor = floor(at);
    if floor == at { at } else { floor + MINUTE }
}
