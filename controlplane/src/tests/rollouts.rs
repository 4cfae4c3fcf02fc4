//! RolloutService over gRPC, and what the control plane does by itself, on a real database. The nodes are rows; real ones are in the e2e tests.

use mcp_gateway::{
    document::Document,
    proto::admin::v1::{
        AbortRolloutRequest, ApplyOrganizationRequest, CreateRolloutRequest, ExportOrganizationRequest, GetRolloutRequest,
        ListRolloutsRequest, OrganizationDocument, ResumeRolloutRequest, Role, Rollout, RolloutState, RolloutStep, rollout_step,
    },
    snapshot::Digest,
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    admin::{Admin, CANARY, Person, refused},
    history::dry_run,
};

const ACME: &str = "organizations/acme";
const BEFORE: &str = "\
organization: acme
servers:
  github:
    endpoints: [{ url: 'https://mcp.example.com/mcp' }]
    upstreamCredential: { header: Authorization, value: 'Bearer CANARY' }
  time: { endpoints: [{ url: 'http://127.0.0.1:9/mcp' }], allowAnonymous: true }
policies:
  engineers: { effect: allow, subjects: { roles: [engineer] }, servers: [github], match: { tools: ['search_*'] } }
  all-times: { effect: allow, subjects: { anonymous: true }, servers: [time], match: { tools: ['*'] } }
limits:
  searches: { per: [user], servers: [github], windows: [{ limit: 100, seconds: 60 }] }
  crowd: { maxConcurrent: 5 }
";
/// Everything that can become of things: changed, with and without its credential; new; gone.
const AFTER: &str = "\
organization: acme
displayName: Acme
servers:
  github:
    displayName: GitHub
    endpoints: [{ url: 'https://mcp.example.com/mcp' }]
    upstreamCredential: { header: Authorization }
  weather:
    endpoints: [{ url: 'http://127.0.0.1:8/mcp' }]
    upstreamCredential: { header: X-Token, value: 'CANARY too' }
policies:
  engineers: { effect: deny, subjects: { roles: [engineer] }, servers: [github, weather], match: { tools: ['*'] } }
limits:
  searches: { per: [user], servers: [weather], windows: [{ limit: 100, seconds: 60 }] }
  exports: { windows: [{ limit: 5, seconds: 3600 }] }
";

fn read(text: &str) -> OrganizationDocument {
    let text = text.replace("CANARY", CANARY);
    Document::parse(&text, &mut |_| Err("nothing lies elsewhere".into())).unwrap().resource
}

async fn apply(person: &Person, document: OrganizationDocument) -> Result<u64, Status> {
    let request = ApplyOrganizationRequest { document: Some(document), ..Default::default() };
    Ok(person.documents().apply_organization(request).await?.into_inner().config_version)
}

fn steps(nodes: &[u32]) -> Vec<RolloutStep> {
    nodes.iter().map(|nodes| RolloutStep { share: Some(rollout_step::Share::Nodes(*nodes)) }).collect()
}

fn asked(document: OrganizationDocument) -> CreateRolloutRequest {
    let bake_duration = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let rollout = Rollout { steps: steps(&[1, 2]), bake_duration, ..Default::default() };
    CreateRolloutRequest { document: Some(document), rollout: Some(rollout), ..Default::default() }
}

async fn create(person: &Person, request: CreateRolloutRequest) -> Result<Rollout, Status> {
    person.rollouts().create_rollout(request).await.map(tonic::Response::into_inner)
}

async fn get(person: &Person, name: &str) -> Rollout {
    person.rollouts().get_rollout(GetRolloutRequest { name: name.into() }).await.unwrap().into_inner()
}

/// An organisation with a configuration and so many nodes, which run whatever there is.
async fn acme(nodes: u128) -> (Admin, Person) {
    let mut admin = Admin::start().await;
    let org = admin.organization("acme").await;
    let owner = admin.member(org, Role::Owner).await;
    apply(&owner, read(BEFORE)).await.unwrap();
    for n in 1..=nodes {
        node(&mut admin, n).await;
    }
    (admin, owner)
}

