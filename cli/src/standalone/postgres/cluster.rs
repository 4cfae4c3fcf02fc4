//! The data directory of the private Postgres: its place, its owner, its first contents, and how its server is started.
//! Never deletes data. Called by `postgres`.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::AsyncReadExt as _;
use tracing::info;

use super::account::{self, Account};
use super::binaries::{self, Binaries};
use crate::config;
use mcpgw_dataplane::children::helper::Stop;
use mcpgw_dataplane::children::{Recipe, Supervised};

/// The role that owns everything in the cluster.
const ROLE: &str = "mcpgw";
const SOCKET: &str = ".s.PGSQL.5432";
/// What `sockaddr_un` holds, without the final zero.
const LONGEST_SOCKET_PATH: usize = 107;
const INITIALISE: Duration = Duration::from_secs(300);

/// Where everything is.
#[derive(Debug)]
pub struct Cluster {
    pub data: PathBuf,
    sockets: PathBuf,
    binaries: Binaries,
    account: Option<Account>,
}

impl Cluster {
    /// Finds the binaries, creates what is missing, and initialises the data on first use.
    pub async fn prepare(home: &Path, pg_bin: Option<&Path>) -> anyhow::Result<Self> {
        let account = account::choose()?;
        let home = create_home(home)?;
        if let Some(account) = &account {
            can_pass(&home, account)?;
        }
        let data = home.join("postgres");
        let existing = existing_major(&data)?;
        let binaries = binaries::find(pg_bin, existing)?;
        let sockets = socket_dir(&home, config::runtime_dir());
        create_private(&sockets, account.as_ref())?;
        let cluster = Self { data, sockets, binaries, account };
        if existing.is_none() {
            cluster.initialise().await?;
        }
        Ok(cluster)
    }

    /// How to run the server.
    pub fn server(&self) -> Recipe {
        let sockets = format!("unix_socket_directories=\"{}\"", self.sockets.display());
        let settings = [
            &sockets,
            "listen_addresses=",
            "unix_socket_permissions=0700",
            "logging_collector=off",
            "log_destination=stderr",
            "log_line_prefix=",
            "lc_messages=C",
        ];
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data.clone().into()];
        for setting in settings {
            arguments.extend(["-c".into(), setting.into()]);
        }
        // Fast shutdown: it rolls back what is open and closes connections.
        self.recipe("postgres", arguments, Stop::Int, Duration::from_secs(20))
    }

    /// As `DATABASE_URL`.
    pub fn url(&self) -> String {
        let sockets = percent_encode(&self.sockets.display().to_string());
        format!("postgres:///postgres?host={sockets}&user={ROLE}")
    }

    fn recipe(&self, program: &str, arguments: Vec<OsString>, stop: Stop, deadline: Duration) -> Recipe {
        let mut argv = vec![self.binaries.dir.join(program).into_os_string()];
        argv.extend(arguments);
        let env = [("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")];
        Recipe {
            argv,
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            dir: "/".into(),
            account: self.account.as_ref().map(|it| (it.uid, it.gid)),
            stop,
            deadline,
        }
    }

    /// Writes a new cluster beside its place and moves it there, so that there is either a whole one or none.
    async fn initialise(&self) -> anyhow::Result<()> {
        info!(data = %self.data.display(), version = self.binaries.major, "initialising a private Postgres");
        let new = self.data.with_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new).with_context(|| format!("cannot remove the half-made {}", new.display()))?;
        }
        create_private(&new, self.account.as_ref())?;
        let arguments = ["--username", ROLE, "--auth-local", "trust", "--auth-host", "reject"];
        let mut arguments: Vec<OsString> = arguments.into_iter().map(OsString::from).collect();
        arguments.extend(["--encoding", "UTF8", "--locale", "C", "--pgdata"].map(OsString::from));
        arguments.push(new.clone().into());
        let recipe = self.recipe("initdb", arguments, Stop::Term, Duration::from_secs(5));
        let (mut child, mut stderr) = Supervised::start(&recipe)?;
        let mut said = String::new();
        let running = async {
            stderr.read_to_string(&mut said).await?;
            child.ended().await
        };
        let Ok(status) = tokio::time::timeout(INITIALISE, running).await else {
            bail!("initdb is not done after {} s", INITIALISE.as_secs());
        };
        ensure!(status?.success(), "initdb failed:\n{said}");
        fs::rename(&new, &self.data).with_context(|| format!("cannot create {}", self.data.display()))
    }
}

