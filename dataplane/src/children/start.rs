//! Everything that has to be right before a child runs: what may be run, where it is, what it gets.
//! Never keeps a child. Called by `Children::start`.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::helper::{Limit, Stop};
use super::life::{DEADLINE, GRACE};
use super::recipe::{Program, Recipe};
use crate::config;

/// Where programs are looked for if the server's own environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Text is UTF-8 to it.
const LANG: &str = "C.UTF-8";

/// Which child to start. Only what an administrator registered belongs here, nothing of a request.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The server that it is.
    pub server_id: Arc<str>,
    /// Whose server that is.
    pub org_id: Arc<str>,
    /// Program and arguments; no shell reads them. The program is absolute, or relative to `dir`, or looked for in `PATH`.
    pub argv: Arc<[String]>,
    /// Its environment, beside `PATH`, `HOME` (where it starts) and `LANG` unless they are named here.
    pub env: Vec<(String, String)>,
    /// Where it starts; none: the root directory.
    pub dir: Option<PathBuf>,
    /// The session that it serves, or `shared`.
    pub owner: String,
}

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This node runs none.
    #[error("this node runs no servers of its own: children.enabled is off")]
    Disabled,
    /// This node does not run this program.
    #[error("program `{}` is not in children.allow of this node", .0.display())]
    NotAllowed(PathBuf),
    /// As many run as may.
    #[error("{whose} runs as many servers' processes as it may ({})", .whose.setting())]
    Full {
        /// Whose bound was met.
        whose: Whose,
    },
    /// The server failed lately.
    #[error("the server's process keeps ending; it is started again in {} ms at the earliest", .until.saturating_duration_since(Instant::now()).as_millis())]
    Backoff {
        /// When it may be tried again.
        until: Instant,
    },
    /// This process stops.
    #[error("this node is stopping")]
    Stopping,
    /// It cannot be run as registered.
    #[error("the server's process cannot be started: {0}")]
    Spawn(#[source] io::Error),
}

impl StartError {
    /// When it may be worth trying again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Backoff { until } => Some(until.saturating_duration_since(Instant::now())),
            Self::Disabled | Self::NotAllowed(_) | Self::Full { .. } | Self::Stopping | Self::Spawn(_) => None,
        }
    }
}

/// Whose bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// That of all children here.
    Node,
    /// That of one organisation.
    Organization,
}

impl Whose {
    fn setting(self) -> &'static str {
        match self {
            Self::Node => "children.max",
            Self::Organization => "children.max_per_organization",
        }
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Node => "this node",
            Self::Organization => "the organization",
        })
    }
}

/// What the helper is to run. Looks for the program on disk.
pub(super) fn recipe(spec: &Spec, settings: &config::Children) -> Result<Recipe, StartError> {
    let dir = spec.dir.clone().unwrap_or_else(|| "/".into());
    if !dir.is_absolute() {
        return Err(invalid(format!("its directory `{}` is not absolute", dir.display())));
    }
    let env = environment(&spec.env, &dir)?;
    let (program, arguments) = spec.argv.split_first().ok_or_else(|| invalid("no program is named".into()))?;
    if spec.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid("an argument contains a zero byte".into()));
    }
    let search = env.iter().rev().find(|(name, _)| name == "PATH").map_or(PATH, |(_, value)| value);
    let program = find(program, &dir, search)?;
    if !settings.allow.is_empty() && !settings.allow.contains(&program) {
        return Err(StartError::NotAllowed(program));
    }
    let mut argv = vec![program.into_os_string()];
    argv.extend(arguments.iter().map(OsString::from));
    Ok(Recipe { argv, env, dir, account: None, stop: Stop::Term, deadline: DEADLINE })
}

/// The helper's command line.
pub(super) fn command(recipe: &Recipe, program: &Program, settings: &config::Children) -> tokio::process::Command {
    let limits = [("nofile", settings.nofile), ("nproc", settings.nproc), ("as", settings.memory_bytes)];
    let limits = limits.into_iter().filter(|(_, most)| *most != 0);
    // Never a core: it would hold what the server was told.
    let limits = limits.chain([("core", 0)]).filter_map(|(name, most)| Limit::new(name, most));
    recipe.talking(program, GRACE, &limits.collect::<Vec<_>>())
}

