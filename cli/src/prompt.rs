//! Asking people: lines and passwords from the terminal, secrets from files.
//! Never prints what was typed. Called by verbs that need a secret.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// A password typed at the terminal without being shown.
pub fn password(question: &str) -> anyhow::Result<String> {
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("no terminal to ask for the password: use --password-stdin or MCPGW_PASSWORD")?;
    write!(terminal, "{question}: ")?;
    let _quiet = Quiet::start(terminal.try_clone()?)?;
    let mut line = String::new();
    BufReader::new(terminal.try_clone()?).read_line(&mut line)?;
    writeln!(terminal)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A secret from a file, `-` for stdin, without its last line end.
pub fn secret_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        file.read_to_string(&mut text)?;
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        bail!("{} is empty: expected a secret", path.display());
    }
    Ok(secret.to_owned())
}

/// A document from a file, `-` for stdin.
pub fn document(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return Ok(std::io::read_to_string(std::io::stdin())?);
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A terminal without echo until dropped.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn start(terminal: File) -> anyhow::Result<Self> {
        let before = tcgetattr(terminal.as_fd())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing to be done about a terminal that went away.
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Flush, &self.before);
    }
}
