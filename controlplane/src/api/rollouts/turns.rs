//! The transitions of a rollout: what each does to the rows, and what it says it touched. Each takes a version, so that nodes that are moved
//! get one that is newer than what they run. The caller has locked the organisation and the rollout, seals and commits.
//!
//! Called by the RPCs and by [`crate::rollouts`].

use super::super::{organizations, policies, rate_limits, servers};
use crate::{
    domain::{
        Organization, Policy, RateLimit, Server,
        bundle::OrgRows,
        rollout::{Halt, Rollout, State, canaries},
    },
    store::{
        self, Error,
        change::{Change, Kind, Operation, Row, Touched},
        rollouts,
    },
};

/// Says that a rollout began.
pub fn begun(change: &mut Change, row: &Rollout) {
    touch(change, row, Operation::Create, true);
    change.action("rollout.create");
}

/// Begins a step: the first again, or a later one with more canaries.
pub async fn step(change: &mut Change, row: Rollout, step: usize, action: &'static str) -> Result<Rollout, Error> {
    let eligible = rollouts::eligible(change.connection(), &row.pool, &row.labels).await?;
    let Some(share) = row.steps.get(step).copied() else {
        return Err(Error::Corrupt(format!("rollout {} has no step {}", row.id, step + 1)));
    };
    let canaries = canaries::choose(row.id, &eligible, &row.canaries, share);
    let row = Rollout { state: State::Running, step, canaries, baking_since: None, halt: None, ..row };
    let row = rollouts::update(change.connection(), &row, true).await?;
    touch(change, &row, Operation::Update, true);
    change.action(action);
    Ok(row)
}

/// Every node goes back to what it ran.
pub async fn halt(change: &mut Change, row: Rollout, halt: Halt) -> Result<Rollout, Error> {
    let row = Rollout { state: State::Halted, baking_since: None, halt: Some(halt), ..row };
    let row = rollouts::update(change.connection(), &row, false).await?;
    touch(change, &row, Operation::Update, true);
    change.action("rollout.halt");
    Ok(row)
}

/// Every node goes back to what it ran, for good. Those of a halted rollout have.
pub async fn abort(change: &mut Change, row: Rollout) -> Result<Rollout, Error> {
    let moves = row.state == State::Running;
    let row = Rollout { state: State::Aborted, baking_since: None, ..row };
    let row = rollouts::update(change.connection(), &row, false).await?;
    touch(change, &row, Operation::Delete, moves);
    change.action("rollout.abort");
    Ok(row)
}

/// Makes the candidate the organisation's configuration.
pub async fn promote(change: &mut Change, row: Rollout, org: Organization) -> Result<Rollout, Error> {
    let candidate = rollouts::candidate(change.connection(), row.id).await?;
    let candidate = candidate.ok_or_else(|| Error::Corrupt(format!("rollout {} has no candidate", row.id)))?;
    let now = store::orgs::rows(change.connection(), org.id).await?;
    let now = now.unwrap_or_else(|| OrgRows::bare(org));
    let row = Rollout { state: State::Promoted, baking_since: None, ..row };
    let row = rollouts::update(change.connection(), &row, false).await?;
    touch(change, &row, Operation::Update, true);
    change.action("rollout.promote");
    change.promote();
    write(change, now, candidate).await?;
    Ok(row)
}

/// Removals first: names are free then.
async fn write(change: &mut Change, now: OrgRows, to: OrgRows) -> Result<(), Error> {
    let org = settings(change, &now.organization, to.organization).await?;
    for policy in now.policies.iter().filter(|policy| !to.policies.iter().any(|other| other.id == policy.id)) {
        store::policies::delete(change.connection(), policy.id).await?;
        policies::touch(change, &org, Some(policy), None);
    }
    for limit in now.limits.iter().filter(|limit| !to.limits.iter().any(|other| other.id == limit.id)) {
        store::rate_limits::delete(change.connection(), limit.id).await?;
        rate_limits::touch(change, &org, Some(limit), None);
    }
    for server in now.servers.iter().filter(|server| !to.servers.iter().any(|other| other.id == server.id)) {
        store::servers::delete(change.connection(), server.id).await?;
        servers::touch(change, &org, Some(server), None);
    }
    for server in to.servers {
        let before = now.servers.iter().find(|other| other.id == server.id);
        write_server(change, &org, before, server).await?;
    }
    for policy in to.policies {
        let before = now.policies.iter().find(|other| other.id == policy.id);
        write_policy(change, &org, before, policy).await?;
    }
    for limit in to.limits {
        let before = now.limits.iter().find(|other| other.id == limit.id);
        write_limit(change, &org, before, limit).await?;
    }
    Ok(())
}

async fn settings(change: &mut Change, before: &Organization, to: Organization) -> Result<Organization, Error> {
    let to = Organization { pool: before.pool.clone(), meta: before.meta, ..to };
    if to == *before {
        return Ok(to);
    }
    let after = store::organizations::update(change.connection(), &to).await?;
    change.touch(organizations::touched(Some(before), Some(&after)));
    Ok(after)
}

async fn write_server(change: &mut Change, org: &Organization, before: Option<&Server>, to: Server) -> Result<(), Error> {
    let after = match before {
        Some(before) if Server { meta: before.meta, ..to.clone() } == *before => return Ok(()),
        Some(_) => store::servers::update(change.connection(), &to).await?,
        None => store::servers::insert(change.connection(), &to).await?,
    };
    servers::touch(change, org, before, Some(&after));
    Ok(())
}

async fn write_policy(change: &mut Change, org: &Organization, before: Option<&Policy>, to: Policy) -> Result<(), Error> {
    let after = match before {
        Some(before) if Policy { meta: before.meta, ..to.clone() } == *before => return Ok(()),
        Some(_) => store::policies::update(change.connection(), &to).await?,
        None => store::policies::insert(change.connection(), &to).await?,
    };
    policies::touch(change, org, before, Some(&after));
    Ok(())
}

async fn write_limit(change: &mut Change, org: &Organization, before: Option<&RateLimit>, to: RateLimit) -> Result<(), Error> {
    let after = match before {
        Some(before) if RateLimit { meta: before.meta, ..to.clone() } == *before => return Ok(()),
        Some(_) => store::rate_limits::update(change.connection(), &to).await?,
        None => store::rate_limits::insert(change.connection(), &to).await?,
    };
    rate_limits::touch(change, org, before, Some(&after));
    Ok(())
}

fn touch(change: &mut Change, row: &Rollout, operation: Operation, reaches_nodes: bool) {
    change.touch(Touched {
        org: Some((row.org_id, row.org_slug.clone())),
        row: Row::Rollout(row.id),
        reaches_nodes,
        ..Touched::aside(Kind::Rollout, operation, row.name())
    });
}
