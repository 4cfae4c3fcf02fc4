//! What a count is found by: whose and of what it is. Also what it is called where nodes share it.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest;

use crate::limits::{Caller, Demand};

/// See the module.
pub(super) struct Key {
    pub org: Box<str>,
    pub limit: Box<str>,
    pub caller: Option<Owner>,
    pub server: Option<Box<str>>,
    pub pattern: Option<Box<str>>,
}

pub(super) enum Owner {
    Subject(Box<str>),
    Address(IpAddr),
}

impl fmt::Display for Owner {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => to.write_str(subject),
            Self::Address(address) => address.fmt(to),
        }
    }
}

impl Key {
    pub fn of(demand: &Demand<'_>) -> Self {
        Self {
            org: demand.org.into(),
            limit: (&*demand.limit.id).into(),
            caller: demand.caller.map(|caller| match caller {
                Caller::Subject(subject) => Owner::Subject(subject.into()),
                Caller::Address(address) => Owner::Address(address),
            }),
            server: demand.server.map(Into::into),
            pattern: demand.pattern.map(Into::into),
        }
    }

    pub fn is(&self, demand: &Demand<'_>) -> bool {
        let caller = match (&self.caller, demand.caller) {
            (None, None) => true,
            (Some(Owner::Subject(own)), Some(Caller::Subject(other))) => **own == *other,
            (Some(Owner::Address(own)), Some(Caller::Address(other))) => *own == other,
            (Some(_) | None, Some(_) | None) => false,
        };
        caller
            && *self.limit == *demand.limit.id
            && *self.org == *demand.org
            && self.server.as_deref() == demand.server
            && self.pattern.as_deref() == demand.pattern
    }

    /// `<prefix>:1:{<organisation>}:<limit>:<digest>`, where the digest is of what callers, servers and endpoints are told apart by:
    /// nothing that a caller chose is in it, and its length is bounded. The braces make one slot of a Cluster of an organisation; the 1
    /// is the form of what is stored. A limit's numbers are not in it, so that editing them forgets nothing.
    pub fn name(&self, prefix: &str) -> String {
        let mut told = digest::Context::new(&digest::SHA256);
        let mut tell = |kind: u8, text: &str| {
            told.update(&[kind]);
            told.update(&(text.len() as u64).to_le_bytes());
            told.update(text.as_bytes());
        };
        match &self.caller {
            None => {}
            Some(Owner::Subject(subject)) => tell(b's', subject),
            Some(Owner::Address(address)) => tell(b'a', &address.to_string()),
        }
        self.server.as_deref().into_iter().for_each(|server| tell(b'v', server));
        self.pattern.as_deref().into_iter().for_each(|pattern| tell(b'p', pattern));
        let digest = hex::encode(&told.finish().as_ref()[..16]);
        format!("{prefix}:1:{{{}}}:{}:{digest}", plain(&self.org), plain(&self.limit))
    }
}

/// Ids are UUIDs; should one ever be something else, it still cannot reach out of its place.
fn plain(id: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !id.is_empty() && id.len() <= 64 && id.chars().all(fits) {
        return id.to_owned();
    }
    hex::encode(digest::digest(&digest::SHA256, id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(org: &str, limit: &str, caller: Option<Owner>, server: Option<&str>, pattern: Option<&str>) -> String {
        let key = Key {
            org: org.into(),
            limit: limit.into(),
            caller,
            server: server.map(Into::into),
            pattern: pattern.map(Into::into),
        };
        key.name("mcpgw")
    }

    #[test]
    fn whatever_a_caller_is_called_the_key_stays_in_its_place_and_short() {
        let subject = |text: &str| Some(Owner::Subject(text.into()));
        let long = "x".repeat(100_000);
        let names = [
            name("o", "l", None, None, None),
            name("o", "l", subject(""), None, None),
            name("o", "l", subject("a}:{b"), None, None),
            name("o", "l", subject(&long), None, None),
            name("o", "l", subject("192.0.2.1"), None, None),
            name("o", "l", Some(Owner::Address([192, 0, 2, 1].into())), None, None),
            name("o", "l", None, Some("a"), None),
            name("o", "l", None, None, Some("a")),
            // What could run together does not.
            name("o", "l", None, Some("a"), Some("b")),
            name("o", "l", None, Some("ab"), Some("")),
        ];
        for (place, name) in names.iter().enumerate() {
            assert!(name.starts_with("mcpgw:1:{o}:l:") && name.len() < 60, "{name}");
            assert!(!names[..place].contains(name), "{name}");
        }
        assert!(!name("a}:{b", "l", None, None, None).contains("a}"));
    }
}
