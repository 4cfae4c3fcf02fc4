//! `supervise`, the helper process: starts one program, and ends it and every descendant when its lifeline is cut.
//! Single-threaded; a subreaper, so that no descendant can slip away. Never restarts anything and never copies a byte:
//! a program that is to talk to our parent has our own stdin and stdout. Started by `Recipe`.

mod burial;
mod program;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args as Flags, ValueEnum};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::{Instant, timeout_at};

pub(super) use program::INHERITED;
pub use program::Limit;

/// The signal that asks the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stop {
    /// What most programs take for a polite request
    Term,
    /// What Postgres takes for a fast shutdown
    Int,
}

impl Stop {
    /// As the flag has it.
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
    /// The program talks over our stdin and stdout
    #[arg(long)]
    pipe: bool,
    /// End when this process is gone, too: our parent
    #[arg(long, value_name = "PID", value_parser = pid)]
    parent: Option<Pid>,
    /// How long it may take to end by itself once its stdin is closed
    #[arg(long, value_parser = duration, default_value = "0s")]
    grace: Duration,
    /// The signal that then asks it to end
    #[arg(long, value_enum, default_value_t = Stop::Term)]
    stop: Stop,
    /// How long it may take in all before everything is killed
    #[arg(long, value_parser = duration, default_value = "10s")]
    deadline: Duration,
    /// A variable of its environment, which is otherwise what ours has under a prefix
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A limit of the kernel: nofile, nproc, as, cpu or core
    #[arg(long, value_name = "NAME=NUMBER", requires = "pipe")]
    rlimit: Vec<Limit>,
    /// The user to run it as
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// The group to run it as
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// Do not supervise: become the program, as the child of this helper
    #[arg(long, value_name = "PID", value_parser = pid, requires = "pipe")]
    under: Option<Pid>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

/// Runs the program; its exit code is ours.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(helper) = args.under {
        return program::become_it(&args, helper);
    }
    // A session of its own: Ctrl-C in a terminal is for our parent alone, which then closes the pipe.
    match rustix::process::setsid() {
        // Already a leader: somebody tries this out in a shell.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => bail!("cannot start a session: {error}"),
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("cannot become a subreaper")?;
    rustix::thread::set_no_new_privs(true).context("cannot give up new privileges")?;
    // One thread: tokio drives signals and the lifeline with readiness alone.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(supervise(&args))?;
    let code = status.code().or_else(|| status.signal().map(|it| 128 + it));
    Ok(ExitCode::from(code.and_then(|it| u8::try_from(it).ok()).unwrap_or(1)))
}

async fn supervise(args: &Args) -> anyhow::Result<ExitStatus> {
    let lifeline = Lifeline::of(args.parent)?;
    let mut signals = Signals::new()?;
    let program = program::start(args)?;
    let mut ended = None;
    if signals.until_asked(&lifeline, program, &mut ended).await? == Asked::ToEnd && ended.is_none() {
        signals.end(args, program, &mut ended).await?;
    }
    let buried = burial::bury(program, &mut signals.children).await?;
    Ok(ended.or(buried).unwrap_or_else(|| ExitStatus::from_raw(Signal::KILL.as_raw())))
}

/// What tells us that nobody wants the program any more.
struct Lifeline {
    stdin: AsyncFd<OwnedFd>,
    parent: Option<AsyncFd<OwnedFd>>,
}

impl Lifeline {
    fn of(parent: Option<Pid>) -> anyhow::Result<Self> {
        let stdin = rustix::stdio::stdin().try_clone_to_owned()?;
        // Interest in nothing that happens on a pipe: only that its last writer is gone is told. What comes in is the
        // program's, and the pipe stays in blocking mode, which is shared with it.
        let stdin = watch(stdin, Interest::PRIORITY).context("stdin has to be a pipe from the parent")?;
        let Some(pid) = parent else { return Ok(Self { stdin, parent: None }) };
        let parent = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the parent")?;
        // It may have ended before we watched, and its number be somebody else's.
        if rustix::process::getppid() != Some(pid) {
            bail!("process {pid} is not the parent of this helper");
        }
        Ok(Self { stdin, parent: Some(watch(parent, Interest::READABLE)?) })
    }

