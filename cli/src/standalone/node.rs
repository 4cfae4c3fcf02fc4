//! Standalone's own node: joins like any other, waits for its configuration, makes the demo, announces, serves.
//! Never starts the control plane, and asks it for nothing that its API does not give. Called by `standalone`.

use std::pin::pin;

use anyhow::Context as _;
use mcpgw_controlplane::app::{Addresses, Opened};
use mcpgw_dataplane::app::App as DataPlane;
use mcpgw_dataplane::live::Live;
use tokio_util::sync::CancellationToken;

use super::Signals;
use super::admin::Admin;
use super::announce::{self, Announcement, Trial};
use super::demo::{self, DemoFlags};
use super::home::Home;
use super::owner::{Origin, Owner};
use super::plan::{Plan, reachable};
use crate::output::Output;

/// What the node is told.
pub struct Node<'a> {
    pub out: Output,
    pub home: &'a Home,
    pub plan: &'a Plan,
    pub owner: &'a Owner,
    pub demo: &'a DemoFlags,
    pub addresses: Addresses,
}

impl Node<'_> {
    /// Serves until a signal, then drains.
    pub async fn run(self, opened: Opened, signals: &mut Signals) -> anyhow::Result<()> {
        let opening = async {
            let first_start = opened.wait().await?.is_some();
            let app = self.build().await?;
            anyhow::Ok((first_start, app))
        };
        let (first_start, app) = tokio::select! {
            opened = opening => opened?,
            () = signals.next() => return Ok(()),
        };
        let live = app.live().clone();
        let health = app.addresses().admin;
        let stop = CancellationToken::new();
        let mut serving = pin!(app.run(stop.clone()));
        let announced = async {
            self.announce(&live, first_start, health).await?;
            signals.next().await;
            anyhow::Ok(())
        };
        let result = tokio::select! {
            ended = &mut serving => return ended.context("the data plane"),
            result = announced => result,
        };
        stop.cancel();
        // Whoever asks twice does not want to wait.
        tokio::select! {
            ended = &mut serving => result.and(ended.context("the data plane")),
            () = signals.next() => result,
        }
    }

    /// A bound data plane, with a join token if it has not joined yet.
    async fn build(&self) -> anyhow::Result<DataPlane> {
        let mut config = self.plan.data_plane(self.home, self.addresses.node)?;
        if !Plan::has_joined(self.home)? {
            let admin = Admin::sign_in(self.home, self.addresses.admin, self.owner).await?;
            config.control_plane.join_token = Some(admin.join_token().await?.into());
            admin.end().await?;
        }
        Ok(DataPlane::build(config).await?)
    }

    async fn announce(&self, live: &Live, first_start: bool, health: std::net::SocketAddr) -> anyhow::Result<()> {
        runs(live, 0).await;
        let gateway = self.plan.public_url.clone();
        let admin = format!("http://{}", reachable(self.addresses.admin));
        let demo = if self.demo.demo {
            let signed_in = Admin::sign_in(self.home, self.addresses.admin, self.owner).await?;
            let made = demo::ensure(&signed_in.cx, self.home, &self.demo.demo_server).await?;
            signed_in.end().await?;
            runs(live, made.version).await;
            Some(Trial::new(&gateway, made))
        } else {
            None
        };
        // Shown once; again only by a start that follows one which was cut off, and with a demo, where it is part of it.
        let show_owner = first_start || self.demo.demo || self.owner.origin == Origin::Saved;
        let announcement = Announcement {
            login: announce::login(&gateway, &admin, self.owner, self.demo.demo),
            gateway,
            admin,
            control_plane_http: format!("http://{}", reachable(self.addresses.http)),
            health: format!("http://{}", reachable(health)),
            nodes: format!("https://{}", reachable(self.addresses.node)),
            data_dir: self.home.dir().display().to_string(),
            owner: show_owner.then(|| self.owner.for_display()),
            demo,
        };
        self.out.value(&announcement, || announcement.text())?;
        if !self.demo.demo {
            // It was needed to join. Whoever owns the installation has read it above.
            Owner::forget(self.home)?;
        }
        Ok(())
    }
}

/// Returns when a configuration of at least this version is in force.
async fn runs(live: &Live, version: u64) {
    let mut changes = live.changed();
    let arrived = || live.snapshot().is_some_and(|it| it.version().version >= version);
    while !arrived() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}
