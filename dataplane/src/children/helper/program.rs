//! How the helper starts its program: directly, or (with `--pipe`) through a second stage that sets limits and becomes it.
//! Never waits for it. Called by the helper's main.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use super::Args;

/// Before the names of the program's variables in our own environment. They are not in our arguments, which every user of
/// the machine can read; and without the prefix they would be meant for us, too.
pub(crate) const INHERITED: &str = "MCPGW_CHILD_";
/// Says that the program could not be started, as in a shell.
const NOT_STARTED: u8 = 127;

/// One limit of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    name: &'static str,
    resource: Resource,
    value: u64,
}

impl Limit {
    /// The ones we know.
    const NAMES: [(&'static str, Resource); 5] = [
        ("nofile", Resource::Nofile),
        ("nproc", Resource::Nproc),
        ("as", Resource::As),
        ("cpu", Resource::Cpu),
        ("core", Resource::Core),
    ];

    /// By its name, if there is one of that name.
    pub(crate) fn new(name: &str, value: u64) -> Option<Self> {
        let (name, resource) = Self::NAMES.into_iter().find(|(known, _)| *known == name)?;
        Some(Self { name, resource, value })
    }

    /// Sets it for this process and what it becomes.
    fn set(self) -> anyhow::Result<()> {
        // Nobody may raise what an administrator of the machine has set.
        let most = getrlimit(self.resource).maximum.map_or(self.value, |most| most.min(self.value));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(self.resource, limit).with_context(|| format!("cannot limit {}", self.name))
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(name, value)| Self::new(name, value.parse().ok()?));
        parsed.ok_or_else(|| "expected nofile=, nproc=, as=, cpu= or core= and a number".into())
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}={}", self.name, self.value)
    }
}

/// Starts the program in a process group of its own.
pub(super) fn start(args: &Args) -> anyhow::Result<Pid> {
    let mut command = if args.pipe { second_stage(args) } else { itself(args)? };
    if !args.pipe {
        command.stdin(Stdio::null());
    }
    let child = command.process_group(0).spawn().with_context(|| failure(args))?;
    if args.pipe {
        // Or the end of its output would not be told while we live.
        let nowhere = std::fs::File::options().write(true).open("/dev/null").context("cannot open /dev/null")?;
        rustix::stdio::dup2_stdout(nowhere).context("cannot let go of stdout")?;
    }
    // The helper's loop reaps it together with everything it leaves behind.
    Pid::from_raw(i32::try_from(child.id())?).context("a child without a number")
}

/// The second stage: sets limits that are not for the helper, then is the program. Returns only if that fails.
pub(super) fn become_it(args: &Args, helper: Pid) -> anyhow::Result<ExitCode> {
    // A helper that is killed takes the program with it, if not its descendants.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot be tied to the helper")?;
    if rustix::process::getppid() != Some(helper) {
        bail!("the helper {helper} has ended");
    }
    let mut command = itself(args)?;
    for limit in &args.rlimit {
        limit.set()?;
    }
    let error = command.exec();
    eprintln!("{}: {error}", failure(args));
    Ok(ExitCode::from(NOT_STARTED))
}

fn failure(args: &Args) -> String {
    let name = args.argv.first().map(|it| it.display().to_string()).unwrap_or_default();
    format!("cannot start {name} in {}", args.dir.display())
}

fn second_stage(args: &Args) -> Command {
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.args(["supervise", "--pipe", "--under"]).arg(rustix::process::getpid().to_string());
    command.arg("--dir").arg(&args.dir);
    command.args(args.env.iter().flat_map(|pair| ["--env", pair]));
    for limit in &args.rlimit {
        command.arg("--rlimit").arg(limit.to_string());
    }
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        command.arg("--uid").arg(uid.to_string()).arg("--gid").arg(gid.to_string());
    }
    command.arg("--").args(&args.argv);
    command
}

/// The program itself, with nothing in its environment but what is meant for it.
fn itself(args: &Args) -> anyhow::Result<Command> {
    let (name, rest) = args.argv.split_first().context("no program given")?;
    let mut command = Command::new(name);
    command.args(rest).env_clear().envs(inherited()).current_dir(&args.dir);
    for pair in &args.env {
        let (name, value) = pair.split_once('=').with_context(|| format!("--env {pair}: expected NAME=VALUE"))?;
        command.env(name, value);
    }
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        // The standard library drops supplementary groups with the user.
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// The variables that our parent has meant for the program.
fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.as_bytes().strip_prefix(INHERITED.as_bytes()).filter(|name| !name.is_empty())?;
        Some((OsString::from_vec(name.to_vec()), value))
    })
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn limits_are_read_as_they_are_written() {
        for text in ["nofile=1024", "nproc=1", "as=1073741824", "cpu=60", "core=0"] {
            assert_eq!(text.parse::<Limit>().unwrap().to_string(), text);
        }
        for wrong in ["", "nofile", "nofile=", "nofile=-1", "stack=1", "=1"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
    }
}
