//! Files whose contents come while guests run over them: `userfaultfd(2)`, which stops a thread at
//! a page that is not there until somebody has filled it.
//!
//! ```text
//!  guest touches a page ─▶ kernel stops it ─▶ pager's thread ─▶ Arriving: chunk wanted ─▶ fetcher
//!  guest goes on ◀─ woken ◀─ in the file ◀─ Arriving::fill ◀───────────────────────────────┘
//! ```
//!
//! The file is a memfd, which is filled through a mapping of its own, a page at a time whatever the
//! size of pages that the kernel would choose: all mappings, also such as came later, see them
//! then. Only mappings that were made while the file was not whole are watched.
//!
//! Invariants, as absences:
//! - No thread goes on with a page that was not filled, but for one of a file that is lost, whose
//!   missing pages are zeros: nothing that was computed over it may be believed.
//! - No lock of this file is held while a page is touched that may be missing.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags};

use crate::{MemoryError, PAGE_BYTES};

/// Bytes that are asked for, and filled, at a time: 16 pages.
pub const CHUNK_BYTES: usize = 16 * PAGE_BYTES;

static ARRIVING_BYTES: AtomicUsize = AtomicUsize::new(0);

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// How much of a file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All of it.
    Whole,
    /// Not all of it: whoever touches what is missing waits for it.
    Arriving,
    /// What was missing will never come.
    Lost,
}

/// A file that is filled chunk by chunk, in any order, while it is mapped.
pub struct Arriving {
    file: OwnedFd,
    bytes: usize,
    /// The address of the mapping that it is filled through.
    filler: usize,
    filled: Mutex<Filled>,
    wanted: Box<dyn Fn(usize) + Send + Sync>,
}

struct Filled {
    presence: Presence,
    /// By chunk.
    there: Vec<bool>,
    missing: usize,
    /// Addresses of pages at which threads were stopped, by the chunk that they wait for.
    waiting: BTreeMap<usize, Vec<usize>>,
}

impl Arriving {
    /// A file of so many bytes, none of which is there. `wanted` is told each chunk that a thread
    /// begins to wait for, once; it must not block. Fails where the kernel does not let this
    /// process wait for pages.
    pub fn new(
        bytes: usize,
        wanted: impl Fn(usize) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, MemoryError> {
        pager()?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("dunlin-arriving", flags)
            .map_err(MemoryError::kernel("create the memfd of an arriving file"))?;
        rustix::fs::ftruncate(&file, bytes as u64)
            .map_err(MemoryError::kernel("size an arriving file"))?;
        let size = SealFlags::SHRINK | SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&file, size)
            .map_err(MemoryError::kernel("seal the size of an arriving file"))?;
        let filler = Self::map_filler(&file, bytes)?;
        ARRIVING_BYTES.fetch_add(bytes, Ordering::Relaxed);
        let chunks = bytes.div_ceil(CHUNK_BYTES);
        let filled = Filled {
            presence: match chunks {
                0 => Presence::Whole,
                _ => Presence::Arriving,
            },
            there: vec![false; chunks],
            missing: chunks,
            waiting: BTreeMap::new(),
        };
        Ok(Arc::new(Self {
            file,
            bytes,
            filler,
            filled: Mutex::new(filled),
            wanted: Box::new(wanted),
        }))
    }

    /// Bytes of all that there are in this process, also of those that are whole by now: they take
    /// memory that no file on a disk stands behind.
    pub fn all_bytes() -> usize {
        ARRIVING_BYTES.load(Ordering::Relaxed)
    }

    fn map_filler(file: &OwnedFd, bytes: usize) -> Result<usize, MemoryError> {
        if bytes == 0 {
            return Ok(0);
        }
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let filler = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        let filler = filler.map_err(MemoryError::kernel("map an arriving file"))? as usize;
        let registered = register(filler, bytes);
        if registered.is_err() {
            unmap(filler, bytes);
        }
        registered.map(|()| filler)
    }