async fn node(admin: &mut Admin, n: u128) {
    let row = "INSERT INTO nodes (id, pool, spki_sha256, hpke_public_key, certificate_expires_at, labels) \
        VALUES ($1, 'default', '', '', now() + interval '1 d', '{\"ring\": \"canary\"}')";
    sqlx::query(row).bind(Uuid::from_u128(n)).execute(&mut admin.sql).await.unwrap();
    let status = "INSERT INTO node_status (node_id, connected, epoch, version) VALUES ($1, true, 1, 1000000)";
    sqlx::query(status).bind(Uuid::from_u128(n)).execute(&mut admin.sql).await.unwrap();
}

/// Returns once what is published is as expected.
async fn published<T>(admin: &Admin, expected: impl Fn(&crate::publish::Published) -> Option<T>) -> T {
    admin.running.core.publications.wake();
    let mut watch = admin.running.core.publications.watch();
    let wait = watch.wait_for(|now| now.as_ref().is_some_and(|now| expected(now).is_some()));
    let now =
        tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("it is published").unwrap().clone().unwrap();
    expected(&now).unwrap()
}

fn names(rollout: &Rollout) -> Vec<String> {
    let resources = &rollout.diff.as_ref().unwrap().resources;
    resources.iter().map(|it| format!("{} {}", it.operation, it.resource.trim_start_matches("organizations/acme/"))).collect()
}

#[tokio::test]
async fn what_is_promoted_is_byte_for_byte_what_the_canaries_ran() {
    let (mut admin, owner) = acme(2).await;
    let request = CreateRolloutRequest {
        rollout: Some(Rollout {
            steps: steps(&[1, 2]),
            bake_duration: Some(prost_types::Duration::default()),
            ..Default::default()
        }),
        ..asked(read(AFTER))
    };
    // Held, so that the first step can be looked at.
    sqlx::query("UPDATE node_status SET connected = false").execute(&mut admin.sql).await.unwrap();
    let rollout = create(&owner, request).await.unwrap();
    let changed = [
        "update organizations/acme",
        "delete policies/all-times",
        "update policies/engineers",
        "delete rateLimits/crowd",
        "create rateLimits/exports",
        "update rateLimits/searches",
        "update servers/github",
        "delete servers/time",
        "create servers/weather",
    ];
    assert_eq!(names(&rollout), changed);
    let (tried, stable): (Digest, Digest) = published(&admin, |now| {
        let trial = now.trials.get("default")?;
        Some((trial.scope.digest, now.scopes["default"].digest))
    })
    .await;
    assert_ne!(tried, stable);
    let seen = get(&owner, &rollout.name).await;
    assert_eq!((seen.waiting_for.as_str(), seen.step), ("no canary is connected", 1));
    assert!(!admin.state().await.contains("weather"), "nothing of it is in the tables");

    sqlx::query("UPDATE node_status SET connected = true, last_seen_at = now()").execute(&mut admin.sql).await.unwrap();
    let promoted =
        published(&admin, |now| (now.trials.is_empty() && now.scopes["default"].digest == tried).then_some(now.head)).await;
    let end = get(&owner, &rollout.name).await;
    assert_eq!((end.state(), end.config_version, end.step), (RolloutState::Promoted, promoted.version.version, 2));
    assert_eq!(end.canaries.len(), 2);
    let audit = admin.newest_audit().await;
    assert_eq!((audit.0.as_str(), audit.1.as_str(), audit.2), ("system", "rollout.promote", rollout.name));
    assert_eq!(apply(&owner, read(AFTER)).await.unwrap(), 0, "it is what the document says");
    let state = admin.state().await;
    assert!(state.contains("weather") && !state.contains(CANARY));
}

