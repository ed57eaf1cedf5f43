//! When a node's reports go out: the newest one, and never sooner than its time after the last.

use std::time::Duration;

use crate::session::Moment;

/// Keeps the newest of what is to be said until it may be.
#[derive(Debug)]
pub(crate) struct Pace<T> {
    next_at: Moment,
    wanted: Option<T>,
    said: Option<T>,
}

impl<T: Clone + PartialEq> Pace<T> {
    pub fn new() -> Self {
        Self {
            next_at: Moment::ZERO,
            wanted: None,
            said: None,
        }
    }

    /// Something newer is to be said; what was just said needs not be said again.
    pub fn offer(&mut self, what: T) {
        self.wanted = (self.said.as_ref() != Some(&what)).then_some(what);
    }

    /// What may be said now. The next follows no sooner than `every` from now.
    pub fn take(&mut self, now: Moment, every: Duration) -> Option<T> {
        if now < self.next_at {
            return None;
        }
        let what = self.wanted.take()?;
        self.next_at = now + every;
        self.said = Some(what.clone());
        Some(what)
    }

    /// What was said was not heard, or is forgotten: it is to be said again unless there is
    /// something newer.
    pub fn again(&mut self) {
        if let Some(said) = self.said.take() {
            self.wanted.get_or_insert(said);
        }
    }

    /// When there will be something to say.
    pub fn next_wake(&self) -> Option<Moment> {
        self.wanted.as_ref().map(|_| self.next_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_newest_goes_out_once_a_second_and_nothing_twice() {
        let mut pace = Pace::new();
        assert_eq!((pace.take(SECOND, SECOND), pace.next_wake()), (None, None));
        pace.offer(1);
        assert_eq!(pace.take(SECOND, SECOND), Some(1));
        pace.offer(2);
        pace.offer(3);
        assert_eq!(pace.take(SECOND * 3 / 2, SECOND), None);
        assert_eq!(pace.next_wake(), Some(SECOND * 2));
        assert_eq!(pace.take(SECOND * 2, SECOND), Some(3));
        pace.offer(4);
        pace.offer(3);
        assert_eq!(pace.take(SECOND * 9, SECOND), None, "it is known");
    }

    #[test]
    fn what_was_not_heard_is_said_again_unless_it_is_old() {
        let mut pace = Pace::new();
        pace.offer(1);
        assert_eq!(pace.take(SECOND, SECOND), Some(1));
        pace.again();
        assert_eq!(pace.take(SECOND * 2, SECOND), Some(1));
        pace.offer(2);
        pace.again();
        assert_eq!(pace.take(SECOND * 3, SECOND), Some(2));
    }
}