    /// How much of it is there.
    pub fn presence(&self) -> Presence {
        self.filled.lock().presence
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where chunk `number` is in the file; its last one may be a short one.
    pub fn span(&self, number: usize) -> std::ops::Range<usize> {
        let start = number.saturating_mul(CHUNK_BYTES).min(self.bytes);
        start..start.saturating_add(CHUNK_BYTES).min(self.bytes)
    }

    /// Fills chunk `number`, and lets go on who waits for it. What was filled, or lost, stays. To
    /// be called by one at a time.
    pub fn fill(&self, number: usize, bytes: &[u8]) -> Result<(), MemoryError> {
        let span = self.span(number);
        if bytes.is_empty() || bytes.len() != span.len() {
            return Err(MemoryError::Outside {
                offset: span.start,
                length: bytes.len(),
                bytes: self.bytes,
            });
        }
        if self.is_settled(number) {
            return Ok(());
        }
        self.copy(bytes, span.start)?;
        let mut filled = self.filled.lock();
        let waiting = filled.came(number);
        let whole = filled.missing == 0 && filled.presence == Presence::Arriving;
        if whole {
            filled.presence = Presence::Whole;
        }
        drop(filled);
        wake(waiting);
        if whole {
            unmap(self.filler, self.bytes);
        }
        Ok(())
    }

    /// Whether a chunk is there, or will not come.
    fn is_settled(&self, number: usize) -> bool {
        let filled = self.filled.lock();
        filled.presence == Presence::Lost || filled.there[number]
    }

    /// Puts the pages of `bytes` in the file, the last of them with zeros after them.
    fn copy(&self, bytes: &[u8], offset: usize) -> Result<(), MemoryError> {
        let mut padded = Vec::new();
        let bytes = match bytes.len() % PAGE_BYTES {
            0 => bytes,
            _ => {
                padded.extend_from_slice(bytes);
                padded.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
                &padded
            }
        };
        let mut done = 0;
        while done < bytes.len() {
            let mut copy = Copy {
                dst: (self.filler + offset + done) as u64,
                src: bytes[done..].as_ptr() as u64,
                len: (bytes.len() - done) as u64,
                mode: 0,
                copied: 0,
            };
            let copied = control(pager()?.descriptor.as_fd(), COPY, &mut copy);
            // Some of it was, if that is positive.
            done += usize::try_from(copy.copied).unwrap_or(0);
            match copied {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A fill that failed before had come so far, or the page was lost before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => done += PAGE_BYTES,
                Err(error) => return Err(MemoryError::kernel("fill an arriving file")(error)),
            }
        }
        Ok(())
    }

    /// Says that what is missing will not come: whoever waits for it, or comes to, goes on with
    /// zeros in its place. Does nothing to a file that is whole.
    pub fn lose(&self) {
        let mut filled = self.filled.lock();
        if filled.presence != Presence::Arriving {
            return;
        }
        // Before any zero can be read.
        filled.presence = Presence::Lost;
        let waiting = std::mem::take(&mut filled.waiting);
        drop(filled);
        // They are stopped once more, and find it lost.
        wake(waiting.into_values().flatten());
    }

    /// Reads what is at `offset`, all of `into`, from a file that is whole.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut read = 0;
        while read < into.len() {
            let at = (offset + read) as u64;
            let count = rustix::io::pread(&self.file, &mut into[read..], at)
                .map_err(MemoryError::kernel("read an arriving file"))?;
            if count == 0 {
                return Err(MemoryError::Outside {
                    offset,
                    length: into.len(),
                    bytes: self.bytes,
                });
            }
            read += count;
        }
        Ok(())
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A thread was stopped at `address`, where page `page` of the file is.
    fn stopped(&self, address: usize, page: usize) {
        let number = page * PAGE_BYTES / CHUNK_BYTES;
        let mut filled = self.filled.lock();
        // Nothing is past the end, where threads end with a signal before they are stopped.
        let is_there = filled.there.get(number).copied().unwrap_or(true);
        if is_there || filled.presence == Presence::Lost {
            drop(filled);
            if !is_there && let Err(error) = self.copy(&ZEROS, page * PAGE_BYTES) {
                tracing::error!(%error, "a thread that waits for a page cannot go on");
            }
            return wake([address]);
        }
        let waiting = filled.waiting.entry(number).or_default();
        waiting.push(address);
        let is_first = waiting.len() == 1;
        drop(filled);
        if is_first {
            (self.wanted)(number);
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        ARRIVING_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.filled.get_mut().presence != Presence::Whole {
            unmap(self.filler, self.bytes);
        }
        if let Ok(pager) = pager() {
            pager
                .placed
                .lock()
                .retain(|_, placed| placed.arriving.strong_count() > 0);
        }
    }
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let missing = self.filled.lock().missing;
        f.debug_struct("Arriving")
            .field("bytes", &self.bytes)
            .field("missing", &missing)
            .finish_non_exhaustive()
    }
}

impl Filled {
    /// Chunk `number` is there: who waits for it.
    fn came(&mut self, number: usize) -> Vec<usize> {
        if !std::mem::replace(&mut self.there[number], true) {
            self.missing -= 1;
        }
        self.waiting.remove(&number).unwrap_or_default()
    }
}

/// Has threads stop at the pages of `arriving` that are not there, in a mapping of `bytes` bytes at
/// `address` that begins with page `page` of the file.
pub(crate) fn watch(
    arriving: &Arc<Arriving>,
    address: usize,
    bytes: usize,
    page: usize,
) -> Result<(), MemoryError> {
    let pager = pager()?;
    // Known before a thread can be stopped there.
    pager.place(address, bytes, page, arriving);
    register(address, bytes)
}

fn register(address: usize, bytes: usize) -> Result<(), MemoryError> {
    let mut register = Register {
        range: Span {
            start: address as u64,
            len: bytes.next_multiple_of(PAGE_BYTES) as u64,
        },
        mode: MODE_MISSING,
        ioctls: 0,
    };
    control(pager()?.descriptor.as_fd(), REGISTER, &mut register)
        .map_err(MemoryError::kernel("watch the mapping of an arriving file"))
}

/// Unmaps what a file was filled through.
fn unmap(filler: usize, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: the mapping is the file's own, and only the kernel has ever touched it.
    let unmapped = unsafe { rustix::mm::munmap(filler as *mut _, bytes) };
    if let Err(error) = unmapped {
        tracing::warn!(%error, "a mapping of an arriving file could not be undone");
    }
}

fn wake(addresses: impl IntoIterator<Item = usize>) {
    // Whoever was stopped was stopped by it.
    let Ok(pager) = pager() else { return };
    for address in addresses {
        let mut page = Span {
            start: address as u64,
            len: PAGE_BYTES as u64,
        };
        if let Err(error) = control(pager.descriptor.as_fd(), WAKE, &mut page) {
            tracing::error!(%error, "a thread that waits for a page could not be woken");
        }
    }
}

/// What watches mappings, for all files of the process.
struct Pager {
    descriptor: OwnedFd,
    /// By the first address. What was unmapped since stays until it is mapped over, or its file is
    /// dropped: no thread is stopped there.
    placed: Mutex<BTreeMap<usize, Placed>>,
}

struct Placed {
    bytes: usize,
    page: usize,
    arriving: Weak<Arriving>,
}

impl Placed {
    /// So many bytes of it, from the byte `from` on.
    fn part(&self, from: usize, bytes: usize) -> Self {
        Self {
            bytes,
            page: self.page + from / PAGE_BYTES,
            arriving: self.arriving.clone(),
        }
    }
}

impl Pager {
    fn place(&self, address: usize, bytes: usize, page: usize, arriving: &Arc<Arriving>) {
        let mut placed = self.placed.lock();
        // They lie apart, so that the last to begin are the last to end.
        let before = placed.range(..address + bytes).rev();
        let under = before.take_while(|(start, old)| **start + old.bytes > address);
        let under: Vec<_> = under.map(|(start, _)| *start).collect();
        let end = address + bytes;
        for start in under {
            let Some(old) = placed.remove(&start) else {
                continue;
            };
            // What it was not mapped over is watched as before.
            if start < address {
                placed.insert(start, old.part(0, address - start));
            }
            if start + old.bytes > end {
                placed.insert(end, old.part(end - start, start + old.bytes - end));
            }
        }
        let arriving = Arc::downgrade(arriving);
        placed.insert(
            address,
            Placed {
                bytes,
                page,
                arriving,
            },
        );
    }

