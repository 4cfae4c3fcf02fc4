//! Every command: a noun is a directory, a verb is a file.
//! Owns dispatch only. Called by `main`.

mod apply;
mod audit;
mod call;
mod config;
mod connect;
mod custody;
mod desk;
mod export;
mod key;
mod limit;
mod login;
mod logout;
mod membership;
mod node;
mod org;
mod policy;
pub mod postgres;
mod server;
mod session;
mod standalone;
mod stats;
mod tools;
mod user;
mod way;
mod whoami;
mod why;

use clap::Subcommand;

use crate::context::{Context, Global};
use crate::output::Output;

/// What `mcpgw` can do.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // parsed once per process
pub enum Command {
    #[command(flatten)]
    Remote(Remote),
    /// Runs the whole gateway in one process, with a Postgres of its own
    Standalone(standalone::Args),
    /// Runs the private Postgres of standalone alone
    Postgres(postgres::Args),
    /// Prints a completion script for a shell
    #[command(after_help = "Examples:\n  mcpgw completions bash > ~/.local/share/bash-completion/completions/mcpgw")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What needs a control plane or a gateway.
#[derive(Debug, Subcommand)]
pub enum Remote {
    /// Signs in and saves the login
    Login(login::Args),
    /// Ends the session and forgets the saved login
    Logout(logout::Args),
    /// Shows the saved login
    Whoami(whoami::Args),
    #[command(subcommand)]
    Org(org::Command),
    #[command(subcommand)]
    User(user::Command),
    #[command(subcommand)]
    Membership(membership::Command),
    #[command(subcommand)]
    Key(key::Command),
    #[command(subcommand)]
    Server(server::Command),
    #[command(subcommand)]
    Session(session::Command),
    #[command(subcommand)]
    Policy(policy::Command),
    #[command(subcommand)]
    Limit(limit::Command),
    #[command(subcommand)]
    Node(node::Command),
    #[command(subcommand)]
    Config(config::Command),
    #[command(subcommand)]
    Custody(custody::Command),
    #[command(subcommand)]
    Audit(audit::Command),
    /// Shows what calls add up to: how many, how many failed, how long they took
    Stats(stats::Args),
    /// Makes an organisation what a document says, after showing the difference
    Apply(apply::Args),
    /// Writes an organisation as a document
    Export(export::Args),
    /// Tells the story of one MCP request: who, which rule, which configuration, where, what came of it
    Why(why::Args),
    /// Lists the tools that a server offers to the caller
    Tools(tools::Args),
    /// Calls a tool of a server
    Call(call::Args),
    /// Is an MCP server on stdin and stdout that stands for one behind the gateway, for desktop clients
    Connect(connect::Args),
}

pub async fn run(global: Global, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Standalone(args) => standalone::run(Output::new(global.output), args).await,
        Command::Postgres(args) => postgres::run(Output::new(global.output), args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut crate::cli(), "mcpgw", &mut std::io::stdout());
            Ok(())
        }
        Command::Remote(command) => remote(&Context::new(global)?, command).await,
    }
}

async fn remote(cx: &Context, command: Remote) -> anyhow::Result<()> {
    match command {
        Remote::Login(args) => login::run(cx, args).await,
        Remote::Logout(args) => logout::run(cx, args).await,
        Remote::Whoami(args) => whoami::run(cx, args).await,
        Remote::Org(command) => org::run(cx, command).await,
        Remote::User(command) => user::run(cx, command).await,
        Remote::Membership(command) => membership::run(cx, command).await,
        Remote::Key(command) => key::run(cx, command).await,
        Remote::Server(command) => server::run(cx, command).await,
        Remote::Session(command) => session::run(cx, command).await,
        Remote::Policy(command) => policy::run(cx, command).await,
        Remote::Limit(command) => limit::run(cx, command).await,
        Remote::Node(command) => node::run(cx, command).await,
        Remote::Config(command) => config::run(cx, command).await,
        Remote::Custody(command) => custody::run(cx, command).await,
        Remote::Audit(command) => audit::run(cx, command).await,
        Remote::Stats(args) => stats::run(cx, args).await,
        Remote::Apply(args) => apply::run(cx, args).await,
        Remote::Export(args) => export::run(cx, args).await,
        Remote::Why(args) => why::run(cx, args).await,
        Remote::Tools(args) => tools::run(cx, args).await,
        Remote::Call(args) => call::run(cx, args).await,
        Remote::Connect(args) => Box::pin(connect::run(cx, args)).await,
    }
}
