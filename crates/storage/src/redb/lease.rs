//! Leases' deadlines, in memory: after a start each lease has its whole time to live again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::LeaseId;

/// What is alive, and until when.
#[derive(Debug, Default)]
pub struct Leases {
    alive: HashMap<LeaseId, Lease>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
}

impl Leases {
    pub fn grant(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        self.alive.insert(
            id,
            Lease {
                ttl,
                deadline: now + ttl,
            },
        );
    }

    /// Whether the lease is known; one past its deadline is until its keys are deleted.
    pub fn contains(&self, id: LeaseId) -> bool {
        self.alive.contains_key(&id)
    }

    /// Starts its time to live anew; false when it is gone or past its deadline.
    pub fn keep_alive(&mut self, id: LeaseId, now: Instant) -> bool {
        match self.alive.get_mut(&id) {
            Some(lease) if lease.deadline > now => {
                lease.deadline = now + lease.ttl;
                true
            }
            _ => false,
        }
    }

    pub fn remove(&mut self, id: LeaseId) {
        self.alive.remove(&id);
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.alive.values().map(|lease| lease.deadline).min()
    }

    /// The leases whose deadline has passed.
    pub fn expired(&self, now: Instant) -> Vec<LeaseId> {
        let over = self.alive.iter().filter(|(_, lease)| lease.deadline <= now);
        over.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lives_until_its_deadline_unless_kept_alive() {
        let (start, ttl, id) = (Instant::now(), Duration::from_secs(10), LeaseId(1));
        let mut leases = Leases::default();
        leases.grant(id, ttl, start);
        assert!(leases.keep_alive(id, start + ttl / 2));
        assert!(leases.expired(start + ttl).is_empty());
        assert_eq!(leases.expired(start + ttl * 2), [id]);
        assert!(!leases.keep_alive(id, start + ttl * 2), "past its deadline");
        leases.remove(id);
        assert!(!leases.contains(id) && leases.next_deadline().is_none());
    }
}
