//! The scale rig: a private Postgres, a control plane as a process of its own, a generated installation, and a fleet of lean simulated
//! nodes on real streams over mutual TLS. Measures what distribution costs; judges nothing. Run by `mcpgw-scale` and by a smoke test.

mod fill;
mod fleet;
mod held;
mod node;
mod process;
mod report;
mod socket;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mcp_gateway::proto::admin::v1::policy_service_client::PolicyServiceClient;
use mcp_gateway::proto::admin::v1::{GetPolicyRequest, UpdatePolicyRequest};
use mcp_gateway::proto::config::v1::Match;
use mcp_gateway::type_url;
use mcpgw_controlplane::testing::{OWNER_PASSWORD, Postgres};
use tonic::transport::Endpoint;

use crate::fleet::{Admin, OWNER_EMAIL};
use fleet::Fleet;
use process::ControlPlane;
pub use report::{Change, Latencies, Phase, Report, Traffic};

/// How large the run is. Every part has a flag.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Simulated nodes, each with an identity, a TCP connection and a discovery stream of its own
    #[arg(long, default_value_t = 1000)]
    pub streams: usize,
    /// Organisations, all in one pool
    #[arg(long, default_value_t = 500)]
    pub organizations: u32,
    /// MCP servers, spread evenly over the organisations
    #[arg(long, default_value_t = 10_000)]
    pub servers: u32,
    /// Policies, spread evenly over the organisations
    #[arg(long, default_value_t = 100_000)]
    pub policies: u32,
    /// API keys, spread evenly over the organisations
    #[arg(long, default_value_t = 5000)]
    pub keys: u32,
    /// Policies to edit, one after the other, each in another organisation
    #[arg(long, default_value_t = 30)]
    pub changes: u32,
    /// The control plane to measure; default: `mcpgw-controlplane` beside this program
    #[arg(long, value_name = "PATH")]
    pub control_plane: Option<PathBuf>,
    /// Longest wait for any one phase, in seconds
    #[arg(long, default_value_t = 600)]
    pub patience: u64,
    /// Say nothing on the way
    #[arg(long)]
    pub quiet: bool,
}

/// Descriptors beside those of the streams.
const SPARE_DESCRIPTORS: u64 = 200;
/// Simulated nodes enrol at this pace, a little below what the control plane admits.
pub(crate) const ENROLMENTS_PER_SECOND: u64 = 18;

/// One run.
struct Run {
    options: Options,
    control: ControlPlane,
    fleet: Fleet,
    report: Report,
    began: Instant,
    // Last, so that the database outlives who uses it.
    postgres: Postgres,
}

/// Measures everything.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    crate::fleet::install_crypto();
    raise_descriptors(options.streams as u64 + SPARE_DESCRIPTORS)?;
    let mut run = Run::start(options).await?;
    run.load().await?;
    run.enrol().await?;
    run.attach().await?;
    run.change().await?;
    run.reconnect().await?;
    run.restart().await?;
    run.control.stop().await?;
    Ok(run.report)
}

impl Run {
    async fn start(options: Options) -> anyhow::Result<Self> {
        let began = Instant::now();
        let postgres = tokio::task::spawn_blocking(Postgres::start).await?;
        postgres.execute("CREATE DATABASE scale").await;
        let control = ControlPlane::start(options.control_plane.as_deref(), &postgres.url("scale")).await?;
        let fleet = Fleet::new(control.nodes());
        Ok(Self { report: Report::of(&options), options, control, fleet, began, postgres })
    }

    fn say(&self, what: &str) {
        if !self.options.quiet {
            report::progress(self.began.elapsed(), what);
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.options.patience)
    }

    /// Fills the tables behind the control plane's back, makes one version, and waits until it is published.
    async fn load(&mut self) -> anyhow::Result<()> {
        self.say("generating organisations, servers, policies and keys");
        let version = fill::fill(&self.postgres.url("scale"), &self.options).await?;
        self.say("waiting until they are published");
        let phase = self.control.begin()?;
        self.control.published(version, self.patience()).await?;
        self.report.first_load = self.control.end(phase)?;
        self.report.memory_without_streams = self.control.memory()?;
        Ok(())
    }

