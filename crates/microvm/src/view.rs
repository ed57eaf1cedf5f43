//! The guest's memory as the host may touch it: through the guest's own addresses and permissions.
//!
//! What a guest cannot read, the host does not read for it, and what it cannot write, the host does
//! not write for it. No reference into guest memory is ever made: bytes are copied.

use memory::Range;

use crate::space::{Extents, Protection, Space};

/// Addresses that a guest may not use so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest may not use {bytes} bytes at {address:#x} so")]
pub struct BadAddress {
    /// The first.
    pub address: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// A guest's memory.
#[derive(Clone, Copy)]
pub struct View<'a> {
    memory: &'a Range,
    space: &'a Space,
}

impl<'a> View<'a> {
    /// The memory of the guest whose addresses `space` holds.
    pub fn new(memory: &'a Range, space: &'a Space) -> Self {
        Self { memory, space }
    }

    /// Copies from `address` on into `out`.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), BadAddress> {
        let bad = bad(address, out.len());
        let mut rest = out;
        for extent in self.extents(address, rest.len(), Protection::READ)? {
            let (now, later) = rest.split_at_mut(extent.bytes);
            let read = self.memory.read(extent.frame as usize, now);
            read.map_err(|_| bad)?;
            rest = later;
        }
        Ok(())
    }

    /// Copies `data` to `address`; nothing if not all of it may be written.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), BadAddress> {
        let mut rest = data;
        for extent in self.extents(address, data.len(), Protection::READ_WRITE)? {
            let (now, later) = rest.split_at(extent.bytes);
            let written = self.memory.write(extent.frame as usize, now);
            written.map_err(|_| bad(address, data.len()))?;
            rest = later;
        }
        Ok(())
    }

    /// A copy of `bytes` bytes at `address`. The addresses are checked before anything is
    /// allocated, so it is never larger than what the guest has mapped.
    pub fn copy(&self, address: u64, bytes: usize) -> Result<Vec<u8>, BadAddress> {
        self.check(address, bytes, Protection::READ)?;
        let mut copy = vec![0; bytes];
        self.read(address, &mut copy)?;
        Ok(copy)
    }

    /// Whether the guest may use `bytes` bytes at `address` so. No bytes are always right.
    pub fn check(&self, address: u64, bytes: usize, needed: Protection) -> Result<(), BadAddress> {
        self.extents(address, bytes, needed).map(|_| ())
    }

    /// The little-endian number of 8 bytes at `address`.
    pub fn read_u64(&self, address: u64) -> Result<u64, BadAddress> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The bytes at `address` up to the first zero, which must come within `bytes_max`.
    pub fn c_string(&self, address: u64, bytes_max: usize) -> Result<Vec<u8>, BadAddress> {
        const AT_A_TIME: u64 = 256;
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < bytes_max {
            // Up to a boundary that pages share, so that what follows need not be mapped.
            let count = (AT_A_TIME - at % AT_A_TIME) as usize;
            let chunk = self.copy(at, count)?;
            if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&chunk[..end]);
                return Ok(text);
            }
            text.extend_from_slice(&chunk);
            at = at.wrapping_add(count as u64);
        }
        Err(bad(address, bytes_max))
    }

    fn extents(
        &self,
        address: u64,
        bytes: usize,
        needed: Protection,
    ) -> Result<Extents, BadAddress> {
        let extents = self.space.extents(address, bytes, needed);
        extents.ok_or(bad(address, bytes))
    }
}

fn bad(address: u64, bytes: usize) -> BadAddress {
    BadAddress {
        address,
        bytes: bytes as u64,
    }
}
