//! `mcpgw membership`: who belongs to an organisation, with which role.

mod create;
mod delete;
mod get;
mod list;
mod update;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::membership_service_client::MembershipServiceClient;
use mcp_gateway::proto::admin::v1::{ListMembershipsRequest, Membership};

use crate::args::{self, Mask};
use crate::context::Context;
use crate::failure::Failure;
use crate::names;

/// Who belongs to an organisation, with which role
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists members
    List(list::Args),
    /// Shows one membership
    Get(get::Args),
    /// Makes a user a member
    Create(create::Args),
    /// Changes the fields that flags name
    Update(update::Args),
    /// Ends a membership
    Delete(delete::Args),
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Create(args) => create::run(cx, args).await,
        Command::Update(args) => update::run(cx, args).await,
        Command::Delete(args) => delete::run(cx, args).await,
    }
}

/// The fields that people set.
#[derive(Debug, Args)]
struct Fields {
    /// What the member may do in the organisation's administration
    #[arg(long, value_parser = args::role())]
    role: Option<i32>,
    /// A role name for policies, such as engineer; repeatable, '' for none
    #[arg(long, value_name = "NAME")]
    policy_role: Vec<String>,
    /// A group name for policies; repeatable, '' for none
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
}

impl Fields {
    fn apply(self, to: &mut Membership, mask: &mut Mask) {
        mask.set("role", &mut to.role, self.role);
        mask.replace("policy_roles", &mut to.policy_roles, self.policy_role);
        mask.replace("groups", &mut to.groups, self.group);
    }
}

/// `organizations/{slug}/memberships/{user uid}`. An email address is looked up among the members, because not
/// everybody who may see members may list the installation's users.
async fn name(cx: &Context, given: &str) -> anyhow::Result<String> {
    if !given.contains('@') {
        let user = names::user(cx, given).await;
        let given = if given == "me" { user? } else { given.to_owned() };
        let uid = if given.starts_with("users/") { names::id(&given) } else { given.as_str() };
        return names::child(cx, "memberships", uid);
    }
    let parent = cx.org()?;
    let mut page_token = String::new();
    loop {
        let request = ListMembershipsRequest { parent: parent.clone(), page_size: 500, page_token };
        let page = cx.call(MembershipServiceClient::new, request, async |c, r| c.list_memberships(r).await).await?;
        let found = page.memberships.into_iter().find(|it| it.email.to_lowercase() == given.to_lowercase());
        if let Some(membership) = found {
            return Ok(membership.name);
        }
        if page.next_page_token.is_empty() {
            return Err(Failure::NotFound(format!("{given} is no member of {parent}")).into());
        }
        page_token = page.next_page_token;
    }
}
