//! The one form in which values are hashed: fixed width or with their length before them, so that no two lists of values look alike.
//! Pure. What it yields must be the same from what is about to be stored and from what was read back.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// SHA-256.
pub type Hash = [u8; 32];

/// Before the first of a chain.
pub const START: Hash = [0; 32];

/// Values on their way into a hash.
#[derive(Debug)]
pub struct Canon(Vec<u8>);

impl Canon {
    /// `kind` keeps hashes of different things apart.
    pub fn new(kind: &str) -> Self {
        let mut canon = Self(Vec::with_capacity(768));
        canon.text(kind);
        canon
    }

    pub fn number(&mut self, value: impl Into<i64>) -> &mut Self {
        self.0.extend_from_slice(&value.into().to_be_bytes());
        self
    }

    /// As Postgres keeps it: in microseconds.
    pub fn moment(&mut self, at: DateTime<Utc>) -> &mut Self {
        self.number(at.timestamp_micros())
    }

    pub fn id(&mut self, id: Uuid) -> &mut Self {
        self.0.extend_from_slice(id.as_bytes());
        self
    }

    /// No id is not the nil id.
    pub fn optional_id(&mut self, id: Option<Uuid>) -> &mut Self {
        self.0.push(id.is_some().into());
        self.id(id.unwrap_or_default())
    }

    pub fn octets(&mut self, octets: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(octets.len() as u64).to_be_bytes());
        self.0.extend_from_slice(octets);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.octets(text.as_bytes())
    }

    pub fn each<T>(&mut self, list: &[T], one: impl Fn(&mut Self, &T)) -> &mut Self {
        self.0.extend_from_slice(&(list.len() as u64).to_be_bytes());
        list.iter().for_each(|element| one(self, element));
        self
    }

    pub fn hash(&self) -> Hash {
        sha256(&self.0)
    }
}

/// SHA-256 of bytes as they are.
pub fn sha256(bytes: &[u8]) -> Hash {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lists_of_values_look_alike() {
        let hash = |fill: &dyn Fn(&mut Canon)| {
            let mut canon = Canon::new("test");
            fill(&mut canon);
            canon.hash()
        };
        let all = [
            hash(&|c| _ = c.text("ab").text("c")),
            hash(&|c| _ = c.text("a").text("bc")),
            hash(&|c| _ = c.each(&["a", "b"], |c, t| _ = c.text(t))),
            hash(&|c| _ = c.each(&["a"], |c, t| _ = c.text(t)).text("b")),
            hash(&|c| _ = c.optional_id(None)),
            hash(&|c| _ = c.optional_id(Some(Uuid::nil()))),
            hash(&|_| ()),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_ne!(Canon::new("a").hash(), Canon::new("b").hash());
    }
}
