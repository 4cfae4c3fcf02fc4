//! Every command: a noun is a directory, a verb is a file.
//! Owns dispatch only. Called by `main`.

mod audit;
mod call;
mod config;
mod key;
mod login;
mod logout;
mod membership;
mod node;
mod org;
mod policy;
mod server;
mod tools;
mod user;
mod whoami;
mod why;

use clap::Subcommand;

use crate::context::Context;

/// What `mcpgw` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    Policy(policy::Command),
    #[command(subcommand)]
    Node(node::Command),
    #[command(subcommand)]
    Config(config::Command),
    #[command(subcommand)]
    Audit(audit::Command),
    /// Tells the story of one MCP request: who, which rule, which configuration, where, what came of it
    Why(why::Args),
    /// Lists the tools that a server offers to the caller
    Tools(tools::Args),
    /// Calls a tool of a server
    Call(call::Args),
    /// Prints a completion script for a shell
    #[command(after_help = "Examples:\n  mcpgw completions bash > ~/.local/share/bash-completion/completions/mcpgw")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

pub async fn run(cx: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Login(args) => login::run(cx, args).await,
        Command::Logout(args) => logout::run(cx, args).await,
        Command::Whoami(args) => whoami::run(cx, args).await,
        Command::Org(command) => org::run(cx, command).await,
        Command::User(command) => user::run(cx, command).await,
        Command::Membership(command) => membership::run(cx, command).await,
        Command::Key(command) => key::run(cx, command).await,
        Command::Server(command) => server::run(cx, command).await,
        Command::Policy(command) => policy::run(cx, command).await,
        Command::Node(command) => node::run(cx, command).await,
        Command::Config(command) => config::run(cx, command).await,
        Command::Audit(command) => audit::run(cx, command).await,
        Command::Why(args) => why::run(cx, args).await,
        Command::Tools(args) => tools::run(cx, args).await,
        Command::Call(args) => call::run(cx, args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut crate::cli(), "mcpgw", &mut std::io::stdout());
            Ok(())
        }
    }
}
