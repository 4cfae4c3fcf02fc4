//! Flags that say whom a policy or a limit is about, and what. Owns how they fill the messages that both share.
//! Never talks to anybody but to find users by their email addresses. Flattened into the argument structs of `commands/`.

use clap::Args;
use mcp_gateway::proto::config::v1 as config;

use crate::args::Mask;
use crate::context::Context;
use crate::names;

/// Whom it is about.
#[derive(Debug, Args)]
#[command(next_help_heading = "Whom it is about (alternatives)")]
pub struct Subjects {
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

/// What it is about.
#[derive(Debug, Args)]
#[command(next_help_heading = "What it is about (* stands for any run of characters)")]
pub struct Patterns {
    /// A pattern of tool names; repeatable, '' for none
    #[arg(long, value_name = "PATTERN")]
    tool: Vec<String>,
    /// A pattern of prompt names; repeatable, '' for none
    #[arg(long, value_name = "PATTERN")]
    prompt: Vec<String>,
    /// A pattern of resource URIs; repeatable, '' for none
    #[arg(long, value_name = "PATTERN")]
    resource: Vec<String>,
}

impl Subjects {
    /// The message is replaced whole, so the parts that no flag names keep what was read.
    pub async fn apply(self, cx: &Context, to: &mut Option<config::Subjects>, mask: &mut Mask) -> anyhow::Result<()> {
        let mut users = Vec::with_capacity(self.user.len());
        for user in &self.user {
            let empty = user.is_empty();
            users.push(if empty { String::new() } else { names::id(&names::user(cx, user).await?).to_owned() });
        }
        let subjects = to.get_or_insert_default();
        mask.replace("subjects", &mut subjects.roles, self.role);
        mask.replace("subjects", &mut subjects.groups, self.group);
        mask.replace("subjects", &mut subjects.users, users);
        mask.replace("subjects", &mut subjects.api_keys, self.api_key);
        mask.set("subjects", &mut subjects.anonymous, self.anonymous);
        Ok(())
    }
}

impl Patterns {
    /// As for subjects; methods mean something else to each noun.
    pub fn apply(self, methods: Vec<String>, to: &mut Option<config::Match>, mask: &mut Mask) {
        let patterns = to.get_or_insert_default();
        mask.replace("match", &mut patterns.tools, self.tool);
        mask.replace("match", &mut patterns.prompts, self.prompt);
        mask.replace("match", &mut patterns.resources, self.resource);
        mask.replace("match", &mut patterns.methods, methods);
    }
}
