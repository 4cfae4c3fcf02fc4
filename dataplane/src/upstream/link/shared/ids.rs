//! Requests under way at a shared process: under which number it knows each, and whose that is. A number is used once in the life of a process,
//! so that nothing late can be taken for the answer to something else.

use std::sync::Arc;

use hashbrown::HashMap;

/// A session and its own number for a request.
pub(super) type Whose = (u64, u64);

/// A request that the process has not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// None for what the gateway asks by itself, and for what its session does not wait for any more.
    pub whose: Option<Whose>,
    /// The progress token as the session wrote it.
    token: Option<Box<str>>,
    pub about: About,
}

/// What else depends on how a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum About {
    Nothing,
    /// What is said here holds for other sessions too.
    Subscription(Arc<str>),
    Level,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    by_number: HashMap<u64, Asked>,
    by_session: HashMap<Whose, u64>,
    last: u64,
}

impl InFlight {
    /// Gives a request its number.
    pub fn ask(&mut self, whose: Option<Whose>, token: Option<&str>, about: About) -> u64 {
        self.last += 1;
        let number = self.last;
        self.by_number.insert(number, Asked { whose, token: token.map(Box::from), about });
        if let Some(whose) = whose {
            self.by_session.insert(whose, number);
        }
        number
    }

    /// The process has answered.
    pub fn answered(&mut self, number: u64) -> Option<Asked> {
        let asked = self.by_number.remove(&number)?;
        if let Some(whose) = asked.whose {
            self.by_session.remove(&whose);
        }
        Some(asked)
    }

    /// Whose request there is progress of, and the token that the session knows.
    pub fn progress(&self, number: u64) -> Option<(Whose, &str)> {
        let asked = self.by_number.get(&number)?;
        Some((asked.whose?, asked.token.as_deref()?))
    }

    /// A session does not wait for an answer any more: the number under which the process is to be told, if it is. What others depend on
    /// goes on.
    pub fn cancel(&mut self, whose: Whose) -> Option<u64> {
        let number = self.by_session.remove(&whose)?;
        let asked = self.by_number.get_mut(&number)?;
        if asked.about == About::Nothing {
            self.by_number.remove(&number);
            return Some(number);
        }
        asked.whose = None;
        None
    }

    /// A session is over: the same for all that it asked.
    pub fn leave(&mut self, session: u64) -> Vec<u64> {
        let mut own: Vec<Whose> = self.by_session.keys().filter(|(of, _)| *of == session).copied().collect();
        own.sort_unstable();
        own.into_iter().filter_map(|whose| self.cancel(whose)).collect()
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty() && self.by_session.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_and_progress_find_whose_they_are_once() {
        let mut all = InFlight::default();
        let first = all.ask(Some((1, 7)), Some("\"t\""), About::Nothing);
        let second = all.ask(Some((2, 7)), None, About::Nothing);
        assert_ne!(first, second);
        assert_eq!(all.progress(first), Some(((1, 7), "\"t\"")));
        assert_eq!((all.progress(second), all.progress(99)), (None, None), "nobody asked for it");
        assert_eq!(all.answered(first).unwrap().whose, Some((1, 7)));
        assert_eq!((all.answered(first), all.progress(first)), (None, None));
        assert_eq!(all.answered(second).unwrap().whose, Some((2, 7)));
        assert!(all.is_empty());
    }

    #[test]
    fn what_is_given_up_is_nobodys_and_what_others_depend_on_goes_on() {
        let mut all = InFlight::default();
        let call = all.ask(Some((1, 1)), None, About::Nothing);
        let level = all.ask(Some((1, 2)), None, About::Level);
        let other = all.ask(Some((2, 1)), None, About::Nothing);
        assert_eq!(all.cancel((1, 9)), None);
        assert_eq!(all.leave(1), [call]);
        assert_eq!(all.answered(call), None, "too late");
        let answered = all.answered(level).unwrap();
        assert_eq!((answered.whose, answered.about), (None, About::Level));
        assert_eq!(all.cancel((2, 1)), Some(other));
        assert!(all.is_empty());
    }
}
