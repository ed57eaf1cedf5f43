//! A file mapped to be read: its bytes are in the page cache once, whoever maps them.

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::MemoryError;

/// A file whose bytes are read through a mapping. Who makes one promises that nobody shortens the
/// file while it lives: a read past its end would end the process.
#[derive(Debug)]
pub struct MappedFile {
    /// Of the mapping's first byte; dangling if there are none.
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the value alone, and is only read.
unsafe impl Send for MappedFile {}
// SAFETY: as above; reads do not disturb each other.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self, MemoryError> {
        let file = File::open(path).map_err(MemoryError::kernel("open a file to map"))?;
        Self::of(&file)
    }

    /// Maps an open file.
    pub fn of(file: &File) -> Result<Self, MemoryError> {
        let meta = file
            .metadata()
            .map_err(MemoryError::kernel("look at a file to map"))?;
        let bytes = usize::try_from(meta.len()).unwrap_or(usize::MAX);
        if bytes == 0 {
            let start = NonNull::dangling();
            return Ok(Self { start, bytes });
        }
        // SAFETY: the kernel chooses the addresses, so nothing of ours is replaced.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                0,
            )
        }
        .map_err(MemoryError::kernel("map a file"))?;
        let start = NonNull::new(start.cast()).unwrap_or(NonNull::dangling());
        Ok(Self { start, bytes })
    }

    /// The file's length when it was mapped.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies what is at `offset` into `into`; how many bytes there were.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        let count = self.bytes.saturating_sub(offset).min(into.len());
        if count > 0 {
            // SAFETY: `offset + count` is within the mapping, `into` has room for `count` bytes,
            // and no mapping of ours overlaps a caller's buffer.
            unsafe {
                let from = self.start.as_ptr().add(offset);
                std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), count);
            }
        }
        count
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the mapping is this value's own, and no reference into it was given out.
            let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
            if let Err(error) = unmapped {
                tracing::warn!(%error, "a mapped file could not be unmapped");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_file_is_read_within_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"hello").unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut into = [0; 8];
        assert_eq!((mapped.read(1, &mut into), &into[..4]), (4, &b"ello"[..]));
        assert_eq!(mapped.read(5, &mut into), 0);
        assert_eq!(mapped.read(usize::MAX, &mut into), 0);
    }

    #[test]
    fn an_empty_file_has_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        assert_eq!((mapped.bytes(), mapped.read(0, &mut [0])), (0, 0));
    }
}
