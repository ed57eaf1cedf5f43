//! The contents of a file that was made or changed: pages over what its layer has.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ledger::Ledger;
use crate::{Contents, Errno, PAGE_BYTES};

/// The longest that a file may be; holes cost nothing.
pub(crate) const FILE_BYTES_MAX: u64 = i64::MAX as u64;

pub(crate) type Page = [u8; PAGE_BYTES];

const PAGE: u64 = PAGE_BYTES as u64;

/// Contents of which whole pages are private. A page that is not there is the layer's, and zero
/// where that ends. Copies share pages until one of them writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    pub(crate) under: Option<Contents>,
    /// How far the layer's bytes are still visible.
    pub(crate) under_bytes: u64,
    pub(crate) pages: BTreeMap<u64, Arc<Page>>,
    pub(crate) bytes: u64,
}

impl Data {
    /// What the layer has, unchanged so far.
    pub fn over(under: &Contents) -> Self {
        let bytes = under.bytes();
        Self {
            under: Some(under.clone()),
            under_bytes: bytes,
            pages: BTreeMap::new(),
            bytes,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages of its own.
    pub fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Copies what is at `offset` into `into`; how many bytes there were.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let rest = self.bytes.saturating_sub(offset);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(into.len());
        let mut done = 0;
        while done < count {
            let at = offset + done as u64;
            let (index, within) = split(at);
            let part = (PAGE_BYTES - within).min(count - done);
            let into = &mut into[done..done + part];
            match self.pages.get(&index) {
                Some(page) => into.copy_from_slice(&page[within..within + part]),
                None => self.read_under(at, into),
            }
            done += part;
        }
        count
    }

    /// What the layer has at `offset`, then zeros.
    fn read_under(&self, offset: u64, into: &mut [u8]) {
        let visible = self.under_bytes.saturating_sub(offset);
        let visible = usize::try_from(visible).unwrap_or(usize::MAX);
        let visible = visible.min(into.len());
        let under = self.under.as_ref().map_or(0, |under| {
            under.read(offset, &mut into[..visible]).min(visible)
        });
        into[under..].fill(0);
    }

    /// Writes what fits the quota; how much that was. Fails if nothing fits.
    pub fn write(&mut self, offset: u64, data: &[u8], ledger: &mut Ledger) -> Result<usize, Errno> {
        let room = FILE_BYTES_MAX.saturating_sub(offset);
        let count = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        if count == 0 && !data.is_empty() {
            return Err(Errno::TooBig);
        }
        let mut done = 0;
        while done < count {
            let (index, within) = split(offset + done as u64);
            let part = (PAGE_BYTES - within).min(count - done);
            let page = match self.page(index, part == PAGE_BYTES, ledger) {
                Ok(page) => page,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            page[within..within + part].copy_from_slice(&data[done..done + part]);
            done += part;
        }
        self.bytes = self.bytes.max(offset + done as u64);
        Ok(done)
    }

    /// The private page `index`, made if it is missing; `blank` if all of it will be written.
    fn page(&mut self, index: u64, blank: bool, ledger: &mut Ledger) -> Result<&mut Page, Errno> {
        if !self.pages.contains_key(&index) {
            ledger.take_page()?;
            let mut page = [0; PAGE_BYTES];
            if !blank {
                self.read_under(index * PAGE, &mut page[..]);
            }
            self.pages.insert(index, Arc::new(page));
        }
        self.pages
            .get_mut(&index)
            .map(Arc::make_mut)
            .ok_or(Errno::Io)
    }

    /// Makes it `bytes` long: what is cut off is gone, what is added is zero.
    pub fn truncate(&mut self, bytes: u64, ledger: &mut Ledger) -> Result<(), Errno> {
        if bytes > FILE_BYTES_MAX {
            return Err(Errno::TooBig);
        }
        if bytes < self.bytes {
            let cut = self.pages.split_off(&bytes.div_ceil(PAGE));
            ledger.give_pages(cut.len() as u64);
            let (last, within) = split(bytes);
            if within > 0
                && let Some(page) = self.pages.get_mut(&last)
            {
                Arc::make_mut(page)[within..].fill(0);
            }
            self.under_bytes = self.under_bytes.min(bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Makes sure that later writes to the `length` bytes at `offset` find room, and makes the file
    /// reach there.
    pub fn allocate(&mut self, offset: u64, length: u64, ledger: &mut Ledger) -> Result<(), Errno> {
        let end = offset.checked_add(length).ok_or(Errno::TooBig)?;
        if end > FILE_BYTES_MAX {
            return Err(Errno::TooBig);
        }
        let indices = offset / PAGE..end.div_ceil(PAGE);
        let there = self.pages.range(indices.clone()).count() as u64;
        let missing = (indices.end - indices.start - there).saturating_mul(PAGE);
        let left = ledger.quota().bytes_max.saturating_sub(ledger.bytes());
        if missing > left {
            return Err(Errno::NoSpace);
        }
        for index in indices {
            self.page(index, false, ledger)?;
        }
        self.bytes = self.bytes.max(end);
        Ok(())
    }
}

/// The page of a byte, and its place in there.
fn split(offset: u64) -> (u64, usize) {
    (offset / PAGE, (offset % PAGE) as usize)
}
