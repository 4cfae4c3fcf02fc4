//! Up to which number everything is settled: committed, or never to come. Pure.
//!
//! Numbers are drawn before their transaction commits, so a later one may be visible first. A number that is missing below a visible one
//! was drawn by a transaction that had its id by then: once every transaction with an id below a mark that was drawn afterwards is over,
//! the missing number is either visible or will never be.

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waterline {
    /// None: not even what was there at the start is settled.
    settled: Option<i64>,
    /// All up to this number were drawn by transactions with ids below the mark.
    doubt: Option<Doubt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Doubt {
    upto: i64,
    mark: i64,
}

impl Waterline {
    /// `mark` was drawn after `last_drawn` was read.
    pub fn start(last_drawn: i64, mark: i64) -> Self {
        Self { settled: None, doubt: Some(Doubt { upto: last_drawn, mark }) }
    }

    /// Everything up to this number is settled.
    pub fn settled(&self) -> Option<i64> {
        self.settled
    }

    /// Takes in what is visible behind [`Waterline::settled`], and that all transactions below `oldest_running` were over then. Returns a
    /// number if numbers up to it are in doubt: then a mark is to be drawn for them, for [`Waterline::doubt`].
    pub fn see(&mut self, visible: &[i64], oldest_running: i64) -> Option<i64> {
        if let Some(doubt) = self.doubt.filter(|doubt| oldest_running >= doubt.mark) {
            self.settled = Some(self.settled.map_or(doubt.upto, |settled| settled.max(doubt.upto)));
            self.doubt = None;
        }
        let settled = self.settled.as_mut()?;
        for number in visible {
            if *number > *settled + 1 {
                break;
            }
            *settled = (*settled).max(*number);
        }
        let last = *visible.last()?;
        (last > *settled && self.doubt.is_none()).then_some(last)
    }

    /// Some numbers up to `upto` are missing; `mark` was drawn after that was seen.
    pub fn doubt(&mut self, upto: i64, mark: i64) {
        self.doubt = Some(Doubt { upto, mark });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(upto: i64) -> Waterline {
        Waterline { settled: Some(upto), doubt: None }
    }

    #[test]
    fn nothing_is_settled_before_what_ran_at_the_start_is_over() {
        let mut line = Waterline::start(7, 100);
        assert_eq!((line.see(&[], 99), line.settled()), (None, None));
        assert_eq!((line.see(&[], 100), line.settled()), (None, Some(7)));
    }

    #[test]
    fn numbers_in_a_row_pass_at_once() {
        let mut line = settled(7);
        assert_eq!((line.see(&[8, 9, 10], 1), line.settled()), (None, Some(10)));
        assert_eq!((line.see(&[], 1), line.settled()), (None, Some(10)));
    }

    #[test]
    fn a_missing_number_holds_back_what_follows_until_it_comes_or_cannot_come() {
        let mut line = settled(7);
        assert_eq!((line.see(&[8, 10, 12], 50), line.settled()), (Some(12), Some(8)));
        line.doubt(12, 60);
        assert_eq!((line.see(&[10, 12, 13], 59), line.settled()), (None, Some(8)), "whoever drew 9 may still run");
        let mut comes = line.clone();
        assert_eq!((comes.see(&[9, 10, 12, 13], 59), comes.settled()), (None, Some(10)), "11 is still in doubt");
        assert_eq!((comes.see(&[11, 12, 13], 59), comes.settled()), (None, Some(13)));
        assert_eq!(
            (line.see(&[10, 12, 13, 15], 60), line.settled()),
            (Some(15), Some(13)),
            "9 and 11 never come; 14 is another matter"
        );
    }
}
