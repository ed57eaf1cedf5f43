//! Telling all who wait that something changed.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Wakes those who wait in the order in which they began to: who comes first to a value does not
/// hang on chance, also when many waited for its owner.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    count: AtomicU64,
    rang: Notify,
}

/// One who listens, and hears what rang since it last did.
#[derive(Debug)]
pub(crate) struct Ear<'a> {
    bell: &'a Bell,
    heard: u64,
}

impl Bell {
    pub fn ring(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.rang.notify_waiters();
    }

    pub fn ear(&self) -> Ear<'_> {
        let heard = self.count.load(Ordering::Acquire);
        Ear { bell: self, heard }
    }
}

impl Ear<'_> {
    /// Returns once the bell has rung since this was made, or returned.
    pub async fn hear(&mut self) {
        loop {
            let mut rang = std::pin::pin!(self.bell.rang.notified());
            // What rings from here on is not missed.
            rang.as_mut().enable();
            let count = self.bell.count.load(Ordering::Acquire);
            if std::mem::replace(&mut self.heard, count) != count {
                return;
            }
            rang.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_rang_since_is_heard_once() {
        let bell = Bell::default();
        bell.ring();
        let mut ear = bell.ear();
        bell.ring();
        bell.ring();
        ear.hear().await;
        let silent = futures::FutureExt::now_or_never(ear.hear());
        assert!(silent.is_none(), "what rang was heard");
        let (mut one, mut other) = (bell.ear(), bell.ear());
        let both = async { tokio::join!(one.hear(), other.hear()) };
        let rings = async { bell.ring() };
        tokio::join!(both, rings);
    }
}
