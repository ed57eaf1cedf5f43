//! The store: what `storage` promises, in memory and at simulated times.

use std::collections::BTreeMap;

use bytes::Bytes;
use membership::Moment;
use storage::{Change, Compare, Event, LeaseId, Op, Revision, Txn};

/// A key's value, its revision and its lease.
type Value = (Bytes, u64, Option<LeaseId>);

/// A transaction's lease is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

#[derive(Debug, Default)]
pub(crate) struct Store {
    revision: u64,
    keys: BTreeMap<Bytes, Value>,
    leases: BTreeMap<LeaseId, Moment>,
    /// All that ever happened, and when.
    pub log: Vec<(Moment, Event)>,
}

impl Store {
    pub fn get(&self, key: &[u8]) -> Option<(&Bytes, u64)> {
        self.keys
            .get(key)
            .map(|(value, revision, _)| (value, *revision))
    }

    pub fn keys(&self, prefix: &str) -> impl Iterator<Item = &Bytes> {
        let from = Bytes::copy_from_slice(prefix.as_bytes());
        let prefix = from.clone();
        let keys = self.keys.range(from..).map(|(key, _)| key);
        keys.take_while(move |key| key.starts_with(&prefix))
    }

    pub fn grant(&mut self, end: Moment) -> LeaseId {
        self.revision += 1;
        let lease = LeaseId(self.revision);
        self.leases.insert(lease, end);
        lease
    }

    pub fn keep(&mut self, lease: LeaseId, end: Moment) -> Result<(), Gone> {
        *self.leases.get_mut(&lease).ok_or(Gone)? = end;
        Ok(())
    }

    /// Ends the leases that are over.
    pub fn expire(&mut self, now: Moment) {
        let over = self.leases.iter().filter(|(_, end)| **end <= now);
        let over: Vec<LeaseId> = over.map(|(lease, _)| *lease).collect();
        over.into_iter().for_each(|lease| self.revoke(now, lease));
    }

    pub fn revoke(&mut self, now: Moment, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let on = self.keys.iter().filter(|(_, value)| value.2 == Some(lease));
        let on: Vec<Bytes> = on.map(|(key, _)| key.clone()).collect();
        self.revision += 1;
        on.into_iter().for_each(|key| self.delete(now, key));
    }

    /// The revision at which it was committed; none in a conflict.
    pub fn transact(&mut self, now: Moment, txn: &Txn) -> Result<Option<Revision>, Gone> {
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::Revision(key, revision) => self
                .keys
                .get(key)
                .is_some_and(|value| value.1 == revision.0),
            Compare::Value(key, wanted) => {
                self.keys.get(key).is_some_and(|value| value.0 == *wanted)
            }
        };
        if !txn.compares.iter().all(holds) {
            return Ok(None);
        }
        let is_gone = |op: &Op| match op {
            Op::Put {
                lease: Some(lease), ..
            } => !self.leases.contains_key(lease),
            _ => false,
        };
        if txn.ops.iter().any(is_gone) {
            return Err(Gone);
        }
        self.revision += 1;
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => {
                    let change = Change::Put(value.clone());
                    self.keys
                        .insert(key.clone(), (value.clone(), self.revision, *lease));
                    self.note(now, key.clone(), change);
                }
                Op::Delete { key } => self.delete(now, key.clone()),
            }
        }
        Ok(Some(Revision(self.revision)))
    }

    fn delete(&mut self, now: Moment, key: Bytes) {
        if self.keys.remove(&key).is_some() {
            self.note(now, key, Change::Delete);
        }
    }

    fn note(&mut self, now: Moment, key: Bytes, change: Change) {
        let revision = Revision(self.revision);
        self.log.push((
            now,
            Event {
                key,
                change,
                revision,
            },
        ));
    }
}
