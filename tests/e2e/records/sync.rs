//! An organisation that wants its records on the disk gets no answer before they are there; others do not wait for it. What the process asks
//! of the kernel is watched from outside.

use mcp_gateway::proto::admin::v1::organization_service_client::OrganizationServiceClient;
use mcp_gateway::proto::admin::v1::{Organization, UpdateOrganizationRequest};
use mcp_gateway::proto::config::v1::AuditSync;
use mcpgw_tests::backend::Backend;
use mcpgw_tests::fleet::{Call, Control, Http, NodeProcess, ORG, SERVER};
use mcpgw_tests::strace::Strace;
use serde_json::json;

use super::{organization, traffic};

/// The organisation that does not ask for it.
const HASTY: &str = "hasty";
const CALLS: usize = 5;

/// What a node does for a call, as seen from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A segment of the spool is on the disk.
    Synced,
    /// The call goes on to the server.
    Sent,
    /// The answer's head goes on to the client; with it the whole of a refusal.
    Answered,
    /// The last byte of a stream does.
    Ended,
}

impl Step {
    /// Of a line of strace. A sync counts when it is done, what is sent when it begins; one write may be head and end of an answer.
    fn of(line: &str) -> Vec<Self> {
        let synced = line.contains("fdatasync") && line.trim_end().ends_with("= 0");
        let signs = [
            (Self::Synced, synced),
            (Self::Sent, line.contains("\"POST /mcp")),
            (Self::Answered, line.contains("\"HTTP/1.1 ")),
            (Self::Ended, line.contains("0\\r\\n\\r\\n\"")),
        ];
        signs.into_iter().filter(|(_, seen)| *seen).map(|(step, _)| step).collect()
    }
}

struct Scene {
    node: NodeProcess,
    http: Http,
    keys: [(&'static str, String); 2],
    _control: Control,
    _backend: Backend,
}

impl Scene {
    async fn start() -> Self {
        let control = Control::start().await.unwrap();
        let admin = control.owner().await.unwrap();
        let backend = Backend::on_free_port().await.unwrap();
        let (careful, hasty) = (organization(&admin, ORG, &backend).await, organization(&admin, HASTY, &backend).await);
        let node = NodeProcess::join(&control, &admin, &[]).await.unwrap();
        let name = format!("organizations/{ORG}");
        let wanted = Organization { name, audit_sync: AuditSync::Disk.into(), ..Organization::default() };
        let request = UpdateOrganizationRequest { organization: Some(wanted), ..UpdateOrganizationRequest::default() };
        let mut organizations = OrganizationServiceClient::new(admin.channel.clone());
        let changed = organizations.update_organization(admin.request(request)).await.unwrap().into_inner();
        assert_eq!(changed.audit_sync(), AuditSync::Disk);
        admin.wait(changed.config_version).await.unwrap();
        let keys = [(ORG, careful), (HASTY, hasty)];
        Self { node, http: Http::default(), keys, _control: control, _backend: backend }
    }

    /// The status that a call of one of the organisations is answered with.
    async fn call(&self, org: &str, tool: &str) -> u16 {
        let key = &self.keys.iter().find(|(name, _)| *name == org).unwrap().1;
        let url = self.node.url(&format!("/o/{org}/servers/{SERVER}/mcp"));
        self.http.send(Call::tool(&url, key, tool, &json!({}))).await.unwrap().status.as_u16()
    }

    async fn traced(&self, arguments: &[&str]) -> Strace {
        Strace::attach(self.node.id().unwrap(), arguments).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_wait_for_the_disk_where_their_organisation_says_so_and_nowhere_else() {
    use Step::{Answered, Ended, Sent, Synced};
    const DENIED: &str = "no such tool";
    let scene = Scene::start().await;
    for org in [ORG, HASTY] {
        assert_eq!(scene.call(org, traffic::PLAIN).await, 200, "connections are open");
    }
    let strace = scene.traced(&["-s", "4096", "-e", "trace=fdatasync,write,writev,sendto,sendmsg"]).await;
    for _ in 0..CALLS {
        assert_eq!(scene.call(HASTY, traffic::PLAIN).await, 200);
        assert_eq!(scene.call(ORG, traffic::PLAIN).await, 200);
        scene.call(HASTY, DENIED).await;
        scene.call(ORG, DENIED).await;
    }
    let lines = strace.detach().await.unwrap();
    let steps: Vec<Step> = lines.iter().flat_map(|line| Step::of(line)).collect();
    let (hasty, careful) = (&[Sent, Answered, Ended][..], &[Synced, Sent, Answered, Synced, Ended][..]);
    let round = [hasty, careful, &[Answered], &[Synced, Answered]].concat();
    assert_eq!(steps, round.repeat(CALLS), "{}", lines.join("\n"));

    // A disk that fails: nobody gets an answer that claims to be recorded, and nobody else notices.
    let strace = scene.traced(&["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"]).await;
    for _ in 0..CALLS {
        assert_eq!(scene.call(ORG, traffic::PLAIN).await, 503);
        assert_eq!(scene.call(HASTY, traffic::PLAIN).await, 200);
    }
    let failed = strace.detach().await.unwrap();
    assert!(failed.iter().filter(|line| line.contains("EIO")).count() >= CALLS, "{}", failed.join("\n"));
    assert_eq!(scene.call(ORG, traffic::PLAIN).await, 200, "the disk is well again, and what failed is not relied on");
    assert!(scene.node.metric("mcpgw_dataplane_audit_spool_syncs").await.unwrap() > 0);
}