    async fn enrol(&mut self) -> anyhow::Result<()> {
        self.say(&format!("enrolling {} nodes at {ENROLMENTS_PER_SECOND} per second", self.options.streams));
        let admin = self.admin().await?;
        self.fleet.enrol(&admin, &self.control, self.options.streams).await
    }

    async fn attach(&mut self) -> anyhow::Result<()> {
        self.say("every node attaches with nothing in its hands");
        let phase = self.control.begin()?;
        self.fleet.open();
        self.fleet.confirmed(1, self.patience()).await?;
        self.report.attach = self.control.end(phase)?;
        self.report.attach_traffic = Traffic::median(self.fleet.sessions());
        self.report.resources = self.fleet.resources();
        self.report.memory_with_streams = self.control.memory()?;
        Ok(())
    }

    /// Edits one policy after the other through the admin API, each when every node runs the one before.
    async fn change(&mut self) -> anyhow::Result<()> {
        self.say(&format!("{} changes of one organisation each", self.options.changes));
        let admin = self.admin().await?;
        let phase = self.control.begin()?;
        for number in 0..self.options.changes {
            let before = self.fleet.counts();
            let version = edit(&admin, &self.options, number).await?;
            let applied = self.fleet.applied(version, self.patience()).await?;
            self.report.propagation.extend(applied);
            let after = self.fleet.counts();
            self.report.changes.extend(before.iter().zip(&after).map(|(before, after)| after.since(before)));
        }
        self.report.change = self.control.end(phase)?;
        Ok(())
    }

    /// Every node loses its connection once; nothing has changed.
    async fn reconnect(&mut self) -> anyhow::Result<()> {
        self.say("every node loses its connection and comes back; nothing has changed");
        let phase = self.control.begin()?;
        self.fleet.cut();
        self.fleet.confirmed(2, self.patience()).await?;
        self.report.reconnect = self.control.end(phase)?;
        self.report.reconnect_traffic = Traffic::largest(self.fleet.sessions());
        Ok(())
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        self.say("the control plane is killed and started again");
        let killed = Instant::now();
        self.control.restart().await?;
        let phase = self.control.begin()?;
        self.fleet.confirmed(3, self.patience()).await?;
        self.report.restart = Phase { seconds: killed.elapsed().as_secs_f64(), ..self.control.end(phase)? };
        self.report.restart_traffic = Traffic::largest(self.fleet.sessions());
        self.report.memory_after_restart = self.control.memory()?;
        self.report.refused = self.fleet.refused();
        self.report.compilations = self.fleet.compiled();
        self.say("done");
        Ok(())
    }

    async fn admin(&self) -> anyhow::Result<Admin> {
        let channel = Endpoint::from_shared(format!("http://{}", self.control.admin()))?.connect().await?;
        Ok(Admin::login(channel, OWNER_EMAIL, OWNER_PASSWORD, "").await?)
    }
}

/// Edits a policy of the `number`th organisation; the version that this makes.
async fn edit(admin: &Admin, options: &Options, number: u32) -> anyhow::Result<u64> {
    let name = fill::policy_name(number % options.organizations.min(options.policies));
    let mut client = PolicyServiceClient::new(admin.channel.clone());
    let get = GetPolicyRequest { name: name.clone() };
    let mut policy = client.get_policy(admin.request(get)).await.with_context(|| name.clone())?.into_inner();
    policy.r#match = Some(Match { tools: vec![format!("edited_{number}")], ..Match::default() });
    let update_mask = Some(prost_types::FieldMask { paths: vec!["match".to_owned()] });
    let request = UpdatePolicyRequest { policy: Some(policy), update_mask, ..UpdatePolicyRequest::default() };
    Ok(client.update_policy(admin.request(request)).await.context(name)?.into_inner().config_version)
}

/// A stream is a descriptor here, and another one in the control plane, which inherits the limit.
pub(crate) fn raise_descriptors(needed: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed.max(limit.maximum.unwrap_or(needed).min(65_536))), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).with_context(|| {
        let most = limit.maximum.unwrap_or_default();
        format!(
            "{needed} open files are needed and {most} allowed: run `ulimit -Hn {needed}` as root first, or ask for fewer streams"
        )
    })
}

/// The types that a manifest covers, and the manifest.
fn distributed() -> impl Iterator<Item = &'static str> {
    type_url::COVERED.into_iter().chain([type_url::MANIFEST])
}