#[tokio::test]
async fn a_candidate_keeps_working_when_the_key_of_credentials_rotates() {
    let (mut admin, owner) = acme(1).await;
    create(&owner, asked(read(AFTER))).await.unwrap();
    let before: Digest = published(&admin, |now| Some(now.trials.get("default")?.scope.digest)).await;
    let sealed = "SELECT candidate FROM rollouts";
    let sealed_before: serde_json::Value = sqlx::query_scalar(sealed).fetch_one(&mut admin.sql).await.unwrap();
    let platform = admin.platform_admin().await;
    let mut custody = mcp_gateway::proto::admin::v1::custody_service_client::CustodyServiceClient::new(platform.client());
    let rotate = mcp_gateway::proto::admin::v1::RotateCustodyKeyRequest { purpose: "credential".into(), ..Default::default() };
    let version = custody.rotate_custody_key(rotate).await.unwrap().into_inner().config_version;
    let sealed_after: serde_json::Value = sqlx::query_scalar(sealed).fetch_one(&mut admin.sql).await.unwrap();
    assert_ne!(sealed_before, sealed_after);
    let after: Digest =
        published(&admin, |now| (now.head.version.version >= version).then(|| now.trials["default"].scope.digest)).await;
    assert_eq!(before, after, "sealed anew it is still the same");
}

#[tokio::test]
async fn what_cannot_be_rolled_out_is_refused_and_nothing_is_left_of_it() {
    let (mut admin, owner) = acme(1).await;
    let before = admin.state().await;
    let ask = |edit: fn(&mut CreateRolloutRequest)| {
        let mut request = asked(read(AFTER));
        edit(&mut request);
        create(&owner, request)
    };
    let same = |request: &mut CreateRolloutRequest| request.document = Some(read(BEFORE));
    let invalid = |request: &mut CreateRolloutRequest| {
        let bad = AFTER.replace("servers: [github, weather]", "servers: [nowhere]");
        request.document = Some(read(&bad));
    };
    let moved = |request: &mut CreateRolloutRequest| request.document.as_mut().unwrap().pool = "edge".into();
    let member = |request: &mut CreateRolloutRequest| {
        let more = format!("{AFTER}apiKeys:\n  abcdefghijklmnop: {{ policyRoles: [x], secretSha256: {} }}\n", "a".repeat(64));
        request.document = Some(read(&more));
    };
    let rollout = |request: &mut CreateRolloutRequest| {
        let share = Some(rollout_step::Share::Percent(101));
        let bake_duration = Some(prost_types::Duration { seconds: 8 * 86400, nanos: 0 });
        let node_labels = [("-".to_owned(), String::new())].into();
        let steps = vec![RolloutStep { share }, RolloutStep::default()];
        request.rollout = Some(Rollout { steps, bake_duration, node_labels, min_calls: 10_001, ..Default::default() });
    };
    let nobody = |request: &mut CreateRolloutRequest| {
        request.rollout.as_mut().unwrap().node_labels = [("ring".to_owned(), "none".to_owned())].into();
    };
    refused("nothing", ask(same).await, Code::FailedPrecondition, &[]);
    refused("invalid", ask(invalid).await, Code::InvalidArgument, &["policies.engineers.servers[0]"]);
    refused("another pool", ask(moved).await, Code::PermissionDenied, &[]);
    refused("identities", ask(member).await, Code::FailedPrecondition, &[]);
    refused("no such nodes", ask(nobody).await, Code::FailedPrecondition, &[]);
    let fields = ["rollout.node_labels", "rollout.steps[0]", "rollout.steps[1]", "rollout.bake_duration", "rollout.min_calls"];
    refused("how", ask(rollout).await, Code::InvalidArgument, &fields);
    let answer =
        owner.rollouts().create_rollout(CreateRolloutRequest { validate_only: true, ..asked(read(AFTER)) }).await.unwrap();
    assert_eq!(dry_run(answer.metadata()).unwrap().resources.len(), 9);
    assert_eq!(answer.into_inner().canaries, [format!("nodes/{}", Uuid::from_u128(1))]);
    assert_eq!(admin.state().await, before);
    let rollouts: i64 = sqlx::query_scalar("SELECT count(*) FROM rollouts").fetch_one(&mut admin.sql).await.unwrap();
    assert_eq!(rollouts, 0);
}

