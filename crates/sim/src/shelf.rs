//! What the store holds: `storage`'s meaning, in memory, at simulated times.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use storage::{
    Change, Compare, Entry, Event, LEASE_TTL_MAX, LeaseId, Op, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX,
    Page, Range, Revision, StorageError, Txn, TxnOutcome, Versioned,
};

#[derive(Debug)]
struct Item {
    value: Bytes,
    revision: Revision,
    lease: Option<LeaseId>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Duration,
    keys: BTreeSet<Bytes>,
}

/// The store's contents.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    revision: Revision,
    leases_made: u64,
    items: BTreeMap<Bytes, Item>,
    leases: BTreeMap<LeaseId, Lease>,
    /// What has changed and nobody was told of.
    news: Vec<Event>,
    /// Commits whatever compares say.
    pub ignores_compares: bool,
}

impl Shelf {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What has changed since the last time.
    pub fn news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    pub fn get(&self, key: &[u8]) -> Option<Versioned> {
        self.items.get(key).map(|item| Versioned {
            value: item.value.clone(),
            revision: item.revision,
        })
    }

    pub fn range(&self, range: &Range) -> Page {
        let end = range.end.as_deref();
        let start = Bound::Included(range.start.as_slice());
        let from = self.items.range::<[u8], _>((start, Bound::Unbounded));
        let within = from.take_while(|(key, _)| end.is_none_or(|end| key.as_ref() < end));
        match range.reverse {
            // The last key is not known from its end.
            true => {
                let all: Vec<_> = within.collect();
                self.page(range, all.into_iter().rev())
            }
            false => self.page(range, within),
        }
    }

    fn page<'a>(
        &self,
        range: &Range,
        mut items: impl Iterator<Item = (&'a Bytes, &'a Item)>,
    ) -> Page {
        let limit = range.limit.min(PAGE_ENTRIES_MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < limit && bytes < PAGE_BYTES_MAX {
            let Some((key, item)) = items.next() else {
                break;
            };
            bytes += key.len() + item.value.len();
            entries.push(Entry {
                key: key.clone(),
                value: item.value.clone(),
                revision: item.revision,
            });
        }
        Page {
            more: items.next().is_some(),
            entries,
            revision: self.revision,
        }
    }

    pub fn transact(&mut self, txn: &Txn) -> Result<TxnOutcome, StorageError> {
        txn.check()?;
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.items.contains_key(key),
            Compare::Revision(key, wanted) => {
                let item = self.items.get(key);
                item.is_some_and(|item| item.revision == *wanted)
            }
            Compare::Value(key, wanted) => {
                let item = self.items.get(key);
                item.is_some_and(|item| item.value == *wanted)
            }
        };
        if !txn.compares.iter().all(holds) && !self.ignores_compares {
            return Ok(TxnOutcome::Conflict);
        }
        for op in &txn.ops {
            if let Op::Put {
                lease: Some(lease), ..
            } = op
                && !self.leases.contains_key(lease)
            {
                return Err(StorageError::LeaseNotFound(*lease));
            }
        }
        let is_change = |op: &Op| match op {
            Op::Put { .. } => true,
            Op::Delete { key } => self.items.contains_key(key),
        };
        if txn.ops.iter().any(is_change) {
            self.revision.0 += 1;
        }
        for op in &txn.ops {
            match op {
                Op::Put { key, value, lease } => self.put(key, value, *lease),
                Op::Delete { key } => self.delete(key),
            }
        }
        let revision = self.revision;
        Ok(TxnOutcome::Committed { revision })
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, lease: Option<LeaseId>) {
        let item = Item {
            value: value.clone(),
            revision: self.revision,
            lease,
        };
        let before = self.items.insert(key.clone(), item);
        self.unlease(key, before.and_then(|item| item.lease));
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.insert(key.clone());
        }
        self.tell(key, Change::Put(value.clone()));
    }

    fn delete(&mut self, key: &Bytes) {
        if let Some(item) = self.items.remove(key) {
            self.unlease(key, item.lease);
            self.tell(key, Change::Delete);
        }
    }

    fn unlease(&mut self, key: &Bytes, lease: Option<LeaseId>) {
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(key);
        }
    }

    fn tell(&mut self, key: &Bytes, change: Change) {
        self.news.push(Event {
            key: key.clone(),
            change,
            revision: self.revision,
        });
    }

    /// A lease that lasts `lasts` here, of those who believe that it lasts `ttl`.
    pub fn grant(
        &mut self,
        now: Duration,
        ttl: Duration,
        lasts: Duration,
    ) -> Result<LeaseId, StorageError> {
        if ttl.as_millis() == 0 || ttl > LEASE_TTL_MAX {
            let (ms, max_ms) = (ttl.as_millis(), LEASE_TTL_MAX.as_millis());
            return Err(StorageError::LeaseTtl { ms, max_ms });
        }
        self.leases_made += 1;
        let lease = Lease {
            ttl: lasts,
            ends: now + lasts,
            keys: BTreeSet::new(),
        };
        let id = LeaseId(self.leases_made);
        self.leases.insert(id, lease);
        Ok(id)
    }

    /// Gives when it ends now.
    pub fn keep(&mut self, now: Duration, id: LeaseId) -> Result<Duration, StorageError> {
        let lease = self.leases.get_mut(&id);
        let lease = lease.ok_or(StorageError::LeaseNotFound(id))?;
        lease.ends = now + lease.ttl;
        Ok(lease.ends)
    }

    pub fn revoke(&mut self, id: LeaseId) -> Result<(), StorageError> {
        let lease = self.leases.remove(&id);
        let lease = lease.ok_or(StorageError::LeaseNotFound(id))?;
        if !lease.keys.is_empty() {
            self.revision.0 += 1;
        }
        for key in lease.keys {
            self.items.remove(&key);
            self.tell(&key, Change::Delete);
        }
        Ok(())
    }

    /// Ends the leases that are over; gives when to look again.
    pub fn expire(&mut self, now: Duration) -> Option<Duration> {
        let over = self.leases.iter().filter(|(_, lease)| lease.ends <= now);
        let over: Vec<LeaseId> = over.map(|(id, _)| *id).collect();
        for id in over {
            // It was there just now.
            let _revoked = self.revoke(id);
        }
        self.leases.values().map(|lease| lease.ends).min()
    }
}
