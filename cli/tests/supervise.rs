//! What standalone starts does not outlive it: judged by pipes and process descriptors that end when the processes do.
#![allow(clippy::unwrap_used)] // the lint spares test functions, not what they call

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

const MCPGW: &str = env!("CARGO_BIN_EXE_mcpgw");

fn supervise(deadline: &str, script: &str) -> Child {
    let mut command = Command::new(MCPGW);
    command.args(["supervise", "--deadline", deadline, "--env", "PATH=/usr/bin:/bin", "--", "/bin/sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn every_descendant_ends_with_the_pipe_however_it_tries_to_slip_away() {
    // Deaf to polite requests, in sessions of their own, orphaned, all of them holding our pipe.
    let script =
        "trap '' TERM; setsid sleep 1000 & (setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' &); echo ready; sleep 1000";
    let mut helper = supervise("1s", script);
    let mut output = BufReader::new(helper.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    drop(helper.stdin.take());
    // Ends only when nobody holds the other side any more.
    output.read_to_string(&mut line).unwrap();
    assert!(!helper.wait().unwrap().success());
}

#[test]
fn a_program_that_ends_takes_what_it_left_behind_with_it_and_passes_its_code_on() {
    let mut helper = supervise("10s", "setsid sleep 1000 & exit 7");
    let mut output = String::new();
    helper.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(helper.wait().unwrap().code(), Some(7));
}

#[test]
fn the_environment_is_what_was_given_and_nothing_else() {
    let mut command = Command::new(MCPGW);
    command.args(["supervise", "--env", "ONLY=this", "--", "/usr/bin/env"]).env("SECRET", "value");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert_eq!(output, "ONLY=this\n");
    assert!(child.wait().unwrap().success());
}

/// `mcpgw postgres` in a data directory, once it has printed its URL.
struct Running {
    parent: Child,
    _stdout: BufReader<ChildStdout>,
    url: String,
    postmaster: Pid,
}

impl Running {
    fn start(home: &Path) -> Self {
        let mut command = Command::new(MCPGW);
        command.arg("postgres").arg("--data-dir").arg(home).stdout(Stdio::piped());
        let mut parent = command.spawn().unwrap();
        let mut stdout = BufReader::new(parent.stdout.take().unwrap());
        let mut url = String::new();
        stdout.read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "no URL: see stderr");
        let lock = std::fs::read_to_string(home.join("postgres/postmaster.pid")).unwrap();
        let postmaster = Pid::from_raw(lock.lines().next().unwrap().parse().unwrap()).unwrap();
        Self { parent, _stdout: stdout, url, postmaster }
    }

    fn open(&self) -> OwnedFd {
        pidfd_open(self.postmaster, PidfdFlags::empty()).unwrap()
    }

    fn connect(&self) -> std::io::Result<()> {
        let (_, rest) = self.url.split_once("host=").unwrap();
        let (dir, _) = rest.split_once('&').unwrap();
        std::os::unix::net::UnixStream::connect(Path::new(dir).join(".s.PGSQL.5432")).map(drop)
    }
}

/// A data directory that the account of Postgres can reach, for when this runs as root.
fn home() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("mcpgw-test-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

fn wait_for_the_end(process: &OwnedFd) {
    let mut waiting = [PollFd::new(process, PollFlags::IN)];
    let deadline = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut waiting, Some(&deadline)).unwrap(), 1, "the process lives on");
}

#[test]
fn postgres_is_gone_when_its_parent_was_killed_and_starts_again() {
    let home = home();
    let mut first = Running::start(home.path());
    first.connect().unwrap();
    let postmaster = first.open();
    first.parent.kill().unwrap();
    first.parent.wait().unwrap();
    wait_for_the_end(&postmaster);
    assert!(first.connect().is_err());

    let mut second = Running::start(home.path());
    second.connect().unwrap();
    assert_ne!(second.postmaster, first.postmaster);
    let postmaster = second.open();
    kill_process(Pid::from_child(&second.parent), Signal::TERM).unwrap();
    assert!(second.parent.wait().unwrap().success());
    wait_for_the_end(&postmaster);
}

#[test]
fn a_postgres_that_was_left_behind_is_ended_by_the_next_start() {
    let home = home();
    let mut first = Running::start(home.path());
    let orphan = first.open();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", first.postmaster)).unwrap();
    let helper = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    kill_process(Pid::from_raw(helper).unwrap(), Signal::KILL).unwrap();
    first.parent.kill().unwrap();
    first.parent.wait().unwrap();
    first.connect().unwrap();

    let mut second = Running::start(home.path());
    wait_for_the_end(&orphan);
    second.connect().unwrap();
    kill_process(Pid::from_child(&second.parent), Signal::INT).unwrap();
    assert!(second.parent.wait().unwrap().success());
}

#[test]
fn a_data_directory_out_of_reach_is_named_before_anything_is_written() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root runs Postgres as somebody else");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let home = dir.path().join("data");
    let output = Command::new(MCPGW).arg("postgres").arg("--data-dir").arg(&home).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot pass through") && said.contains(dir.path().to_str().unwrap()), "{said}");
    assert!(!home.join("postgres").exists() && !home.join("run").exists());
}
