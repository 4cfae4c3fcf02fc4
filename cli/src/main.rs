//! `mcpgw`: administration, an MCP client, and both planes in one process.
//! Parses the command line, installs what only a binary may install, and turns errors into exit codes.

mod args;
mod commands;
mod config;
mod context;
mod failure;
mod mcp;
mod names;
mod output;
mod prompt;
mod session;
mod tls;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

use crate::commands::Command;
use crate::context::{Context, Global};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// MCP Gateway: administer it, call MCP servers through it, or run it.
#[derive(Debug, Parser)]
#[command(name = "mcpgw", version, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The command line's definition, for completions.
fn cli() -> clap::Command {
    Cli::command()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = failure::exit_code(&error);
            if code != 0 {
                eprintln!("{}", failure::describe(&error));
            }
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // Fails only if one is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(async {
        let cx = Context::new(cli.global)?;
        commands::run(&cx, cli.command).await
    }))
}

#[cfg(test)]
mod tests {
    /// Clap's own checks: conflicting names, missing values, wrong defaults.
    #[test]
    fn the_command_line_is_consistent() {
        super::cli().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().for_each(|it| check(it, &path));
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:") || command.is_hide_set(), "{path} has no examples");
            }
        }
        check(&super::cli(), "");
    }
}
