//! Which pages of a private mapping were written: the `PAGEMAP_SCAN` ioctl (Linux 6.7,
//! Documentation/admin-guide/mm/pagemap.rst), or the knowledge that it is missing.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use crate::{MemoryError, PAGE_BYTES};

const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_ZERO: u64 = 1 << 5;

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of `linux/fs.h`: addresses of a run of pages of one category.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Run {
    pub start: u64,
    pub end: u64,
    categories: u64,
}

impl Run {
    pub fn pages(&self) -> usize {
        (self.end - self.start) as usize / PAGE_BYTES
    }
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = (3 << 30)
    | ((size_of::<ScanArg>() as libc::c_ulong) << 16)
    | ((b'f' as libc::c_ulong) << 8)
    | 16;

fn pagemap() -> Option<&'static File> {
    static PAGEMAP: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let file = File::open("/proc/self/pagemap").ok()?;
        let mut none = [Run::default(); 1];
        scan_with(
            &file,
            std::ptr::from_ref(&none) as usize & !(PAGE_BYTES - 1),
            0,
            &mut none,
        )
        .map(|_| file)
    };
    PAGEMAP.get_or_init(open).as_ref()
}

/// Whether this kernel tells which pages were written; without it, a reset drops all of a range's
/// pages and the next call faults them in again.
pub fn dirty_tracking() -> bool {
    pagemap().is_some()
}

/// The runs of pages in `start..start + bytes` that are private copies: written since they were
/// mapped or dropped. Fills `runs` from the first on, and returns how many were found and the
/// address up to which the scan came (the end, unless `runs` was too small). None without support.
pub(crate) fn written(start: usize, bytes: usize, runs: &mut [Run]) -> Option<(usize, usize)> {
    scan_with(pagemap()?, start, bytes, runs)
}

/// Whether any page in `start..start + bytes` is a private copy. Works on every kernel.
pub(crate) fn any_written(start: usize, bytes: usize) -> Result<bool, MemoryError> {
    let mut one = [Run::default(); 1];
    match written(start, bytes, &mut one) {
        Some((found, _)) => Ok(found > 0),
        None => any_entry_written(start, bytes),
    }
}

/// As [`any_written`], from the entries of the page map, one by one.
fn any_entry_written(start: usize, bytes: usize) -> Result<bool, MemoryError> {
    const ENTRY_BYTES: usize = 8;
    const ENTRIES_AT_A_TIME: usize = 512;
    const HERE: u64 = 1 << 63 | 1 << 62;
    const OF_A_FILE: u64 = 1 << 61;
    let refused = || MemoryError::kernel("read the page map");
    let file = File::open("/proc/self/pagemap").map_err(refused())?;
    let mut entries = [0; ENTRY_BYTES * ENTRIES_AT_A_TIME];
    let (mut page, end) = (start / PAGE_BYTES, (start + bytes) / PAGE_BYTES);
    while page < end {
        let count = (end - page).min(ENTRIES_AT_A_TIME);
        let now = &mut entries[..count * ENTRY_BYTES];
        let at = (page * ENTRY_BYTES) as u64;
        file.read_exact_at(now, at).map_err(refused())?;
        let (entries, _) = now.as_chunks::<ENTRY_BYTES>();
        let mut entries = entries.iter().map(|entry| u64::from_ne_bytes(*entry));
        if entries.any(|entry| entry & HERE != 0 && entry & OF_A_FILE == 0) {
            return Ok(true);
        }
        page += count;
    }
    Ok(false)
}

fn scan_with(file: &File, start: usize, bytes: usize, runs: &mut [Run]) -> Option<(usize, usize)> {
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        start: start as u64,
        end: (start + bytes) as u64,
        vec: runs.as_mut_ptr() as u64,
        vec_len: runs.len() as u64,
        category_inverted: IS_FILE | IS_ZERO,
        category_mask: IS_FILE | IS_ZERO,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_PRESENT,
        ..ScanArg::default()
    };
    // SAFETY: the request matches the argument's type; `vec` and `vec_len` describe `runs`, which
    // the kernel only fills with plain integers; the scanned addresses are only looked up.
    let found = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
    let walked = arg.walk_end as usize;
    usize::try_from(found).ok().map(|found| (found, walked))
}
