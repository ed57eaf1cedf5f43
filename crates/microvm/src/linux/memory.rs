//! The guest's memory, as the system calls see it: bytes, and what may be done with them.

use super::errno::Errno;
use crate::machine::Machine;
use crate::space::{Protection, SpaceError};

/// Why pages could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMemory {
    /// The guest has all that it may have.
    Full,
    /// The host failed.
    Host,
}

/// A guest's memory. Addresses and lengths of mappings are whole pages of the guest's part.
pub trait GuestMemory {
    /// Copies from `at` on; fails if not all of it may be read.
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno>;

    /// Copies to `at`; nothing if not all of it may be written.
    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Errno>;

    /// Makes pages of zeros, in place of what was there.
    fn map(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory>;

    /// Changes what may be done with pages that are there.
    fn protect(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory>;

    /// Takes pages away; holes are no error.
    fn unmap(&mut self, at: u64, bytes: u64) -> Result<(), NoMemory>;

    /// Bytes of pages that the guest has.
    fn bytes(&self) -> u64;

    /// The most that it may have.
    fn bytes_max(&self) -> u64;
}

fn no_memory(error: SpaceError) -> NoMemory {
    match error {
        SpaceError::Full { .. } => NoMemory::Full,
        error => {
            tracing::warn!(%error, "a guest's memory could not be changed");
            NoMemory::Host
        }
    }
}

impl GuestMemory for Machine {
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        self.view().read(at, out).map_err(|_| Errno::EFAULT)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Errno> {
        self.view().write(at, data).map_err(|_| Errno::EFAULT)
    }

    fn map(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory> {
        Machine::map(self, at, bytes, protection).map_err(no_memory)
    }

    fn protect(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory> {
        Machine::protect(self, at, bytes, protection).map_err(no_memory)
    }

    fn unmap(&mut self, at: u64, bytes: u64) -> Result<(), NoMemory> {
        Machine::unmap(self, at, bytes).map_err(no_memory)
    }

    fn bytes(&self) -> u64 {
        self.space.bytes()
    }

    fn bytes_max(&self) -> u64 {
        self.space.frames.bytes_max()
    }
}

#[cfg(test)]
pub mod fake {
    //! A guest's memory without a guest.

    use std::collections::BTreeMap;

    use super::super::process::Guest;
    use super::*;
    use crate::kvm::{KvmError, XSAVE_WORDS};
    use crate::layout::PAGE;

    /// Pages by address.
    pub struct FakeMemory {
        pages: BTreeMap<u64, (Protection, Box<[u8; PAGE as usize]>)>,
        pub bytes_max: u64,
    }

    impl FakeMemory {
        pub fn new(bytes_max: u64) -> Self {
            Self {
                pages: BTreeMap::new(),
                bytes_max,
            }
        }

        /// What may be done with the page at `at`, if there is one.
        pub fn page(&self, at: u64) -> Option<Protection> {
            self.pages.get(&at).map(|(protection, _)| *protection)
        }

        fn check(&self, at: u64, bytes: usize, needed: Protection) -> Result<(), Errno> {
            let end = at.checked_add(bytes as u64).ok_or(Errno::EFAULT)?;
            let first = at - at % PAGE;
            for page in (first..end).step_by(PAGE as usize) {
                let there = self.page(page).is_some_and(|there| there.allows(needed));
                if !there {
                    return Err(Errno::EFAULT);
                }
            }
            Ok(())
        }
    }

    impl GuestMemory for FakeMemory {
        fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
            self.check(at, out.len(), Protection::READ)?;
            for (index, byte) in out.iter_mut().enumerate() {
                let at = at + index as u64;
                *byte = self.pages[&(at - at % PAGE)].1[(at % PAGE) as usize];
            }
            Ok(())
        }

        fn write(&mut self, at: u64, data: &[u8]) -> Result<(), Errno> {
            self.check(at, data.len(), Protection::READ_WRITE)?;
            for (index, byte) in data.iter().enumerate() {
                let at = at + index as u64;
                if let Some((_, page)) = self.pages.get_mut(&(at - at % PAGE)) {
                    page[(at % PAGE) as usize] = *byte;
                }
            }
            Ok(())
        }

        fn map(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory> {
            self.unmap(at, bytes)?;
            if self.bytes() + bytes > self.bytes_max {
                return Err(NoMemory::Full);
            }
            for page in (at..at + bytes).step_by(PAGE as usize) {
                let zeros = Box::new([0; PAGE as usize]);
                self.pages.insert(page, (protection, zeros));
            }
            Ok(())
        }

        fn protect(&mut self, at: u64, bytes: u64, protection: Protection) -> Result<(), NoMemory> {
            for (_, page) in self.pages.range_mut(at..at + bytes) {
                page.0 = protection;
            }
            Ok(())
        }

        fn unmap(&mut self, at: u64, bytes: u64) -> Result<(), NoMemory> {
            self.pages
                .retain(|page, _| !(at..at + bytes).contains(page));
            Ok(())
        }

        fn bytes(&self) -> u64 {
            self.pages.len() as u64 * PAGE
        }

        fn bytes_max(&self) -> u64 {
            self.bytes_max
        }
    }

    impl Guest for FakeMemory {
        fn vectors(&mut self) -> Result<Box<[u32; XSAVE_WORDS]>, KvmError> {
            Ok(Box::new([0; XSAVE_WORDS]))
        }

        fn set_vectors(&mut self, _: &[u32; XSAVE_WORDS]) -> Result<(), KvmError> {
            Ok(())
        }

        fn base(&mut self) -> Result<u64, KvmError> {
            Ok(0)
        }

        fn set_base(&mut self, _: u64) -> Result<(), KvmError> {
            Ok(())
        }

        fn vector_mask(&self) -> u64 {
            3
        }
    }
}