#[tokio::test]
async fn until_it_is_over_it_can_be_halted_resumed_and_aborted_and_its_organisation_waits() {
    let (mut admin, owner) = acme(1).await;
    let answer = owner.rollouts().create_rollout(asked(read(AFTER))).await.unwrap();
    assert_eq!(dry_run(answer.metadata()), None);
    let rollout = answer.into_inner();
    let waits = apply(&owner, read(&BEFORE.replace("deny", "allow").replace("search_*", "x"))).await.unwrap_err();
    assert_eq!(waits.code(), Code::FailedPrecondition);
    assert!(waits.message().contains(&rollout.name), "{waits:?}");
    let second = create(&owner, asked(read(&AFTER.replace("Acme", "Other")))).await.unwrap_err();
    assert_eq!(second.code(), Code::FailedPrecondition);

    let resume = |etag: &str| ResumeRolloutRequest { name: rollout.name.clone(), etag: etag.into(), ..Default::default() };
    refused("runs", owner.rollouts().resume_rollout(resume("")).await, Code::FailedPrecondition, &[]);
    let refuse = "UPDATE node_status SET refused_epoch = 1, refused_version = 1000001, \
        problems = ARRAY[(SELECT id::text FROM organizations WHERE slug = 'acme') || ': no']";
    sqlx::query(refuse).execute(&mut admin.sql).await.unwrap();
    published(&admin, |now| (now.trials.is_empty() && now.head.version.version > rollout.config_version).then_some(())).await;
    let halted = get(&owner, &rollout.name).await;
    assert_eq!((halted.state(), halted.halt_reason.as_str()), (RolloutState::Halted, "refused"));
    assert!(halted.halt_detail.contains(&format!("nodes/{}", Uuid::from_u128(1))), "{}", halted.halt_detail);
    let audit = admin.newest_audit().await;
    assert_eq!((audit.0.as_str(), audit.1.as_str(), audit.3.cast_unsigned()), ("system", "rollout.halt", halted.config_version));
    let metrics = admin.running.core.metrics.text();
    assert!(metrics.contains("mcpgw_controlplane_rollout_halts_total{reason=\"refused\"} 1"), "{metrics}");

    let forgiven = "UPDATE node_status SET refused_version = 0, problems = '{}'";
    sqlx::query(forgiven).execute(&mut admin.sql).await.unwrap();
    refused("stale", owner.rollouts().resume_rollout(resume(&rollout.etag)).await, Code::Aborted, &[]);
    let resumed = owner.rollouts().resume_rollout(resume(&halted.etag)).await.unwrap().into_inner();
    assert_eq!((resumed.state(), resumed.halt_reason.as_str()), (RolloutState::Running, ""));
    assert!(resumed.step_version > halted.config_version);
    let abort = AbortRolloutRequest { name: rollout.name.clone(), ..Default::default() };
    let aborted = owner.rollouts().abort_rollout(abort.clone()).await.unwrap().into_inner();
    assert_eq!(aborted.state(), RolloutState::Aborted);
    refused("over", owner.rollouts().abort_rollout(abort).await, Code::FailedPrecondition, &[]);
    apply(&owner, read(&BEFORE.replace("search_*", "x"))).await.unwrap();
    let list = ListRolloutsRequest { parent: ACME.into(), ..Default::default() };
    assert_eq!(owner.rollouts().list_rollouts(list).await.unwrap().into_inner().rollouts, [aborted]);
    let exported = owner.documents().export_organization(ExportOrganizationRequest { name: ACME.into() }).await.unwrap();
    assert_eq!(exported.into_inner().display_name, "");
}
