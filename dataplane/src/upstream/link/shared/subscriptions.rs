//! Who is subscribed to which resource. The process is subscribed once, for all: asked when the first session wants to be, told when the
//! last one does not. About one resource it is asked one thing at a time, so that what it does is what was wanted last; a session counts
//! once the process has agreed.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::ids::Whose;

/// What a session asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub whose: Whose,
    /// Whether it wants to be subscribed, or not any more.
    pub wants: bool,
    /// Its request.
    pub message: Bytes,
}

/// What has to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the request of the session's to the process, about this resource.
    Send(Arc<str>, Wish),
    /// Unsubscribe from it; no session waits for that.
    Unsubscribe(Arc<str>),
    /// Tell the session that it is so.
    Agree(Whose),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    resources: HashMap<Arc<str>, Resource>,
}

#[derive(Debug, Default)]
struct Resource {
    subscribers: HashSet<u64>,
    /// Whether the process is subscribed.
    held: bool,
    /// What it was asked and has not answered.
    asking: Option<Asking>,
    waiting: VecDeque<Wish>,
}

#[derive(Debug)]
struct Asking {
    /// None where nobody waits for it any more.
    whose: Option<Whose>,
    wants: bool,
}

impl Subscriptions {
    /// A session wants to be subscribed, or not any more.
    pub fn wish(&mut self, uri: &str, wish: Wish) -> Vec<Step> {
        self.resources.entry_ref(uri).or_default().waiting.push_back(wish);
        self.proceed(uri)
    }

    /// The process has answered.
    pub fn answered(&mut self, uri: &str, agreed: bool) -> Vec<Step> {
        let Some(resource) = self.resources.get_mut(uri) else { return Vec::new() };
        let Some(asked) = resource.asking.take() else { return Vec::new() };
        match (asked.wants, agreed) {
            (true, true) => {
                resource.held = true;
                resource.subscribers.extend(asked.whose.map(|(session, _)| session));
            }
            (true, false) => {}
            // A subscription that cannot be ended is not relied upon either.
            (false, _) => resource.held = false,
        }
        self.proceed(uri)
    }

    /// A session does not wait for an answer any more. What the process was asked it will answer, and nobody counts for it.
    pub fn cancel(&mut self, whose: Whose) {
        for resource in self.resources.values_mut() {
            resource.waiting.retain(|wish| wish.whose != whose);
            resource.abandon(|it| it == whose);
        }
    }

    /// A session is over.
    pub fn leave(&mut self, session: u64) -> Vec<Step> {
        let mut touched = Vec::new();
        for (uri, resource) in &mut self.resources {
            resource.waiting.retain(|wish| wish.whose.0 != session);
            resource.abandon(|(of, _)| of == session);
            resource.subscribers.remove(&session);
            touched.push(uri.clone());
        }
        touched.sort_unstable();
        touched.iter().flat_map(|uri| self.proceed(uri)).collect()
    }

    /// Whom an update of a resource is for: it may be about a part of what was subscribed to.
    pub fn concerned(&self, updated: &str) -> HashSet<u64> {
        let touched = self.resources.iter().filter(|(uri, _)| is_within(updated, uri));
        touched.flat_map(|(_, resource)| resource.subscribers.iter().copied()).collect()
    }

    fn proceed(&mut self, uri: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some((name, resource)) = self.resources.get_key_value_mut(uri) else { return steps };
        while resource.asking.is_none() {
            let Some(wish) = resource.waiting.pop_front() else { break };
            let session = wish.whose.0;
            if !wish.wants {
                resource.subscribers.remove(&session);
            }
            let so_already = if wish.wants { resource.held } else { !resource.subscribers.is_empty() };
            if so_already {
                resource.subscribers.extend(wish.wants.then_some(session));
                steps.push(Step::Agree(wish.whose));
                continue;
            }
            resource.asking = Some(Asking { whose: Some(wish.whose), wants: wish.wants });
            steps.push(Step::Send(name.clone(), wish));
        }
        if resource.asking.is_none() && resource.subscribers.is_empty() {
            if resource.held {
                resource.asking = Some(Asking { whose: None, wants: false });
                steps.push(Step::Unsubscribe(name.clone()));
            } else {
                self.resources.remove(uri);
            }
        }
        steps
    }
}

impl Resource {
    /// Nobody waits any more for what the process was asked on behalf of these.
    fn abandon(&mut self, is_gone: impl Fn(Whose) -> bool) {
        if let Some(asking) = &mut self.asking {
            asking.whose = asking.whose.filter(|whose| !is_gone(*whose));
        }
    }
}

