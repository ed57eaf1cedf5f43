//! A transaction: compares, then puts and deletes, all or nothing.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::show;
use crate::store::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::{LeaseId, Revision, StorageError};

/// Most compares and operations in one transaction (etcd's default).
pub const TXN_OPS_MAX: usize = 128;
/// Most bytes of keys and values in one transaction (etcd accepts 1.5 MiB a request).
pub const TXN_BYTES_MAX: usize = 1 << 20;

/// What must hold for the transaction to take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(Bytes),
    /// The key's last change is this one.
    Revision(Bytes, Revision),
    /// The key has this value.
    Value(Bytes, Bytes),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// The lease that it goes with; a put without one takes the key off its lease.
        lease: Option<LeaseId>,
    },
    /// Removes a key; nothing happens when it is not there.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum TxnOutcome {
    /// It took effect, at this revision (the present one when it changed nothing).
    Committed {
        /// The revision that its changes carry.
        revision: Revision,
    },
    /// A compare did not hold; nothing changed.
    Conflict,
}

impl TxnOutcome {
    /// Whether it took effect.
    pub fn is_committed(self) -> bool {
        matches!(self, TxnOutcome::Committed { .. })
    }
}

/// Compares, and the changes to make if they all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All of these must hold.
    pub compares: Vec<Compare>,
    /// Applied together; each key at most once.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if `key` is not there.
    pub fn if_absent(mut self, key: impl Into<Bytes>) -> Self {
        self.compares.push(Compare::Absent(key.into()));
        self
    }

    /// Only if `key`'s last change is `revision`.
    pub fn if_revision(mut self, key: impl Into<Bytes>, revision: Revision) -> Self {
        self.compares.push(Compare::Revision(key.into(), revision));
        self
    }

    /// Only if `key` has `value`.
    pub fn if_value(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.compares.push(Compare::Value(key.into(), value.into()));
        self
    }

    /// Sets `key` to `value`.
    pub fn put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.put_op(key.into(), value.into(), None)
    }

    /// Sets `key` to `value` for as long as `lease` lives.
    pub fn put_leased(
        self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        lease: LeaseId,
    ) -> Self {
        self.put_op(key.into(), value.into(), Some(lease))
    }

    /// Removes `key`.
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    fn put_op(mut self, key: Bytes, value: Bytes, lease: Option<LeaseId>) -> Self {
        self.ops.push(Op::Put { key, value, lease });
        self
    }

    /// Checks sizes and that no key is changed twice; every store does so before anything else.
    pub fn check(&self) -> Result<(), StorageError> {
        let (ops, bytes) = (self.compares.len() + self.ops.len(), self.bytes());
        if ops > TXN_OPS_MAX || bytes > TXN_BYTES_MAX {
            let (ops_max, bytes_max) = (TXN_OPS_MAX, TXN_BYTES_MAX);
            self.check_values()?;
            return Err(StorageError::TxnTooLarge {
                ops,
                bytes,
                ops_max,
                bytes_max,
            });
        }
        self.check_values()?;
        let keys = self.compares.iter().map(Compare::key);
        for key in keys.chain(self.ops.iter().map(Op::key)) {
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                let (bytes, max) = (key.len(), KEY_BYTES_MAX);
                return Err(StorageError::KeySize { bytes, max });
            }
        }
        let mut changed = BTreeSet::new();
        match self.ops.iter().find(|op| !changed.insert(op.key())) {
            Some(op) => Err(StorageError::DuplicateKey {
                key: show(op.key()),
            }),
            None => Ok(()),
        }
    }

    fn check_values(&self) -> Result<(), StorageError> {
        for op in &self.ops {
            if let Op::Put { key, value, .. } = op
                && value.len() > VALUE_BYTES_MAX
            {
                let (bytes, max) = (value.len(), VALUE_BYTES_MAX);
                return Err(StorageError::ValueTooLarge {
                    key: show(key),
                    bytes,
                    max,
                });
            }
        }
        Ok(())
    }

    /// Bytes of all keys and values.
    pub(crate) fn bytes(&self) -> usize {
        let compares = self.compares.iter().map(|compare| match compare {
            Compare::Absent(key) | Compare::Revision(key, _) => key.len(),
            Compare::Value(key, value) => key.len() + value.len(),
        });
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        });
        compares.chain(ops).sum()
    }
}

impl Compare {
    /// The key that is looked at.
    pub fn key(&self) -> &Bytes {
        match self {
            Compare::Absent(key) | Compare::Revision(key, _) | Compare::Value(key, _) => key,
        }
    }
}

impl Op {
    /// The key that is changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}
