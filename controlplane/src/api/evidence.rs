//! EvidenceService: verifies the logs, lists checkpoints. Reads only; what is recomputed is for [`crate::evidence::verify`].
//!
//! A caller verifies the rows of one organisation, its own; only platform administrators verify all of them.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use mcp_gateway::proto::admin::v1::{
    Checkpoint, ListCheckpointsRequest, ListCheckpointsResponse, LogFinding, VerifyLogsRequest, VerifyLogsResponse,
    VerifyProgress, VerifySummary, evidence_service_server::EvidenceService, verify_logs_response,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{
    Api, admitted,
    aip::{self, Pages},
    error::Error,
    standing::{Answers, Standing},
};
use crate::{
    evidence::{
        Signer,
        verify::{self, Counts, Finding, Said, Scope, Stage},
    },
    store::evidence::{self, KeptCheckpoint},
};

const CHECKPOINTS: &str = "/mcpgw.admin.v1.EvidenceService/ListCheckpoints";
/// Findings and progress that wait for a slow reader: it slows the verification down.
const ROOM: usize = 16;
/// The end of what a row's time can be.
const END: i64 = 253_402_300_800;

#[tonic::async_trait]
impl EvidenceService for Api {
    type VerifyLogsStream = Answers<VerifyLogsResponse>;

    async fn verify_logs(&self, request: Request<VerifyLogsRequest>) -> Result<Response<Self::VerifyLogsStream>, Status> {
        Ok(Response::new(verify_logs(self, request).await?))
    }

    async fn list_checkpoints(
        &self,
        request: Request<ListCheckpointsRequest>,
    ) -> Result<Response<ListCheckpointsResponse>, Status> {
        let (_caller, request) = admitted(request)?;
        Ok(Response::new(checkpoints(self, &request).await?))
    }
}

async fn verify_logs(api: &Api, request: Request<VerifyLogsRequest>) -> Result<Answers<VerifyLogsResponse>, Error> {
    let (standing, request) = Standing::of(&api.core, request, |request: &VerifyLogsRequest| &request.parent).await?;
    let since = request.since.as_ref().map(|at| aip::moment("since", at)).transpose()?;
    let until = request.until.as_ref().map(|at| aip::moment("until", at)).transpose()?;
    let from = since.unwrap_or(DateTime::UNIX_EPOCH);
    let to = until.unwrap_or(DateTime::from_timestamp(END, 0).unwrap_or(DateTime::<Utc>::MAX_UTC));
    if from >= to {
        return Err(Error::invalid("until", "expected a moment later than `since`"));
    }
    let scope = Scope { org: standing.org, period: (from, to), all: request.all_findings };
    let core = api.core.clone();
    let slugs = evidence::slugs(&mut *core.store.connection().await?).await?;
    Ok(standing.until_done("verify-logs", move |say| async move {
        let (tell, mut hear) = mpsc::channel(ROOM);
        let work = async {
            // Its end closes the channel.
            verify::verify(&core.store, scope, tell).await
        };
        let relay = async {
            while let Some(said) = hear.recv().await {
                let said = match said {
                    Said::Progress(stage, counts) => verify_logs_response::Said::Progress(progress(stage, &counts)),
                    Said::Finding(found) => verify_logs_response::Said::Finding(finding(found, &slugs)),
                };
                let response = VerifyLogsResponse { said: Some(said) };
                say.send(Ok(response)).await.map_err(|_gone| Error::Unavailable("the caller is gone"))?;
            }
            Ok::<_, Error>(())
        };
        let (counts, relayed) = tokio::join!(work, relay);
        relayed?;
        let counts = counts.map_err(|error| match error {
            verify::Error::Store(error) => error.into(),
            verify::Error::Gone => Error::Unavailable("the caller is gone"),
        })?;
        let said = Some(verify_logs_response::Said::Summary(summary(counts, core.store.signer())));
        say.send(Ok(VerifyLogsResponse { said })).await.map_err(|_gone| Error::Unavailable("the caller is gone"))
    }))
}

fn progress(stage: Stage, counts: &Counts) -> VerifyProgress {
    let Counts { seals, rows, records, .. } = *counts;
    VerifyProgress { stage: stage.as_str().into(), seals, rows, records }
}

fn finding(found: Finding, slugs: &BTreeMap<Uuid, String>) -> LogFinding {
    let organization = found.org.and_then(|org| slugs.get(&org)).map(|slug| format!("organizations/{slug}"));
    let lane = found.lane;
    LogFinding {
        kind: found.kind.as_str().into(),
        log: found.table.as_str().into(),
        message: found.message,
        node: lane.map(|lane| format!("nodes/{}", lane.node_id)).unwrap_or_default(),
        boot_id: lane.map(|lane| lane.boot_id.to_string()).unwrap_or_default(),
        lane: lane.map(|lane| lane.lane).unwrap_or_default(),
        sequence: found.seq,
        row: found.key.map(|(_, id)| id.to_string()).unwrap_or_default(),
        half: found.half.map(|half| half.as_str().into()).unwrap_or_default(),
        time: found.key.map(|(at, _)| aip::timestamp(at)),
        organization: organization.unwrap_or_default(),
    }
}

fn summary(counts: Counts, signer: &Signer) -> VerifySummary {
    VerifySummary {
        clean: counts.findings.is_empty(),
        findings: counts.findings.iter().map(|(kind, count)| (kind.as_str().into(), *count)).collect(),
        checkpoints: counts.checkpoints,
        seals: counts.seals,
        lanes: counts.lanes,
        halves: counts.halves,
        rows: counts.rows,
        records: counts.records,
        expired: counts.expired,
        before_evidence: counts.before_evidence,
        unsigned: counts.unsigned,
        key_id: signer.key_id().unwrap_or_default().into(),
        seals_since_checkpoint: counts.seals_since_checkpoint,
        last_checkpoint_time: counts.last_checkpoint.map(aip::timestamp),
    }
}

async fn checkpoints(api: &Api, request: &ListCheckpointsRequest) -> Result<ListCheckpointsResponse, Error> {
    let pages = Pages::new(&api.core.custody, request.page_size, &[CHECKPOINTS])?;
    let before = pages.position(&request.page_token)?.unwrap_or(i64::MAX);
    let mut connection = api.core.store.connection().await?;
    let mut found = evidence::checkpoints_before(&mut connection, before, pages.size + 1).await?;
    let next_page_token = pages.cut(&mut found, |kept| kept.checkpoint.number)?;
    let signer = api.core.store.signer();
    Ok(ListCheckpointsResponse { checkpoints: found.into_iter().map(|kept| checkpoint(kept, signer)).collect(), next_page_token })
}

fn checkpoint(kept: KeptCheckpoint, signer: &Signer) -> Checkpoint {
    let said = kept.checkpoint;
    Checkpoint {
        number: said.number,
        take_time: Some(aip::timestamp(said.taken_at)),
        hash: hex::encode(kept.hash),
        previous_hash: hex::encode(said.previous_hash),
        root: hex::encode(said.root),
        seals: said.seals,
        audit_number: said.audit_number,
        audit_hash: hex::encode(said.audit_hash),
        public_key: signer.public_key(&kept.signature.key_id).unwrap_or_default(),
        key_id: kept.signature.key_id,
        signature: BASE64.encode(kept.signature.bytes),
    }
}