    /// Which page of which file is at `address`.
    fn find(&self, address: usize) -> Option<(Arc<Arriving>, usize)> {
        let (arriving, page) = {
            let placed = self.placed.lock();
            let (start, found) = placed.range(..=address).next_back()?;
            let within = address - start;
            let is_in = within < found.bytes;
            is_in.then(|| (found.arriving.clone(), found.page + within / PAGE_BYTES))?
        };
        // Not under the lock: who drops the last of a file takes it.
        Some((arriving.upgrade()?, page))
    }

    fn serve(&self) {
        let mut events = [[0; EVENT_BYTES]; EVENTS_AT_A_TIME];
        loop {
            let read = rustix::io::read(&self.descriptor, events.as_flattened_mut());
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                Err(error) => {
                    tracing::error!(%error, "threads that wait for pages are not heard any more");
                    return;
                }
            };
            for event in events.iter().take(bytes / EVENT_BYTES) {
                if let Some(address) = fault_address(event) {
                    self.stopped(address & !(PAGE_BYTES - 1));
                }
            }
        }
    }

    fn stopped(&self, address: usize) {
        match self.find(address) {
            Some((arriving, page)) => arriving.stopped(address, page),
            // It was unmapped meanwhile.
            None => wake([address]),
        }
    }
}

