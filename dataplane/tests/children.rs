//! Servers that talk over stdin and stdout, as real processes under the real helper: nothing of them is lost, and nothing stays.
#![allow(clippy::unwrap_used)] // the lint spares test functions, not what they call

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mcpgw_dataplane::children::{Child, Children, EndedWhy, Program, Receiver, Spec, StartError, State, Stream, Whose};
use mcpgw_dataplane::config;
use mcpgw_dataplane::tasks::Tasks;
use tokio::runtime::Handle;

const HELPER: &str = env!("CARGO_BIN_EXE_mcpgw-dataplane");

fn children(settings: config::Children) -> Children {
    Children::new(settings, Program::at(HELPER), Tasks::new(Handle::current()))
}

fn settings() -> config::Children {
    config::Children::default()
}

fn spec(argv: &[&str]) -> Spec {
    Spec {
        server_id: "server".into(),
        org_id: "acme".into(),
        argv: argv.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        dir: None,
        owner: "session-1".into(),
    }
}

/// Runs a script; `sh` gives what stands after it.
fn script(text: &str) -> Spec {
    spec(&["/bin/sh", "-c", text])
}

async fn start(spec: Spec) -> (Children, Child) {
    let children = children(settings());
    let child = children.start(spec).await.unwrap();
    (children, child)
}

async fn message(child: &mut Child) -> serde_json::Value {
    serde_json::from_slice(&child.next().await.unwrap().unwrap()).unwrap()
}

/// Returns when nobody has the child's stdout open any more, and so no descendant that inherited it lives.
async fn silence(receiver: &mut Receiver) {
    while receiver.next().await.is_some() {}
}

/// A program in Python that answers with what `expression` gives.
fn python(expression: &str) -> Spec {
    let text = format!("import json, os, resource, sys\nprint(json.dumps({expression}), flush=True)\nsys.stdin.read()");
    spec(&["/usr/bin/env", "python3", "-c", &text])
}

#[tokio::test]
async fn messages_go_to_and_fro_on_one_line_each() {
    let (children, mut child) = start(spec(&["cat"])).await;
    for text in ["{\n  \"id\":\r\n1\n}\n", r#"[{"text":"a\nb"}]"#, r#"{"text":"last"}"#] {
        child.send(Bytes::from_static(text.as_bytes())).await.unwrap();
        let sent: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(message(&mut child).await, sent);
    }
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(3 << 20));
    let (mut sender, mut receiver) = child.split();
    let (sent, received) = tokio::join!(sender.send(large.clone().into()), receiver.next());
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap(), large);

    let status = &children.list()[0];
    assert_eq!((status.messages_in, status.messages_out, status.garbage), (4, 4, 0));
    assert_eq!((status.state, &*status.owner, &*status.org_id), (State::Running, "session-1", "acme"));
    assert_eq!((status.id, status.pid), (receiver.handle().id(), receiver.handle().pid()));
    assert!(children.stop(status.id));
    let ended = receiver.handle().ended().await;
    assert_eq!((ended.why, ended.code), (EndedWhy::Stopped, Some(0)));
    assert!(children.list().is_empty() && !children.stop(status.id));
    let refused = sender.send(Bytes::from_static(b"{}")).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn what_is_no_message_is_told_logged_and_survived() {
    let (children, mut child) =
        start(script("echo 'Listening ...'; echo; echo '{\"a\":1}'; echo '{\"half'; echo oops >&2")).await;
    let told = child.next().await.unwrap().unwrap_err();
    assert_eq!((&*told.text, told.length), ("Listening ...", 13));
    assert_eq!(message(&mut child).await, serde_json::json!({ "a": 1 }));
    assert_eq!(child.next().await.unwrap().unwrap_err().text, "{\"half");
    assert!(child.next().await.is_none());
    child.ended().await;
    let logged: Vec<_> = children.logs("server").into_iter().map(|line| (line.stream, line.text.to_string())).collect();
    for expected in [(Stream::Stdout, "Listening ..."), (Stream::Stdout, "{\"half"), (Stream::Stderr, "oops")] {
        assert!(logged.contains(&(expected.0, expected.1.to_owned())), "{logged:?}");
    }
    assert!(children.logs("another").is_empty());
}

#[tokio::test]
async fn a_server_that_only_talks_garbage_is_given_up() {
    let (_children, mut child) = start(script("yes")).await;
    let mut told = 0;
    while let Some(line) = child.next().await {
        assert!(line.is_err());
        told += 1;
    }
    assert_eq!((told, child.ended().await.why), (101, EndedWhy::Garbage));
}