    /// Returns when no writer has our stdin open any more, or the parent has ended. The second is for a program that
    /// opened the other end of its stdin again.
    async fn cut(&self) -> std::io::Result<()> {
        tokio::select! {
            cut = hung_up(&self.stdin) => cut,
            cut = exited(self.parent.as_ref()) => cut,
        }
    }
}

/// Deprecated for types that could close their descriptor while it is watched; this one cannot. What replaces it is unsafe.
#[expect(deprecated)]
fn watch(descriptor: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

async fn hung_up(stdin: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    loop {
        let mut ready = stdin.ready(Interest::PRIORITY).await?;
        if ready.ready().is_read_closed() {
            return Ok(());
        }
        ready.clear_ready();
    }
}

async fn exited(parent: Option<&AsyncFd<OwnedFd>>) -> std::io::Result<()> {
    match parent {
        Some(parent) => parent.readable().await.map(drop),
        None => std::future::pending().await,
    }
}

/// How the wait for a reason to end was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The program ended by itself, or is to end.
    ToEnd,
    /// Everything is to be killed at once.
    ToKill,
}

struct Signals {
    children: unix::Signal,
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    quit: unix::Signal,
    /// Whether the end was asked for by a signal, which leaves no grace.
    hurry: bool,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            children: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            hurry: false,
        })
    }

    async fn until_asked(&mut self, lifeline: &Lifeline, program: Pid, ended: &mut Option<ExitStatus>) -> anyhow::Result<Asked> {
        while ended.is_none() {
            self.hurry = tokio::select! {
                _ = self.children.recv() => { *ended = burial::reap(program)?; continue }
                // A lifeline that cannot be watched counts as cut.
                _cut = lifeline.cut() => false,
                _ = self.quit.recv() => return Ok(Asked::ToKill),
                _ = self.terminate.recv() => true,
                _ = self.interrupt.recv() => true,
                _ = self.hang_up.recv() => true,
            };
            break;
        }
        Ok(Asked::ToEnd)
    }

    /// Gives the program its time: some to end by itself, the rest once it was asked.
    async fn end(&mut self, args: &Args, program: Pid, ended: &mut Option<ExitStatus>) -> anyhow::Result<()> {
        let asked = Instant::now();
        if !self.hurry && !self.ends_by(asked + args.grace, program, ended).await? {
            return Ok(());
        }
        if ended.is_none() {
            // Not reaped yet, so the number is still this process's, and that of its group.
            let signal = args.stop.signal();
            let _ = if args.pipe { kill_process_group(program, signal) } else { kill_process(program, signal) };
            self.ends_by(asked + args.deadline, program, ended).await?;
        }
        Ok(())
    }

    /// Waits for the program's end; false if everything is to be killed at once.
    async fn ends_by(&mut self, deadline: Instant, program: Pid, ended: &mut Option<ExitStatus>) -> anyhow::Result<bool> {
        while ended.is_none() {
            tokio::select! {
                child = timeout_at(deadline, self.children.recv()) => if child.is_err() { break },
                _ = self.quit.recv() => return Ok(false),
            }
            *ended = burial::reap(program)?;
        }
        Ok(true)
    }
}

/// `5s` or `1500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let milliseconds = text.strip_suffix("ms").map(|number| (number, 1)).or_else(|| Some((text.strip_suffix('s')?, 1_000)));
    let parsed = milliseconds.and_then(|(number, scale)| number.parse::<u64>().ok()?.checked_mul(scale));
    parsed.map(Duration::from_millis).ok_or_else(|| "write it like 5s or 1500ms".into())
}

fn pid(text: &str) -> Result<Pid, String> {
    text.parse().ok().and_then(Pid::from_raw).ok_or_else(|| "not the number of a process".into())
}
