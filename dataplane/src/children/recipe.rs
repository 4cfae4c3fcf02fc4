//! What a helper is told, and which program is it: our own binary, again.
//! Never waits and keeps no process. Used for the private Postgres and for every MCP server that we run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::helper::{INHERITED, Limit, Stop};

/// The program that has the hidden command `supervise`.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
}

impl Default for Program {
    /// This process' own. Not `current_exe`: this name still works when the file was replaced while we run.
    fn default() -> Self {
        Self::at("/proc/self/exe")
    }
}

impl Program {
    /// Another one: both planes' binaries know the command, and a test's does not.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0("mcpgw").env_clear().current_dir("/").arg("supervise");
        command
    }
}

/// What to run and how to end it.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Program and arguments; no shell.
    pub argv: Vec<OsString>,
    /// The whole environment of the child.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub dir: PathBuf,
    /// User and group to run as, if not our own.
    pub account: Option<(u32, u32)>,
    /// The signal that asks it to end.
    pub stop: Stop,
    /// How long it may take to end before everything is killed.
    pub deadline: Duration,
}

impl Recipe {
    /// A child that has neither stdin nor stdout; the command's stdin is its lifeline.
    pub(super) fn silent(&self, program: &Program) -> Command {
        let mut command = program.command();
        self.tell(&mut command);
        command.stdout(Stdio::null());
        command
    }

    /// A child that talks: the command's stdin and stdout are its own. It may take `grace` of the deadline to end by itself.
    pub(super) fn talking(&self, program: &Program, grace: Duration, limits: &[Limit]) -> Command {
        let mut command = program.command();
        command.args(["--pipe", "--parent"]).arg(std::process::id().to_string());
        command.arg("--grace").arg(format!("{}ms", grace.as_millis()));
        for limit in limits {
            command.arg("--rlimit").arg(limit.to_string());
        }
        self.tell(&mut command);
        command.stdout(Stdio::piped());
        command
    }

    fn tell(&self, command: &mut Command) {
        command.arg("--dir").arg(&self.dir);
        command.arg("--stop").arg(self.stop.name());
        command.arg("--deadline").arg(format!("{}ms", self.deadline.as_millis()));
        if let Some((user, group)) = self.account {
            command.arg("--uid").arg(user.to_string()).arg("--gid").arg(group.to_string());
        }
        command.arg("--").args(&self.argv);
        command.envs(self.env.iter().map(|(name, value)| (format!("{INHERITED}{name}"), value)));
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
    }
}
