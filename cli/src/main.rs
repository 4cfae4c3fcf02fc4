//! `mcpgw`: administration, an MCP client, and both planes in one process.
//! Parses the command line, installs what only a binary may install, and turns errors into exit codes.

mod args;
mod commands;
mod config;
mod connect;
mod context;
mod document;
mod failure;
mod matching;
mod mcp;
mod names;
mod output;
mod prompt;
mod session;
mod standalone;
mod tls;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use mcpgw_dataplane::children::helper;
use tracing_subscriber::EnvFilter;

use crate::commands::Command;
use crate::context::Global;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// MCP Gateway: administer it, call MCP servers through it, or run it.
#[derive(Debug, Parser)]
#[command(name = "mcpgw", version, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Top,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // parsed once per process
enum Top {
    #[command(flatten)]
    Command(Command),
    /// Keeps one child process; started by standalone
    #[command(hide = true)]
    Supervise(helper::Args),
}

/// The command line's definition, for completions.
fn cli() -> clap::Command {
    Cli::command()
}

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let ended = match command {
        // Before any thread is started: the helper has to stay alone.
        Top::Supervise(args) => helper::run(args),
        Top::Command(command) => run(global, command).map(|()| ExitCode::SUCCESS),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            let code = failure::exit_code(&error);
            if code != 0 {
                eprintln!("{}", failure::describe(&error));
            }
            ExitCode::from(code)
        }
    }
}

fn run(global: Global, command: Command) -> anyhow::Result<()> {
    log();
    // Fails only if one is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(commands::run(global, command)))
}

/// Log lines are talk: stderr. `MCPGW_CLI_LOG` chooses them.
fn log() {
    let filter = EnvFilter::try_new(config::log_filter()).unwrap_or_else(|_invalid| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
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