#[tokio::test]
async fn a_message_that_is_too_long_is_dropped_and_the_next_one_arrives() {
    let children = children(config::Children { line_bytes: 1 << 10, ..settings() });
    let mut child = children.start(script("printf '{\"a\":\"%03000d\"}\\n' 0; echo '{\"b\":1}'; cat")).await.unwrap();
    assert_eq!(child.next().await.unwrap().unwrap_err().length, 3008);
    assert_eq!(message(&mut child).await, serde_json::json!({ "b": 1 }));
}

#[tokio::test]
async fn a_flood_on_stderr_holds_nobody_up_and_only_its_end_is_kept() {
    let flood = "yes \"$(printf '%099d' 0)\" | head -c 100000000 >&2; printf 'esc \\033[2J\\n' >&2; echo '{}'; cat";
    let (children, mut child) = start(script(flood)).await;
    let (_, mut following) = children.follow(&Arc::from("server"));
    child.next().await.unwrap().unwrap();
    child.stop();
    child.ended().await;
    let lines = children.logs("server");
    assert!(lines.len() <= 1000 && lines.iter().map(|line| line.text.len()).sum::<usize>() <= 256 << 10);
    assert_eq!(&*lines.last().unwrap().text, "esc \\u{1b}[2J");
    assert!(matches!(following.recv().await, Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) | Ok(_)));
}

#[tokio::test]
async fn a_server_that_does_not_read_is_bounded_by_a_deadline() {
    let children = children(config::Children { write_timeout: Duration::from_millis(200), ..settings() });
    let mut child = children.start(script("exec sleep 1000")).await.unwrap();
    // Fills the pipe of the child to the last byte, its line feed included.
    let full = format!("{{\"a\":\"{}\"}}", "x".repeat((64 << 10) - 9));
    child.send(full.into()).await.unwrap();
    let late = child.send(Bytes::from_static(b"{}")).await.unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(children.list()[0].state, State::Running, "nothing of the message was written: the child may go on");
    child.kill();
    assert_eq!(child.ended().await.why, EndedWhy::Killed);

    let mut child = children.start(script("exec sleep 1000")).await.unwrap();
    let late = child.send(vec![b'['; 1 << 20].into()).await.unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(children.list()[0].state, State::Ending, "half of a message was written: nothing can follow");
    child.kill();
    assert_eq!(child.ended().await.why, EndedWhy::Deaf);
}

#[tokio::test]
async fn a_message_whose_sender_gave_up_is_finished_before_the_next() {
    let (_children, child) = start(spec(&["cat"])).await;
    let (mut sender, mut receiver) = child.split();
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20));
    tokio::select! {
        biased;
        _ = sender.send(large.clone().into()) => panic!("it does not fit into the pipe"),
        () = tokio::task::yield_now() => {}
    }
    let (sent, first) = tokio::join!(sender.send(Bytes::from_static(b"{\"b\":1}")), receiver.next());
    sent.unwrap();
    assert_eq!(first.unwrap().unwrap(), large);
    assert_eq!(receiver.next().await.unwrap().unwrap(), "{\"b\":1}");
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_call_says_how_and_has_to_wait() {
    let children = children(settings());
    let mut child = children.start(script("read line; kill -9 $$")).await.unwrap();
    child.send(Bytes::from_static(b"{}")).await.unwrap();
    assert!(child.next().await.is_none());
    // Whoever sees the end and lets go does not make it their own doing.
    let handle = child.handle();
    drop(child);
    let ended = handle.ended().await;
    assert_eq!((ended.why, ended.code), (EndedWhy::Itself, Some(137)));
    let refused = children.start(script("cat")).await.err().unwrap();
    assert!(matches!(refused, StartError::Backoff { .. }) && refused.retry_after().is_some(), "{refused}");
    let other = Spec { server_id: "other".into(), ..script("cat") };
    assert!(children.start(other).await.is_ok(), "another server is not held up");
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_named_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken");
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (children, mut child) = start(spec(&[path.to_str().unwrap()])).await;
    assert!(child.next().await.is_none());
    assert_eq!(child.ended().await.code, Some(127));
    let logged = children.logs("server");
    assert!(logged[0].text.contains("cannot start") && logged[0].text.contains("broken"), "{logged:?}");
}