fn environment(given: &[(String, String)], dir: &Path) -> Result<Vec<(String, String)>, StartError> {
    let wrong = |(name, value): &&(String, String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    if let Some((name, _)) = given.iter().find(wrong) {
        return Err(invalid(format!("`{}` cannot be a variable of its environment", name.escape_default())));
    }
    let defaults = [("PATH", PATH.to_owned()), ("HOME", dir.display().to_string()), ("LANG", LANG.to_owned())];
    let mut env: Vec<_> = defaults.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    env.retain(|(default, _)| !given.iter().any(|(name, _)| name == default));
    env.extend(given.iter().cloned());
    Ok(env)
}

/// Where the program is, absolute.
fn find(program: &str, dir: &Path, search: &str) -> Result<PathBuf, StartError> {
    if program.is_empty() {
        return Err(invalid("no program is named".into()));
    }
    if program.contains('/') {
        let path = dir.join(program);
        return if is_program(&path) { Ok(path) } else { Err(missing(format!("{} is no program", path.display()))) };
    }
    let places = search.split(':').map(Path::new).filter(|place| place.is_absolute());
    let mut paths = places.map(|place| place.join(program));
    paths.find(|path| is_program(path)).ok_or_else(|| missing(format!("there is no program `{program}` in {search}")))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn invalid(why: String) -> StartError {
    StartError::Spawn(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn missing(why: String) -> StartError {
    StartError::Spawn(io::Error::new(io::ErrorKind::NotFound, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(argv: &[&str], env: &[(&str, &str)]) -> Spec {
        Spec {
            server_id: "s".into(),
            org_id: "o".into(),
            argv: argv.iter().map(ToString::to_string).collect(),
            env: env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            dir: None,
            owner: "shared".into(),
        }
    }

    fn refused(argv: &[&str], env: &[(&str, &str)]) -> String {
        recipe(&spec(argv, env), &config::Children::default()).unwrap_err().to_string()
    }

    #[test]
    fn a_program_is_found_where_its_environment_says() {
        let settings = config::Children::default();
        let found = |spec: &Spec| recipe(spec, &settings).unwrap();
        assert_eq!(found(&spec(&["sh", "-c", "x"], &[("PATH", "bin:/nowhere:/bin")])).argv, ["/bin/sh", "-c", "x"]);
        assert_eq!(found(&spec(&["/bin/sh"], &[])).argv, ["/bin/sh"]);
        assert_eq!(found(&Spec { dir: Some("/bin".into()), ..spec(&["./sh"], &[]) }).argv, ["/bin/./sh"]);
        let env = found(&spec(&["sh"], &[("HOME", "/x"), ("KEY", "v=1")])).env;
        let expected = [("PATH", PATH), ("LANG", LANG), ("HOME", "/x"), ("KEY", "v=1")];
        assert_eq!(env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_cannot_run_is_named() {
        for (argv, env, why) in [
            (&[][..], &[][..], "no program"),
            (&[""], &[], "no program"),
            (&["no-such-program"], &[], "`no-such-program` in /usr/local/sbin:"),
            (&["/etc/passwd"], &[], "/etc/passwd is no program"),
            (&["/etc"], &[], "/etc is no program"),
            (&["sh", "a\0b"], &[], "zero byte"),
            (&["sh"], &[("A=B", "")], "`A=B`"),
            (&["sh"], &[("", "x")], "``"),
            (&["sh"], &[("PATH", "")], "no program `sh`"),
        ] {
            let said = refused(argv, env);
            assert!(said.contains(why), "{argv:?} {env:?}: {said}");
        }
        let relative = Spec { dir: Some("x".into()), ..spec(&["sh"], &[]) };
        assert!(recipe(&relative, &config::Children::default()).is_err());
    }

    #[test]
    fn only_allowed_programs_run_if_any_are_listed() {
        let settings = config::Children { allow: vec!["/bin/sh".into()], ..config::Children::default() };
        assert!(recipe(&spec(&["/bin/sh"], &[]), &settings).is_ok());
        for other in ["/bin/../bin/sh", "/bin/cat", "/usr/bin/env"] {
            assert!(matches!(recipe(&spec(&[other], &[]), &settings), Err(StartError::NotAllowed(_))), "{other}");
        }
    }
}
