//! The file's tables and the bytes of a record: format 1.
//!
//! ```text
//!  kv          key            → revision u64 LE · lease u64 LE (0: none) · value
//!  leases      lease          → time to live in ms
//!  lease_keys  (lease, key)   → ()
//!  meta        "revision", "format", "lease" → u64
//! ```

use bytes::Bytes;
use redb::TableDefinition;

use crate::{LeaseId, Revision, Versioned};

/// The format that this module reads and writes.
pub const FORMAT: u64 = 1;

pub const KV: TableDefinition<&[u8], &[u8]> = TableDefinition::new("kv");
pub const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
pub const LEASE_KEYS: TableDefinition<(u64, &[u8]), ()> = TableDefinition::new("lease_keys");
pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Rows of [`META`].
pub const META_FORMAT: &str = "format";
pub const META_REVISION: &str = "revision";
pub const META_LEASE: &str = "lease";

const HEADER_BYTES: usize = 16;

/// A decoded record, borrowing its value.
pub struct Record<'a> {
    pub revision: Revision,
    pub lease: Option<LeaseId>,
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record; an error says what is wrong with it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, String> {
        let short = || format!("a record of {} bytes", bytes.len());
        let (header, value) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(short)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let lease = Some(LeaseId(word(8))).filter(|lease| lease.0 != 0);
        Ok(Self {
            revision: Revision(word(0)),
            lease,
            value,
        })
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.value.len());
        bytes.extend_from_slice(&self.revision.0.to_le_bytes());
        bytes.extend_from_slice(&self.lease.map_or(0, |lease| lease.0).to_le_bytes());
        bytes.extend_from_slice(self.value);
        bytes
    }

    /// The record as callers see it.
    pub fn versioned(&self) -> Versioned {
        Versioned {
            value: Bytes::copy_from_slice(self.value),
            revision: self.revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_record_are_pinned() {
        let record = Record {
            revision: Revision(0x0102),
            lease: Some(LeaseId(3)),
            value: b"v",
        };
        let golden = b"\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0v";
        assert_eq!(record.encode(), golden);
        let read = Record::decode(golden).unwrap();
        assert_eq!(
            (read.revision, read.lease, read.value),
            (Revision(0x0102), Some(LeaseId(3)), &b"v"[..])
        );
        assert_eq!(FORMAT, 1, "a new format needs a reader for the old one");
    }

    #[test]
    fn a_short_record_is_an_error() {
        assert!(Record::decode(&[0; 15]).is_err());
    }
}