/// Whether a descriptor of this process came with it: the ones it opens close when a program is executed.
fn is_inherited(file: u32) -> bool {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{file}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

#[tokio::test]
async fn its_environment_limits_and_descriptors_are_what_was_given_and_nothing_else() {
    let children = children(config::Children { nofile: 64, memory_bytes: 1 << 30, ..settings() });
    let seen = "{'env': dict(os.environ), 'files': sorted(os.listdir('/proc/self/fd')), 'dir': os.getcwd(), \
        'leads': os.getpgid(0) == os.getpid(), 'status': open('/proc/self/status').read(), \
        'limits': [resource.getrlimit(it) for it in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_AS)]}";
    let env = vec![("API_KEY".into(), "s3cret".into()), ("LANG".into(), "C.utf8".into())];
    let mut child = children.start(Spec { dir: Some("/tmp".into()), env, ..python(seen) }).await.unwrap();
    let seen = message(&mut child).await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(seen["env"], serde_json::json!({ "API_KEY": "s3cret", "HOME": "/tmp", "LANG": "C.utf8", "PATH": path }));
    // The fourth is the directory that is being listed, and what whoever runs this test left open is not ours.
    let files: Vec<u32> = seen["files"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().parse().unwrap()).collect();
    let ours: Vec<_> = files.into_iter().filter(|file| *file > 3 && !is_inherited(*file)).collect();
    assert!(ours.is_empty(), "descriptors of ours: {ours:?}");
    assert_eq!((seen["dir"].as_str(), seen["leads"].as_bool()), (Some("/tmp"), Some(true)));
    assert_eq!(seen["limits"], serde_json::json!([[64, 64], [0, 0], [1 << 30, 1 << 30]]));
    let status = seen["status"].as_str().unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");

    // Whoever may read command lines learns no secret.
    let helper = std::fs::read_to_string(format!("/proc/{}/cmdline", child.handle().pid())).unwrap();
    assert!(helper.contains("--pipe") && !helper.contains("s3cret"), "{helper}");
}

#[tokio::test]
async fn no_shell_reads_the_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let evil = ["$(touch made)", "`touch made`", "; touch made", "a b", "*", "", "--", "--env", "'\"\\"];
    let mut spec = python("sys.argv[1:]");
    spec.argv = spec.argv.iter().cloned().chain(evil.map(String::from)).collect();
    spec.dir = Some(dir.path().to_owned());
    let (_children, mut child) = start(spec).await;
    assert_eq!(message(&mut child).await, serde_json::json!(evil));
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

/// Deaf to polite requests, with descendants in sessions of their own, orphaned, one of which has opened the other end of
/// the stdin again; all of them hold stdout.
const STUBBORN: &str = "trap '' TERM HUP; setsid sleep 1000 & (setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' &); \
    exec 9>/proc/self/fd/0; echo '{}'; sleep 1000";

#[tokio::test]
async fn a_killed_child_takes_every_descendant_along() {
    let (_children, mut child) = start(script(STUBBORN)).await;
    child.next().await.unwrap().unwrap();
    child.kill();
    assert_eq!(child.ended().await.why, EndedWhy::Killed);
    silence(&mut child.split().1).await;
}

#[tokio::test]
async fn dropping_a_child_ends_it_however_stubborn_it_is() {
    let (children, mut child) = start(script(STUBBORN)).await;
    child.next().await.unwrap().unwrap();
    let (sender, mut receiver) = child.split();
    drop(sender);
    assert_eq!(children.list()[0].state, State::Running, "half of it is still in use");
    receiver.handle().stop();
    assert_eq!(receiver.handle().ended().await.why, EndedWhy::Stopped);
    silence(&mut receiver).await;

    let child = children.start(script(STUBBORN)).await.unwrap();
    let handle = child.handle();
    drop(child);
    assert_eq!(handle.ended().await.why, EndedWhy::Dropped);
    assert!(children.list().is_empty());
}

#[test]
fn nothing_survives_the_sudden_end_of_the_process_that_wanted_it() {
    // In our place: starts the helper, and has no chance to tidy up.
    let text = format!(
        "import os, signal, subprocess\n\
         argv = ['{HELPER}', 'supervise', '--pipe', '--parent', str(os.getpid()), '--grace', '100ms', '--deadline', '500ms']\n\
         helper = subprocess.Popen(argv + ['--env', 'PATH=/usr/bin:/bin', '--', '/bin/sh', '-c', os.environ['SCRIPT']], stdin=subprocess.PIPE)\n\
         signal.pause()\n"
    );
    // Once with a child that keeps the lifeline's other end open, and once without.
    for script in [STUBBORN.to_owned(), STUBBORN.replace("exec 9>/proc/self/fd/0;", "")] {
        let mut command = Command::new("python3");
        command.args(["-c", &text]).env("SCRIPT", script).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut parent = command.spawn().unwrap();
        let mut output = BufReader::new(parent.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "{}\n");
        parent.kill().unwrap();
        parent.wait().unwrap();
        // Ends only when no descendant has the other side open any more.
        output.read_to_string(&mut line).unwrap();
    }
}

#[tokio::test]
async fn bounds_per_node_and_organisation_hold_and_are_given_back() {
    let children = children(config::Children { max: 2, max_per_organization: 1, ..settings() });
    let of = |org: &str| Spec { org_id: org.into(), ..spec(&["cat"]) };
    let first = children.start(of("acme")).await.unwrap();
    let full = children.start(of("acme")).await.err().unwrap();
    assert!(matches!(full, StartError::Full { whose: Whose::Organization }), "{full}");
    let second = children.start(of("globex")).await.unwrap();
    let full = children.start(of("initech")).await.err().unwrap();
    assert!(matches!(full, StartError::Full { whose: Whose::Node }) && full.to_string().contains("children.max"), "{full}");
    // What cannot start gives its seat back, too.
    first.stop();
    first.ended().await;
    assert!(matches!(children.start(Spec { argv: Arc::new([]), ..of("acme") }).await, Err(StartError::Spawn(_))));
    let third = children.start(of("acme")).await.unwrap();
    assert_eq!(children.list().len(), 2);
    drop((second, third));
}

#[tokio::test]
async fn what_is_switched_off_or_not_listed_does_not_run() {
    let off = children(config::Children { enabled: false, ..settings() });
    assert!(matches!(off.start(spec(&["cat"])).await, Err(StartError::Disabled)));
    let some = children(config::Children { allow: vec!["/bin/cat".into()], ..settings() });
    assert!(matches!(some.start(spec(&["/bin/sh"])).await, Err(StartError::NotAllowed(_))));
    assert!(some.start(spec(&["/bin/cat"])).await.is_ok());
}

#[tokio::test]
async fn a_stop_of_the_process_ends_all_and_starts_no_more() {
    let children = children(settings());
    let polite = children.start(spec(&["cat"])).await.unwrap();
    let mut stubborn = children.start(script(STUBBORN)).await.unwrap();
    stubborn.next().await.unwrap().unwrap();
    assert!(children.shutdown(Duration::from_millis(500)).await);
    assert!(children.list().is_empty());
    assert_eq!((polite.ended().await.why, stubborn.ended().await.why), (EndedWhy::Shutdown, EndedWhy::Shutdown));
    silence(&mut stubborn.split().1).await;
    assert!(matches!(children.start(spec(&["cat"])).await, Err(StartError::Stopping)));
}

#[tokio::test]
async fn two_hundred_lives_leave_no_process_behind() {
    const MARK: &str = "mark-of-two-hundred-lives";
    let children = children(settings());
    let mut helpers = Vec::new();
    for _ in 0..25 {
        let mut running = Vec::new();
        for _ in 0..8 {
            running.push(children.start(spec(&["/bin/sh", "-c", "sleep 1000 & cat", MARK])).await.unwrap());
        }
        for mut child in running {
            child.send(Bytes::from_static(b"{}")).await.unwrap();
            child.next().await.unwrap().unwrap();
            helpers.push(child.handle().pid());
            child.stop();
            assert_eq!(child.ended().await.code, Some(0));
        }
    }
    assert!(children.list().is_empty());
    assert_eq!(helpers.len(), 200);
    for process in std::fs::read_dir("/proc").unwrap() {
        let path = process.unwrap().path();
        let Ok(said) = std::fs::read(path.join("cmdline")) else { continue };
        assert!(!String::from_utf8_lossy(&said).contains(MARK), "{} lives", path.display());
        // A zombie has no command line, but a parent.
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let zombie = stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z"));
        let ours = helpers.iter().any(|helper| path.ends_with(helper.to_string()));
        assert!(!(zombie && ours), "{} is a zombie", path.display());
    }
}