/// Creates the data directory; returns it absolute.
pub fn create_home(home: &Path) -> anyhow::Result<PathBuf> {
    let home = std::path::absolute(home)?;
    // Root's Postgres runs as another user, which has to pass through; what is inside is closed to it one by one.
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    let create = DirBuilder::new().recursive(true).mode(mode).create(&home);
    create.with_context(|| format!("cannot create the data directory {}", home.display()))?;
    Ok(home)
}

/// Says which directory keeps the account from its data, if one does: initdb would only say `permission denied`.
fn can_pass(home: &Path, account: &Account) -> anyhow::Result<()> {
    for dir in home.ancestors() {
        let metadata = fs::metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
        let mode = metadata.mode();
        let own = metadata.uid() == account.uid && mode & 0o100 != 0;
        ensure!(
            own || mode & 0o001 != 0,
            "Postgres runs as user {} here, who cannot pass through {} (mode {:o}): choose another --data-dir, such as /var/lib/mcpgw",
            account.name,
            dir.display(),
            mode & 0o7777,
        );
    }
    Ok(())
}

/// The major version that wrote the data; `None` if there is none yet.
fn existing_major(data: &Path) -> anyhow::Result<Option<u32>> {
    let file = data.join("PG_VERSION");
    if !data.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&file).with_context(|| format!("{} is no Postgres data directory", data.display()))?;
    text.trim().parse().map(Some).with_context(|| format!("{}: cannot read {text:?}", file.display()))
}

/// Where the socket lies: beside the data, or somewhere shorter if the path would not fit into an address.
fn socket_dir(home: &Path, runtime_dir: Option<PathBuf>) -> PathBuf {
    let fits = |dir: &Path| dir.join(SOCKET).as_os_str().len() < LONGEST_SOCKET_PATH;
    let beside = home.join("run");
    if fits(&beside) {
        return beside;
    }
    let mut hasher = DefaultHasher::new();
    home.hash(&mut hasher);
    let name = format!("mcpgw-{:016x}", hasher.finish());
    let runtime = runtime_dir.map(|it| it.join(&name)).filter(|it| fits(it));
    runtime.unwrap_or_else(|| Path::new("/tmp").join(name))
}

/// A directory that only its owner enters; one that exists must be exactly that, because in `/tmp` anybody could have made it.
fn create_private(dir: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let owner = account.map_or_else(|| rustix::process::geteuid().as_raw(), |it| it.uid);
    if !dir.exists() {
        let create = DirBuilder::new().mode(0o700).create(dir);
        create.with_context(|| format!("cannot create {}", dir.display()))?;
        if let Some(account) = account {
            chown(dir, Some(account.uid), Some(account.gid)).with_context(|| format!("cannot give away {}", dir.display()))?;
        }
    }
    let metadata = fs::symlink_metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let private = metadata.is_dir() && metadata.uid() == owner && metadata.permissions().mode() & 0o077 == 0;
    ensure!(private, "{} is not a directory that only user {owner} enters: remove it", dir.display());
    Ok(())
}

/// What may stand in a URL's query as it is, and everything else as `%xx`.
fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_that_is_too_long_moves_elsewhere() {
        let short = Path::new("/var/lib/mcpgw");
        assert_eq!(socket_dir(short, None), Path::new("/var/lib/mcpgw/run"));
        let long = Path::new("/srv").join("x".repeat(100));
        let moved = socket_dir(&long, None);
        assert!(moved.starts_with("/tmp") && moved.join(SOCKET).as_os_str().len() < LONGEST_SOCKET_PATH);
        assert_ne!(moved, socket_dir(&long.join("other"), None), "two data directories never share one");
        assert!(socket_dir(&long, Some("/run/user/1000".into())).starts_with("/run/user/1000"));
        assert!(socket_dir(&long, Some(long.clone())).starts_with("/tmp"));
    }

    #[test]
    fn a_directory_that_others_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(create_private(&open, None).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(create_private(&link, None).is_err());
        create_private(&dir.path().join("new"), None).unwrap();
        create_private(&dir.path().join("new"), None).unwrap();
    }

    #[test]
    fn a_path_stands_in_a_url_without_meaning_anything_else() {
        assert_eq!(percent_encode("/home/a b&c=d/run"), "/home/a%20b%26c%3Dd/run");
    }
}
