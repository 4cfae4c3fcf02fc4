//! A private Postgres on a unix socket in a temporary directory. It dies with this process, however that dies.

use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running server.
pub struct Postgres {
    home: tempfile::TempDir,
    programs: PathBuf,
    user: Option<&'static str>,
    settings: &'static str,
    /// Waits for the end of its standard input, which is the end of this process, and clears up.
    guard: Option<Child>,
}

const LAST_RITES: &str =
    r#"trap "" INT TERM; cat >/dev/null; kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")" 2>/dev/null; rm -rf "$1""#;
/// Nothing that a test writes has to survive a power cut.
const HASTY: &str = "-c listen_addresses= -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 \
                        -c shared_buffers=32MB -c logging_collector=off";
/// What a fresh installation has; whatever is acknowledged is on disk.
const DURABLE: &str = "-c listen_addresses= -c logging_collector=off";

impl Postgres {
    /// Initialises and starts one. Panics, saying what to install, where there are no binaries.
    pub fn start() -> Self {
        Self::with(HASTY)
    }

    /// As [`Postgres::start`], with the settings of a fresh installation: to measure, not to test.
    pub fn durable() -> Self {
        Self::with(DURABLE)
    }

    fn with(settings: &'static str) -> Self {
        let programs =
            programs().expect("no initdb in PATH or /usr/lib/postgresql/*/bin: `apt-get install -y postgresql` brings it");
        let home = tempfile::Builder::new().prefix("mcpgw-pg-").tempdir_in("/tmp").expect("/tmp is writable");
        let user = (user_id() == 0).then_some("postgres");
        if let Some(user) = user {
            std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).expect("our own directory");
            chown(home.path(), Some(id_of(user)), None).expect("root may give it away");
        }
        let mut server = Self { home, programs, user, settings, guard: None };
        server.run("initdb", &["-D", &server.data(), "-A", "trust", "-U", "gw", "-E", "UTF8", "--no-locale", "--no-sync"]);
        server.up();
        let guard = Command::new("sh")
            .args(["-c", LAST_RITES, "sh"])
            .arg(server.home.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        server.guard = Some(guard);
        server
    }

    /// Starts the server again after [`Postgres::down`].
    pub fn up(&self) {
        let (socket, settings) = (self.home.path().display(), self.settings);
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-l", &self.log(), "-o", &format!("-k {socket} {settings}"), "start"]);
    }

    /// Stops the server, cutting every connection.
    pub fn down(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-m", "fast", "stop"]);
    }

    /// Copies the server's files as they are, while it is down: what a crash would have left.
    pub fn remember(&self) {
        self.copy(&self.data(), &self.remembered());
    }

    /// Puts the copied files back, while the server is down: everything since then is lost.
    pub fn forget_since(&self) {
        self.copy(&self.remembered(), &self.data());
    }

    fn copy(&self, from: &str, to: &str) {
        let _ = std::fs::remove_dir_all(to); // the first time there is none
        let done = Command::new("cp").args(["-a", from, to]).status().expect("there is cp");
        assert!(done.success(), "cp -a {from} {to}");
    }

    fn remembered(&self) -> String {
        self.home.path().join("remembered").display().to_string()
    }

    /// The URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=gw", self.home.path().display())
    }

    /// The directory below which everything of it lies: data, log and socket.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn data(&self) -> String {
        self.home.path().join("data").display().to_string()
    }

    fn log(&self) -> String {
        self.home.path().join("log").display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let path = self.programs.join(program);
        let mut command = match self.user {
            None => Command::new(path),
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(path);
                command
            }
        };
        let output = command.args(arguments).current_dir("/").stdin(Stdio::null()).output().expect("the program starts");
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        assert!(output.status.success(), "{program}: {}\n{log}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait(); // nothing is left to be done if it fails
        }
    }
}

fn programs() -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let installed =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|version| version.path().join("bin"));
    let mut installed: Vec<PathBuf> = installed.collect();
    installed.sort();
    installed.reverse();
    let complete = |directory: &PathBuf| directory.join("initdb").exists() && directory.join("pg_ctl").exists();
    installed.into_iter().chain(in_path).find(complete)
}

fn user_id() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("Linux has /proc"))
}

fn id_of(user: &str) -> u32 {
    let passwd = std::fs::read_to_string(Path::new("/etc/passwd")).expect("users are listed");
    let line = passwd
        .lines()
        .find(|line| line.starts_with(&format!("{user}:")))
        .expect("the distribution's package makes the user postgres");
    line.split(':').nth(2).and_then(|id| id.parse().ok()).expect("the third field is the id")
}
