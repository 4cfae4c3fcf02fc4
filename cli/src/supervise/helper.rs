//! `mcpgw supervise`, the helper process: starts one program, and ends it and every descendant when its stdin ends.
//! Single-threaded; a subreaper, so that no descendant can slip away. Never restarts anything. Started by `Supervised`.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args as Flags, ValueEnum};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Instant, timeout_at};

use crate::args;

/// How long the kernel may take to bury what was killed.
const BURIAL: Duration = Duration::from_secs(10);

/// The signal that asks the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stop {
    /// What most programs take for a polite request
    Term,
    /// What Postgres takes for a fast shutdown
    Int,
}

impl Stop {
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "term",
            Self::Int => "int",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
        }
    }
}

/// Flags of the hidden command.
#[derive(Debug, Flags)]
pub struct Args {
    /// Where the program starts
    #[arg(long, default_value = "/")]
    dir: PathBuf,
    /// The signal that asks it to end
    #[arg(long, value_enum, default_value_t = Stop::Term)]
    stop: Stop,
    /// How long it may take to end before everything is killed
    #[arg(long, value_parser = args::duration, default_value = "10s")]
    deadline: Duration,
    /// A variable of its environment, which is empty otherwise
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The user to run it as
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// The group to run it as
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

/// Runs the program; its exit code is ours.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // A session of its own: Ctrl-C in a terminal is for our parent alone, which then closes the pipe.
    match rustix::process::setsid() {
        // Already a leader: somebody tries this out in a shell.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => bail!("cannot start a session: {error}"),
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("cannot become a subreaper")?;
    rustix::thread::set_no_new_privs(true).context("cannot give up new privileges")?;
    // One thread: tokio drives signals and the pipe with readiness alone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(supervise(&args))?;
    let code = status.code().or_else(|| status.signal().map(|it| 128 + it));
    Ok(ExitCode::from(code.and_then(|it| u8::try_from(it).ok()).unwrap_or(1)))
}

async fn supervise(args: &Args) -> anyhow::Result<ExitStatus> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned()?;
    let mut lifeline = pipe::Receiver::from_owned_fd(stdin).context("stdin has to be a pipe from the parent")?;
    let mut children = unix::signal(SignalKind::child())?;
    let mut terminate = unix::signal(SignalKind::terminate())?;
    let mut interrupt = unix::signal(SignalKind::interrupt())?;
    let mut hang_up = unix::signal(SignalKind::hangup())?;
    let program = start(args)?;

    let mut ended = None;
    let mut ignored = [0; 64];
    while ended.is_none() {
        tokio::select! {
            _ = children.recv() => ended = reap(program)?,
            read = lifeline.read(&mut ignored) => if !matches!(read, Ok(1..)) { break },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => break,
        }
    }
    if ended.is_none() {
        // Not reaped yet, so the number is still this process's.
        let _ = kill_process(program, args.stop.signal());
        let deadline = Instant::now() + args.deadline;
        while ended.is_none() && timeout_at(deadline, children.recv()).await.is_ok() {
            ended = reap(program)?;
        }
    }
    let buried = bury(program, &mut children).await?;
    Ok(ended.or(buried).unwrap_or_else(|| ExitStatus::from_raw(Signal::KILL.as_raw())))
}

fn start(args: &Args) -> anyhow::Result<Pid> {
    let (name, rest) = args.argv.split_first().context("no program given")?;
    let mut command = Command::new(name);
    command.args(rest).env_clear().current_dir(&args.dir).stdin(Stdio::null()).process_group(0);
    for pair in &args.env {
        let (name, value) = pair.split_once('=').with_context(|| format!("--env {pair}: expected NAME=VALUE"))?;
        command.env(name, value);
    }
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        // The standard library drops supplementary groups with the user.
        command.uid(uid).gid(gid);
    }
    let child = command.spawn().with_context(|| format!("cannot start {}", name.display()))?;
    // `wait` below reaps it together with everything it leaves behind.
    Pid::from_raw(i32::try_from(child.id())?).context("a child without a number")
}

/// Reaps everything that has ended; the program's status if it is among them.
fn reap(program: Pid) -> anyhow::Result<Option<ExitStatus>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => ended = Some(exit_status(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(ended),
            Err(Errno::INTR) => {}
            Err(error) => bail!("cannot wait for children: {error}"),
        }
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    ExitStatus::from_raw(status.as_raw())
}

/// Kills our children until there are none. Orphans of the killed become our children, so this reaches every descendant;
/// and no number can be reused under us, because nobody else reaps them.
async fn bury(program: Pid, children: &mut unix::Signal) -> anyhow::Result<Option<ExitStatus>> {
    let mut ended = None;
    let deadline = Instant::now() + BURIAL;
    loop {
        // Before looking: what ended meanwhile has sent its signal already.
        ended = reap(program)?.or(ended);
        let living = children_of_ours()?;
        if living.is_empty() {
            return Ok(ended);
        }
        for child in living {
            let _ = kill_process(child, Signal::KILL);
        }
        if timeout_at(deadline, children.recv()).await.is_err() {
            bail!("some descendants cannot be killed");
        }
    }
}

/// Our direct children. `/proc/self/task/*/children` would be shorter, but not every kernel has it.
fn children_of_ours() -> anyhow::Result<Vec<Pid>> {
    let own = rustix::process::getpid();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("no /proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|it| it.parse().ok()).and_then(Pid::from_raw) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if parent_in(&stat) == Some(own.as_raw_nonzero().get()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The fourth field of `/proc/{pid}/stat` (proc(5)); the second may contain anything, even parentheses.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parent_in;

    #[test]
    fn the_parent_is_found_whatever_the_process_is_called() {
        assert_eq!(parent_in("12 (postgres) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("12 (a ) R 9 (b) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("garbage"), None);
    }
}