/// Whether this process may wait for pages; without it, what guests run over must be whole first.
pub fn pages_can_arrive() -> bool {
    pager().is_ok()
}

/// The pager of this process, begun by the first who asks.
fn pager() -> Result<&'static Pager, MemoryError> {
    static PAGER: OnceLock<Result<&'static Pager, io::ErrorKind>> = OnceLock::new();
    let begun = PAGER.get_or_init(|| begin().map_err(|error| error.kind()));
    let begun = *begun;
    begun.map_err(|kind| MemoryError::Kernel {
        doing: "wait for pages (userfaultfd)",
        source: kind.into(),
    })
}

fn begin() -> io::Result<&'static Pager> {
    let descriptor = open()?;
    let mut api = Api {
        api: API_VERSION,
        features: 0,
        ioctls: 0,
    };
    control(descriptor.as_fd(), API, &mut api)?;
    let pager: &'static Pager = Box::leak(Box::new(Pager {
        descriptor,
        placed: Mutex::default(),
    }));
    let thread = std::thread::Builder::new().name("pager".into());
    thread.spawn(|| pager.serve())?;
    Ok(pager)
}

/// A descriptor that also stops threads in the kernel, as in a system call that reads guest memory:
/// by the device, which a user can be given, or as root.
fn open() -> io::Result<OwnedFd> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd");
    if let Ok(device) = device {
        // SAFETY: the call takes flags and gives a new descriptor.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), NEW, libc::O_CLOEXEC) };
        if fd >= 0 {
            // SAFETY: the descriptor was just made for us.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    // SAFETY: who has the descriptor can only stop threads at pages that it registers.
    Ok(unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC) }?)
}

/// The address of a fault; none of another event.
fn fault_address(event: &[u8; EVENT_BYTES]) -> Option<usize> {
    let address = event[ADDRESS_AT..].first_chunk().copied()?;
    let address = usize::try_from(u64::from_ne_bytes(address)).ok()?;
    (event[0] == EVENT_PAGEFAULT).then_some(address)
}

fn control<T>(descriptor: BorrowedFd<'_>, number: libc::c_ulong, arg: &mut T) -> io::Result<()> {
    // SAFETY: each number is used with the structure that the kernel reads and writes for it.
    let done = unsafe { libc::ioctl(descriptor.as_raw_fd(), number, std::ptr::from_mut(arg)) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct uffdio_api` of `linux/userfaultfd.h`; so are those below.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Span {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Span,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

const API_VERSION: u64 = 0xaa;
const MODE_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
/// `struct uffd_msg`.
const EVENT_BYTES: usize = 32;
const ADDRESS_AT: usize = 16;
const EVENTS_AT_A_TIME: usize = 16;

const fn number(direction: libc::c_ulong, bytes: usize, number: libc::c_ulong) -> libc::c_ulong {
    (direction << 30) | ((bytes as libc::c_ulong) << 16) | (0xaa << 8) | number
}
const API: libc::c_ulong = number(3, size_of::<Api>(), 0x3f);
const REGISTER: libc::c_ulong = number(3, size_of::<Register>(), 0x00);
const COPY: libc::c_ulong = number(3, size_of::<Copy>(), 0x03);
const WAKE: libc::c_ulong = number(2, size_of::<Span>(), 0x02);
/// Of `/dev/userfaultfd`.
const NEW: libc::c_ulong = number(0, 0, 0x00);

#[cfg(test)]
#[path = "pager_tests.rs"]
mod tests;
