//! Who wants which log messages. The process is set to the most talkative level that any session wants, one change at a time; each session
//! hears what it wanted, and one that wanted nothing hears nothing. A level counts once the process has agreed.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;

use super::ids::Whose;

/// RFC 5424, least important first.
const NAMES: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// How important a log message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level(usize);

impl Level {
    /// What a message of a level that nobody knows is taken for: nobody misses it.
    pub const HIGHEST: Self = Self(NAMES.len() - 1);

    pub fn parse(text: &str) -> Option<Self> {
        NAMES.iter().position(|name| *name == text).map(Self)
    }

    pub fn as_str(self) -> &'static str {
        NAMES[self.0]
    }
}

/// What a session asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub whose: Whose,
    pub level: Level,
    /// Its request.
    pub message: Bytes,
}

/// What has to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the request of the session's to the process, with this level in it.
    Send(Level, Wish),
    /// Set this level; no session waits for that.
    Set(Level),
    /// Tell the session that it is so.
    Agree(Whose),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Levels {
    wanted: HashMap<u64, Level>,
    /// What the process is set to, once anybody has set it.
    set: Option<Level>,
    /// What it was asked and has not answered.
    asking: Option<Asking>,
    waiting: VecDeque<Wish>,
}

#[derive(Debug)]
struct Asking {
    level: Level,
    /// For whom, and what that one wants; none where nobody waits for it any more.
    whose: Option<(Whose, Level)>,
}

impl Levels {
    /// A session wants messages from this level on.
    pub fn wish(&mut self, wish: Wish) -> Vec<Step> {
        self.waiting.push_back(wish);
        self.proceed()
    }

    /// The process has answered.
    pub fn answered(&mut self, agreed: bool) -> Vec<Step> {
        let Some(asked) = self.asking.take() else { return Vec::new() };
        match asked.whose {
            Some(((session, _), level)) if agreed => {
                self.set = Some(asked.level);
                self.wanted.insert(session, level);
            }
            Some(_) => {}
            // Whether it agreed or not: it is not asked again and again.
            None => self.set = Some(asked.level),
        }
        self.proceed()
    }

    /// A session does not wait for an answer any more. What the process was asked it will answer, and nobody counts for it.
    pub fn cancel(&mut self, whose: Whose) {
        self.waiting.retain(|wish| wish.whose != whose);
        self.abandon(|it| it == whose);
    }

    /// A session is over.
    pub fn leave(&mut self, session: u64) -> Vec<Step> {
        self.wanted.remove(&session);
        self.waiting.retain(|wish| wish.whose.0 != session);
        self.abandon(|(of, _)| of == session);
        self.proceed()
    }

    /// Whom a message of this level is for.
    pub fn concerned(&self, level: Level) -> impl Iterator<Item = u64> {
        self.wanted.iter().filter(move |(_, wanted)| level >= **wanted).map(|(session, _)| *session)
    }

    fn abandon(&mut self, is_gone: impl Fn(Whose) -> bool) {
        if let Some(asking) = &mut self.asking {
            asking.whose = asking.whose.filter(|(whose, _)| !is_gone(*whose));
        }
    }

    fn proceed(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        while self.asking.is_none() {
            let Some(wish) = self.waiting.pop_front() else { break };
            let session = wish.whose.0;
            let others = self.wanted.iter().filter(|(other, _)| **other != session).map(|(_, level)| *level);
            let level = others.min().map_or(wish.level, |others| others.min(wish.level));
            if self.set == Some(level) {
                self.wanted.insert(session, wish.level);
                steps.push(Step::Agree(wish.whose));
                continue;
            }
            self.asking = Some(Asking { level, whose: Some((wish.whose, wish.level)) });
            steps.push(Step::Send(level, wish));
        }
        // Nobody wants what those wanted that have left.
        let level = self.wanted.values().copied().min().unwrap_or(Level::HIGHEST);
        if self.asking.is_none() && self.set.is_some_and(|set| set != level) {
            self.asking = Some(Asking { level, whose: None });
            steps.push(Step::Set(level));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: &str) -> Level {
        Level::parse(name).unwrap()
    }

    fn wish(session: u64, name: &str) -> Wish {
        Wish { whose: (session, 1), level: level(name), message: Bytes::new() }
    }

    fn concerned(all: &Levels, name: &str) -> Vec<u64> {
        let mut concerned: Vec<u64> = all.concerned(level(name)).collect();
        concerned.sort_unstable();
        concerned
    }

    fn send(session: u64, set: &str, name: &str) -> Step {
        Step::Send(level(set), wish(session, name))
    }

    #[test]
    fn the_process_says_all_that_anybody_wants_and_each_hears_what_it_wanted() {
        let mut all = Levels::default();
        assert_eq!(all.wish(wish(1, "warning")), [send(1, "warning", "warning")]);
        assert!(all.answered(true).is_empty());
        assert_eq!(all.wish(wish(2, "debug")), [send(2, "debug", "debug")]);
        assert!(all.answered(true).is_empty());
        assert_eq!(all.wish(wish(3, "error")), [Step::Agree((3, 1))], "it says that already");
        assert_eq!(concerned(&all, "debug"), [2]);
        assert_eq!(concerned(&all, "warning"), [1, 2]);
        assert_eq!(concerned(&all, "alert"), [1, 2, 3]);
        // The most talkative one wants less now.
        assert_eq!(all.wish(wish(2, "critical")), [send(2, "warning", "critical")]);
    }

    #[test]
    fn changes_come_one_after_the_other_and_a_refused_one_does_not_count() {
        let mut all = Levels::default();
        assert_eq!(all.wish(wish(1, "info")), [send(1, "info", "info")]);
        assert!(all.wish(wish(2, "error")).is_empty());
        assert_eq!(all.answered(false), [send(2, "error", "error")]);
        assert!(all.answered(true).is_empty());
        assert_eq!((concerned(&all, "emergency"), concerned(&all, "warning")), (vec![2], vec![]));
    }

    #[test]
    fn who_leaves_is_not_listened_for() {
        let mut all = Levels::default();
        all.wish(wish(1, "debug"));
        all.answered(true);
        all.wish(wish(2, "error"));
        assert_eq!(all.leave(1), [Step::Set(level("error"))]);
        assert!(all.answered(false).is_empty(), "a process that does not want to is not asked again");
        assert_eq!(all.leave(2), [Step::Set(Level::HIGHEST)]);
        assert!(all.wish(wish(3, "info")).is_empty());
        assert_eq!(all.answered(true), [send(3, "info", "info")]);
        all.cancel((3, 1));
        assert_eq!(all.answered(true), [Step::Set(Level::HIGHEST)]);
        assert_eq!(concerned(&all, "emergency"), [0; 0]);
    }

    #[test]
    fn levels_are_known_by_their_names() {
        assert_eq!((level("debug") < level("info"), Level::HIGHEST.as_str()), (true, "emergency"));
        for unknown in ["", "Debug", "trace", "fatal"] {
            assert_eq!(Level::parse(unknown), None, "{unknown}");
        }
    }
}
