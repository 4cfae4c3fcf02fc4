//! The owner's credential while standalone needs it: until its node has joined and, with a demo, as long as there is one.
//! Kept in a file for its owner only, so that a start that was cut off can go on. Called by `standalone`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args as Flags;
use serde::{Deserialize, Serialize};

use super::home::Home;
use super::plan::make_up;
use crate::prompt;

const FILE: &str = "owner.json";

/// Who owns the installation.
#[derive(Debug, Clone, Flags)]
#[command(next_help_heading = "The owner, created by the first start")]
pub struct OwnerFlags {
    /// The owner's email address
    #[arg(long, env = "MCPGW_OWNER_EMAIL", default_value = "owner@localhost")]
    owner_email: String,
    /// Read the owner's password from a file; without it one is made up and shown once
    #[arg(long, env = "MCPGW_OWNER_PASSWORD_FILE", value_name = "FILE")]
    owner_password_file: Option<PathBuf>,
}

/// The owner's credential. No `Debug`: it would show the password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Owner {
    pub email: String,
    pub password: String,
    #[serde(skip)]
    pub origin: Origin,
}

/// Where the password comes from, which says whether it may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A file of somebody who knows it.
    Given,
    /// A start that was cut off before it showed it, or one with a demo.
    #[default]
    Saved,
    /// Made up now; only good if the database has no owner yet.
    New,
}

impl Owner {
    /// The credential that flags give, or the saved one, or a new one. That is saved while it is needed: until the node
    /// has joined.
    pub fn load_or_make(flags: &OwnerFlags, home: &Home, joined: bool) -> anyhow::Result<Self> {
        let email = flags.owner_email.clone();
        if let Some(file) = &flags.owner_password_file {
            return Ok(Self { email, password: prompt::secret_file(file)?, origin: Origin::Given });
        }
        let path = home.dir().join(FILE);
        if path.exists() {
            return read(&path);
        }
        let made = Self { email, password: make_up(18), origin: Origin::New };
        if !joined {
            home.write_secret(FILE, &serde_json::to_string_pretty(&made)?)?;
        }
        Ok(made)
    }

    /// The same without a password that somebody else chose.
    pub fn for_display(&self) -> Self {
        let mut shown = self.clone();
        if self.origin == Origin::Given {
            shown.password.clear();
        }
        shown
    }

    /// Forgets the saved credential.
    pub fn forget(home: &Home) -> anyhow::Result<()> {
        let path = home.dir().join(FILE);
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> anyhow::Result<Owner> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged: delete it", path.display()))
}