/// Whether a URI is another one, or something below it.
fn is_within(uri: &str, above: &str) -> bool {
    let rest = uri.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || above.ends_with('/') || rest.starts_with(['/', '?', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "file:///a";

    fn wish(session: u64, own: u64, wants: bool) -> Wish {
        Wish { whose: (session, own), wants, message: Bytes::new() }
    }

    fn send(session: u64, own: u64, wants: bool) -> Step {
        Step::Send(URI.into(), wish(session, own, wants))
    }

    /// Whether sessions 1, 2 and 3 would hear of an update.
    fn concerned(all: &Subscriptions) -> [bool; 3] {
        let concerned = all.concerned(URI);
        [1, 2, 3].map(|session| concerned.contains(&session))
    }

    /// Sessions 1 and 2 are subscribed.
    fn both() -> Subscriptions {
        let mut all = Subscriptions::default();
        assert_eq!(all.wish(URI, wish(1, 1, true)), [send(1, 1, true)]);
        assert!(all.answered(URI, true).is_empty());
        assert_eq!(all.wish(URI, wish(2, 1, true)), [Step::Agree((2, 1))]);
        all
    }

    #[test]
    fn the_process_is_told_of_the_first_and_of_the_last() {
        let mut all = both();
        assert_eq!(concerned(&all), [true, true, false]);
        assert_eq!(all.wish(URI, wish(1, 2, false)), [Step::Agree((1, 2))]);
        assert_eq!(concerned(&all), [false, true, false]);
        assert_eq!(all.wish(URI, wish(2, 2, false)), [send(2, 2, false)]);
        assert!(all.answered(URI, true).is_empty());
        assert!(all.resources.is_empty());
    }

    #[test]
    fn who_is_refused_is_not_subscribed_and_the_next_one_asks_for_itself() {
        let mut all = Subscriptions::default();
        assert_eq!(all.wish(URI, wish(1, 1, true)), [send(1, 1, true)]);
        assert!(all.wish(URI, wish(2, 1, true)).is_empty(), "it waits for what the process says");
        assert_eq!(concerned(&all), [false; 3], "nobody knows yet");
        assert_eq!(all.answered(URI, false), [send(2, 1, true)]);
        assert!(all.answered(URI, true).is_empty());
        assert_eq!(concerned(&all), [false, true, false]);
    }

    #[test]
    fn those_that_come_and_go_at_once_are_served_in_their_order() {
        let mut all = Subscriptions::default();
        assert_eq!(all.wish(URI, wish(1, 1, true)), [send(1, 1, true)]);
        for later in [wish(1, 2, false), wish(2, 1, true), wish(3, 1, true)] {
            assert!(all.wish(URI, later).is_empty());
        }
        assert_eq!(all.answered(URI, true), [send(1, 2, false)]);
        assert_eq!(all.answered(URI, true), [send(2, 1, true)]);
        assert_eq!(all.answered(URI, true), [Step::Agree((3, 1))]);
        assert_eq!(concerned(&all), [false, true, true]);
    }

    #[test]
    fn who_leaves_is_unsubscribed_whatever_was_under_way() {
        let mut all = both();
        assert!(all.leave(1).is_empty());
        assert_eq!(all.leave(2), [Step::Unsubscribe(URI.into())]);
        assert!(all.wish(URI, wish(3, 1, true)).is_empty(), "the process may do things in any order: one at a time");
        assert_eq!(all.answered(URI, true), [send(3, 1, true)]);
        assert!(all.leave(3).is_empty());
        assert_eq!(all.answered(URI, true), [Step::Unsubscribe(URI.into())], "it had agreed to what nobody wants any more");
        assert!(all.answered(URI, false).is_empty());
        assert!(all.resources.is_empty());
    }

    #[test]
    fn who_gives_its_request_up_is_not_subscribed() {
        let mut all = Subscriptions::default();
        all.wish(URI, wish(1, 1, true));
        all.wish(URI, wish(2, 1, true));
        all.cancel((1, 1));
        all.cancel((2, 1));
        assert_eq!(all.answered(URI, true), [Step::Unsubscribe(URI.into())]);
        assert_eq!(concerned(&all), [false; 3]);
    }

    #[test]
    fn what_is_below_a_resource_is_part_of_it() {
        for (uri, above, within) in [
            ("file:///a", "file:///a", true),
            ("file:///a/b", "file:///a", true),
            ("file:///a#x", "file:///a", true),
            ("file:///ab", "file:///a", false),
            ("file:///", "file:///a", false),
            ("file:///a/b", "file:///a/", true),
        ] {
            assert_eq!(is_within(uri, above), within, "{uri} {above}");
        }
    }
}
