//! `mcpgw policy`: rules of who may use what.

mod create;
mod delete;
mod get;
mod list;
mod update;

use clap::{Args, Subcommand};
use mcp_gateway::proto::admin::v1::Policy;

use crate::args::{self, Mask};
use crate::context::Context;
use crate::names;

/// Rules of who may use what: deny beats allow, nothing matching is a deny
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists policies
    List(list::Args),
    /// Shows one policy
    Get(get::Args),
    /// Creates a policy
    Create(create::Args),
    /// Changes the fields that flags or a file name
    Update(update::Args),
    /// Deletes a policy
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
    /// What a match means
    #[arg(long, value_parser = args::effect())]
    effect: Option<i32>,
    /// Whether the rule decides or only records what it would have decided
    #[arg(long, value_parser = args::mode())]
    mode: Option<i32>,
    /// For people
    #[arg(long)]
    display_name: Option<String>,
    #[command(flatten)]
    subjects: Subjects,
    /// A server's slug, or * for all; repeatable
    #[arg(long, value_name = "SLUG")]
    server: Vec<String>,
    #[command(flatten)]
    patterns: Patterns,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Whom it is about (alternatives)")]
struct Subjects {
    /// A role name, or * for everybody who is signed in; repeatable, '' for none
    #[arg(long, value_name = "NAME")]
    role: Vec<String>,
    /// A group name; repeatable, '' for none
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// A user: email address or uid; repeatable, '' for none
    #[arg(long)]
    user: Vec<String>,
    /// The id of an API key; repeatable, '' for none
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Whether callers without a credential match
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    anonymous: Option<bool>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What it is about (* stands for any run of characters)")]
struct Patterns {
    /// A pattern of tool names; repeatable, '' for none
    #[arg(long, value_name = "PATTERN")]
    tool: Vec<String>,
    /// A pattern of prompt names; repeatable, '' for none
    #[arg(long, value_name = "PATTERN")]
    prompt: Vec<String>,
    /// A pattern of resource URIs; repeatable, '' for none
    #[arg(long, value_name = "PATTERN")]
    resource: Vec<String>,
    /// A method that servers send to clients, such as sampling/createMessage; only for deny; repeatable
    #[arg(long, value_name = "METHOD")]
    method: Vec<String>,
}

impl Fields {
    async fn apply(self, cx: &Context, to: &mut Policy, mask: &mut Mask) -> anyhow::Result<()> {
        mask.set("effect", &mut to.effect, self.effect);
        mask.set("mode", &mut to.mode, self.mode);
        mask.set("display_name", &mut to.display_name, self.display_name);
        mask.replace("servers", &mut to.servers, self.server);
        self.subjects.apply(cx, to, mask).await?;
        self.patterns.apply(to, mask);
        Ok(())
    }
}

impl Subjects {
    /// The message is replaced whole, so the parts that no flag names keep what was read.
    async fn apply(self, cx: &Context, to: &mut Policy, mask: &mut Mask) -> anyhow::Result<()> {
        let mut users = Vec::with_capacity(self.user.len());
        for user in &self.user {
            let empty = user.is_empty();
            users.push(if empty { String::new() } else { names::id(&names::user(cx, user).await?).to_owned() });
        }
        let mut subjects = to.subjects.take().unwrap_or_default();
        mask.replace("subjects", &mut subjects.roles, self.role);
        mask.replace("subjects", &mut subjects.groups, self.group);
        mask.replace("subjects", &mut subjects.users, users);
        mask.replace("subjects", &mut subjects.api_keys, self.api_key);
        mask.set("subjects", &mut subjects.anonymous, self.anonymous);
        to.subjects = Some(subjects);
        Ok(())
    }
}

impl Patterns {
    fn apply(self, to: &mut Policy, mask: &mut Mask) {
        let mut patterns = to.r#match.take().unwrap_or_default();
        mask.replace("match", &mut patterns.tools, self.tool);
        mask.replace("match", &mut patterns.prompts, self.prompt);
        mask.replace("match", &mut patterns.resources, self.resource);
        mask.replace("match", &mut patterns.methods, self.method);
        to.r#match = Some(patterns);
    }
}
