//! Sums to series: those with the most calls, the rest as one, percentiles out of buckets. Pure.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use mcp_gateway::proto::{
    admin::v1::{StatsPoint, StatsSeries},
    node::v1::Outcome,
};

use super::super::{aip, logs::wire};
use crate::{
    domain::latency,
    ingest::account::INTERRUPTED,
    store::stats::{Dimension, Sums, Wanted},
};

/// What a series is of, in the order of the series' fields.
type Labels = (String, String, String, String, i16, Option<i16>);

/// Sums of one point.
#[derive(Debug, Default, Clone)]
struct Total {
    calls: i64,
    ended: i64,
    errors: i64,
    denied: i64,
    interrupted: i64,
    request_bytes: i64,
    response_bytes: i64,
    total_us: i64,
    buckets: Vec<i64>,
}

impl Total {
    fn add(&mut self, sums: &Sums) {
        self.calls += sums.calls;
        let is = |outcome: Outcome| i32::from(sums.outcome) == i32::from(outcome);
        match () {
            () if sums.outcome == INTERRUPTED => self.interrupted += sums.calls,
            () if is(Outcome::Denied) => self.denied += sums.calls,
            () if is(Outcome::Error) || is(Outcome::UpstreamFailed) || is(Outcome::GatewayFailed) => self.errors += sums.calls,
            () => {}
        }
        if sums.outcome != INTERRUPTED {
            self.ended += sums.calls;
        }
        self.request_bytes = self.request_bytes.saturating_add(sums.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(sums.response_bytes);
        self.total_us = self.total_us.saturating_add(sums.total_us);
        self.buckets.resize(latency::COUNT, 0);
        self.buckets.iter_mut().zip(&sums.buckets).for_each(|(bucket, more)| *bucket += more);
    }

    fn point(&self, wanted: &Wanted, point: i64) -> StatsPoint {
        let time = wanted.since + TimeDelta::seconds(point * wanted.step_seconds);
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        StatsPoint {
            time: Some(aip::timestamp(time)),
            calls: count(self.calls),
            errors: count(self.errors),
            denied: count(self.denied),
            interrupted: count(self.interrupted),
            request_bytes: count(self.request_bytes),
            response_bytes: count(self.response_bytes),
            mean_us: if self.ended > 0 { count(self.total_us / self.ended) } else { 0 },
            p50_us: latency::quantile(&self.buckets, 0.5),
            p95_us: latency::quantile(&self.buckets, 0.95),
            p99_us: latency::quantile(&self.buckets, 0.99),
        }
    }
}

/// At most `most` series and one for the rest, most calls first.
pub fn of(found: Vec<Sums>, wanted: &Wanted, most: usize) -> Vec<StatsSeries> {
    let by_outcome = wanted.by.contains(&Dimension::Outcome);
    let mut series: BTreeMap<Labels, Vec<Sums>> = BTreeMap::new();
    for sums in found {
        let outcome = by_outcome.then_some(sums.outcome);
        let labels =
            (sums.organization.clone(), sums.server.clone(), sums.method.clone(), sums.target.clone(), sums.decision, outcome);
        series.entry(labels).or_default().push(sums);
    }
    let mut ranked: Vec<(Labels, Vec<Sums>)> = series.into_iter().collect();
    ranked.sort_by_key(|(_, sums)| -sums.iter().map(|sums| sums.calls).sum::<i64>()); // stable: equals stay in the labels' order
    let rest: Vec<Sums> = ranked.split_off(most.min(ranked.len())).into_iter().flat_map(|(_, sums)| sums).collect();
    let mut answer: Vec<StatsSeries> = ranked
        .into_iter()
        .map(|((organization, server, method, target, decision, outcome), sums)| StatsSeries {
            organization: if organization.is_empty() { organization } else { format!("organizations/{organization}") },
            server,
            method,
            target,
            decision: wire::decision(decision).into(),
            outcome: outcome.map(word).unwrap_or_default().into(),
            ..points(&sums, wanted)
        })
        .collect();
    if !rest.is_empty() {
        answer.push(StatsSeries { rest: true, ..points(&rest, wanted) });
    }
    answer
}

fn points(sums: &[Sums], wanted: &Wanted) -> StatsSeries {
    let (mut total, mut points) = (Total::default(), BTreeMap::<i64, Total>::new());
    for sums in sums {
        total.add(sums);
        points.entry(sums.point).or_default().add(sums);
    }
    let points = points.iter().map(|(point, total)| total.point(wanted, *point));
    StatsSeries { total: Some(total.point(wanted, 0)), points: points.collect(), ..StatsSeries::default() }
}

fn word(outcome: i16) -> &'static str {
    wire::outcome((outcome != INTERRUPTED).then_some(outcome), false)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn sums(point: i64, server: &str, outcome: i16, calls: i64) -> Sums {
        let mut buckets = vec![0; latency::COUNT];
        buckets[latency::place(1000)] = if outcome == INTERRUPTED { 0 } else { calls };
        Sums {
            point,
            organization: String::new(),
            server: server.into(),
            method: String::new(),
            target: String::new(),
            decision: 0,
            outcome,
            calls,
            request_bytes: calls,
            response_bytes: 2 * calls,
            total_us: if outcome == INTERRUPTED { 0 } else { 1000 * calls },
            buckets,
        }
    }

    fn wanted(by: Vec<Dimension>) -> Wanted {
        let since = DateTime::from_timestamp(1_750_000_020, 0).unwrap();
        Wanted {
            org: None,
            since,
            until: since + TimeDelta::minutes(10),
            step_seconds: 300,
            by,
            server: String::new(),
            method: String::new(),
            target: String::new(),
            decision: None,
            outcome: None,
        }
    }

    #[test]
    fn outcomes_add_up_within_a_series_and_the_least_called_become_the_rest() {
        let found =
            vec![sums(0, "a", 1, 5), sums(1, "a", 3, 1), sums(0, "b", 2, 2), sums(0, "c", INTERRUPTED, 1), sums(1, "d", 1, 9)];
        let series = of(found, &wanted(vec![Dimension::Server]), 2);
        let shown: Vec<_> = series.iter().map(|it| (it.server.as_str(), it.rest, it.total.unwrap().calls)).collect();
        assert_eq!(shown, [("d", false, 9), ("a", false, 6), ("", true, 3)]);
        let a = &series[1];
        assert_eq!(a.points.iter().map(|point| (point.calls, point.errors)).collect::<Vec<_>>(), [(5, 0), (1, 1)]);
        assert_eq!(a.points[1].time.unwrap().seconds, 1_750_000_320);
        assert_eq!((a.total.unwrap().mean_us, a.total.unwrap().response_bytes), (1000, 12));
        let rest = series[2].total.unwrap();
        assert_eq!((rest.denied, rest.interrupted, rest.mean_us), (2, 1, 1000), "an interrupted call has no duration");
        assert!((768..=1024).contains(&rest.p99_us), "{}", rest.p99_us);
    }

    #[test]
    fn outcomes_may_be_series_of_their_own() {
        let found = vec![sums(0, "", 1, 5), sums(0, "", INTERRUPTED, 1)];
        let series = of(found, &wanted(vec![Dimension::Outcome]), 9);
        let shown: Vec<_> = series.iter().map(|it| (it.outcome.as_str(), it.total.unwrap().calls)).collect();
        assert_eq!(shown, [("ok", 5), ("interrupted", 1)]);
        assert_eq!(of(Vec::new(), &wanted(Vec::new()), 9), []);
    }
}
