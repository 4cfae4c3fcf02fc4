//! Which names rollups keep apart. Names come from callers: only one that a server answered with success is a name of something, and
//! only so many of a server are kept apart; all others are `other`.
//!
//! Remembered per replica and not stored: what several replicas and restarts keep apart is still bounded by what servers answer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

/// What stands for every name that is not kept apart.
pub const OTHER: &str = "other";
/// Names of one server.
const MOST: usize = 200;
/// Servers whose names are kept apart.
const SERVERS: usize = 10_000;
/// Bytes of a name.
const LONGEST: usize = 256;
/// A name that was not seen for so many minutes makes room.
const FORGOTTEN: i64 = 60;

/// The protocol's methods, of every version; callers can write anything.
const METHODS: [&str; 29] = [
    "",
    "GET",
    "DELETE",
    "batch",
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "completion/complete",
    "logging/setLevel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
    "tasks/cancel",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "response",
];

/// A method as rollups have it.
pub fn method(method: &str) -> &'static str {
    METHODS.iter().find(|known| **known == method).copied().unwrap_or(OTHER)
}

type Known = HashMap<Box<str>, i64>;

/// The names that are kept apart, with the minute that each was last seen in.
#[derive(Debug, Default)]
pub struct Names {
    servers: Mutex<HashMap<(Uuid, Uuid), Known>>,
}

impl Names {
    /// The name itself if it is kept apart, else [`OTHER`].
    pub fn of<'a>(&self, server: (Uuid, Uuid), name: &'a str, succeeded: bool, minute: i64) -> &'a str {
        if name.is_empty() {
            return "";
        }
        if name.len() > LONGEST {
            return OTHER;
        }
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = servers.get_mut(&server).and_then(|known| known.get_mut(name)) {
            *seen = minute.max(*seen);
            return name;
        }
        if !succeeded || (servers.len() >= SERVERS && !servers.contains_key(&server)) {
            return OTHER;
        }
        let known = servers.entry(server).or_default();
        if known.len() >= MOST {
            known.retain(|_, seen| *seen + FORGOTTEN > minute);
        }
        if known.len() >= MOST {
            return OTHER;
        }
        known.insert(name.into(), minute);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_server_knows_are_kept_apart_and_only_so_many() {
        let (names, server, another) = (Names::default(), (Uuid::nil(), Uuid::nil()), (Uuid::nil(), Uuid::max()));
        assert_eq!(names.of(server, "guess", false, 0), OTHER);
        assert_eq!(names.of(server, "search", true, 0), "search");
        assert_eq!(names.of(server, "search", false, 0), "search", "a known tool that failed");
        assert_eq!(names.of(another, "search", false, 0), OTHER);
        assert_eq!(names.of(server, "", true, 0), "");
        assert_eq!(names.of(server, &"x".repeat(LONGEST + 1), true, 0), OTHER);
        for n in 1..MOST {
            assert_eq!(names.of(server, &n.to_string(), true, 1), n.to_string());
        }
        assert_eq!(names.of(server, "one more", true, FORGOTTEN - 1), OTHER);
        assert_eq!(names.of(server, "one more", true, FORGOTTEN), "one more", "in place of what nobody calls any more");
        assert_eq!(names.of(server, "search", false, FORGOTTEN), OTHER);
    }

    #[test]
    fn methods_that_nobody_defined_are_one() {
        assert_eq!((method("tools/call"), method("x"), method("")), ("tools/call", OTHER, ""));
    }
}
