//! Tells what happens to a rollout until it has ended or halted.

use std::time::Duration;

use mcp_gateway::proto::admin::v1::rollout_service_client::RolloutServiceClient;
use mcp_gateway::proto::admin::v1::{GetRolloutRequest, Rollout, RolloutState};

use crate::context::Context;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Tells of each change on stderr and shows the end. Failing unless it was promoted.
pub async fn to_the_end(cx: &Context, started: Rollout) -> anyhow::Result<()> {
    let (name, mut told) = (started.name.clone(), String::new());
    let mut rollout = started;
    while rollout.state() == RolloutState::Running {
        let line = line(&rollout);
        if line != told {
            eprintln!("{line}");
            told = line;
        }
        tokio::time::sleep(EVERY).await;
        let request = GetRolloutRequest { name: name.clone() };
        rollout = cx.call(RolloutServiceClient::new, request, async |c, r| c.get_rollout(r).await).await?;
    }
    cx.out.one(&rollout)?;
    match rollout.state() {
        RolloutState::Promoted => eprintln!("{name} is promoted as version {}", rollout.config_version),
        RolloutState::Halted => anyhow::bail!("{name} halted ({}): {}", rollout.halt_reason, rollout.halt_detail),
        RolloutState::Aborted => anyhow::bail!("{name} was aborted"),
        RolloutState::Running | RolloutState::Unspecified => {
            anyhow::bail!("{name} is in a state that this command does not know")
        }
    }
    Ok(())
}

fn line(rollout: &Rollout) -> String {
    let calls = rollout.canary_calls.unwrap_or_default();
    let mut line = format!(
        "step {} of {}, {} canaries, {} calls there",
        rollout.step,
        rollout.steps.len(),
        rollout.canaries.len(),
        calls.calls
    );
    if !rollout.waiting_for.is_empty() {
        line.push_str(&format!(": {}", rollout.waiting_for));
    }
    line
}
