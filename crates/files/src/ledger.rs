//! What a private layer may hold, and what it holds.

use crate::{Errno, PAGE_BYTES};

/// The most that a private layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of contents, in whole pages.
    pub bytes_max: u64,
    /// Files, directories, symbolic links and further hard links that were made.
    pub inodes_max: u64,
}

impl Quota {
    /// No private layer: every change fails with [`Errno::ReadOnly`].
    pub const NONE: Quota = Quota {
        bytes_max: 0,
        inodes_max: 0,
    };
}

/// Counts against a quota.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    quota: Quota,
    bytes: u64,
    inodes: u64,
}

impl Ledger {
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            bytes: 0,
            inodes: 0,
        }
    }

    /// The same counts against another quota, which may be less than there is already.
    pub fn of_counts(quota: Quota, bytes: u64, inodes: u64) -> Self {
        Self {
            quota,
            bytes,
            inodes,
        }
    }

    pub fn quota(&self) -> Quota {
        self.quota
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// Whether anything may be changed at all.
    pub fn writable(&self) -> Result<(), Errno> {
        match self.quota {
            Quota::NONE => Err(Errno::ReadOnly),
            _ => Ok(()),
        }
    }

    pub fn take_bytes(&mut self, bytes: u64) -> Result<(), Errno> {
        let sum = self.bytes.saturating_add(bytes);
        if sum > self.quota.bytes_max {
            return Err(Errno::NoSpace);
        }
        self.bytes = sum;
        Ok(())
    }

    pub fn give_bytes(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub fn take_page(&mut self) -> Result<(), Errno> {
        self.take_bytes(PAGE_BYTES as u64)
    }

    pub fn give_pages(&mut self, pages: u64) {
        self.give_bytes(pages * PAGE_BYTES as u64);
    }

    pub fn take_inode(&mut self) -> Result<(), Errno> {
        if self.inodes >= self.quota.inodes_max {
            return Err(Errno::NoSpace);
        }
        self.inodes += 1;
        Ok(())
    }

    pub fn give_inode(&mut self) {
        self.inodes = self.inodes.saturating_sub(1);
    }
}
