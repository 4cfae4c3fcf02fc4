//! As whom Postgres runs: as us, but never as root, which it refuses.
//! Reads `/etc/passwd` and nothing else. Called by `cluster`.

use anyhow::Context as _;

/// A user that is not us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Whom to run Postgres as; `None`: as ourselves.
pub fn choose() -> anyhow::Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
    let account = find(&passwd, "postgres").or_else(|| find(&passwd, "nobody"));
    account.map(Some).context("Postgres does not run as root, and /etc/passwd has neither postgres nor nobody")
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|it| it[0] == name)?;
    Some(Account { name: name.to_owned(), uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\npostgres2:x:7:8::/:/bin/sh\npostgres:x:105:110:,,,:/var/lib/postgresql:/bin/bash\n";
        let expected = Account { name: "postgres".into(), uid: 105, gid: 110 };
        assert_eq!(find(passwd, "postgres"), Some(expected));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(find("broken\npostgres:x", "postgres"), None);
    }
}
