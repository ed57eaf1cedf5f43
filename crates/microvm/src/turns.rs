//! Deploys of one version, one after the other: what each stores is of one run of its program.

use std::collections::HashSet;

use model::Digest;
use parking_lot::{Condvar, Mutex};

/// Who has their turn.
#[derive(Default)]
pub(crate) struct Turns {
    taken: Mutex<HashSet<Digest>>,
    freed: Condvar,
}

/// A turn, until it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    key: Digest,
}

impl Turns {
    /// Waits until nobody else has the turn of `key`.
    pub fn enter(&self, key: Digest) -> Turn<'_> {
        let mut taken = self.taken.lock();
        while !taken.insert(key) {
            self.freed.wait(&mut taken);
        }
        Turn { turns: self, key }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.lock().remove(&self.key);
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_key_is_had_by_one_at_a_time_and_others_go_on() {
        let turns = Turns::default();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let held = turns.enter(b);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = turns.enter(a);
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        drop(held);
        assert_eq!(most.load(Ordering::SeqCst), 1);
        drop(turns.enter(b));
    }
}
