//! What the host keeps for one guest: WASI's state, the memory cap, and its way out.

use std::sync::Arc;

use memory::{AnnexAccess, Range};
use sandbox::Asks;
use sandbox::host::Session;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Result};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::egress::Egress;
use super::filesystem::{FilesView, GuestFiles};

/// Most elements that one table may grow to.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// Most resources that a guest with a way out may hold: each socket is one, and costs a file
/// descriptor of the node's.
const OPEN_RESOURCES_MAX: usize = 4096;

/// What a guest finds around it, made when it first looks: many never do.
pub(crate) struct Surroundings {
    made: Option<Box<WasiCtx>>,
    make: Option<Box<dyn FnOnce() -> WasiCtx + Send>>,
}

impl Surroundings {
    /// To be made by `make`.
    pub(super) fn later(make: impl FnOnce() -> WasiCtx + Send + 'static) -> Self {
        Self {
            made: None,
            make: Some(Box::new(make)),
        }
    }

    fn look(&mut self) -> &mut WasiCtx {
        let make = &mut self.make;
        self.made.get_or_insert_with(|| {
            let made = make.take().map(|make| make());
            Box::new(made.unwrap_or_default())
        })
    }
}

impl From<WasiCtx> for Surroundings {
    fn from(wasi: WasiCtx) -> Self {
        Self {
            made: Some(Box::new(wasi)),
            make: None,
        }
    }
}

/// The data of a guest's store.
pub(crate) struct Guest {
    pub(super) memory: MemoryCap,
    wasi: Surroundings,
    http: WasiHttpCtx,
    egress: Egress,
    files: GuestFiles,
    table: ResourceTable,
    /// Whom to ask, until the first question.
    asks: Option<Box<Asks>>,
    /// The answers, from the first question on.
    session: Option<Box<dyn Session>>,
    /// Its memory, if that is ours.
    range: Option<Arc<Range>>,
}

impl Guest {
    pub(crate) fn new(
        wasi: impl Into<Surroundings>,
        memory_bytes_max: u64,
        asks: Option<Box<Asks>>,
    ) -> Self {
        Self {
            memory: MemoryCap::new(memory_bytes_max),
            wasi: wasi.into(),
            http: WasiHttpCtx::new(),
            egress: Egress::default(),
            files: GuestFiles::default(),
            table: ResourceTable::new(),
            asks,
            session: None,
            range: None,
        }
    }

    /// The same guest, with this way out.
    pub(super) fn with_egress(mut self, egress: Egress) -> Self {
        if egress.is_open() {
            self.table.set_max_capacity(OPEN_RESOURCES_MAX);
        }
        self.egress = egress;
        self
    }

    /// The same guest, whose memory is `range`, of which the engine sees `declared_bytes` made.
    pub(super) fn with_memory(mut self, range: Arc<Range>, declared_bytes: usize) -> Self {
        self.memory
            .charge(range.bytes().saturating_sub(declared_bytes));
        self.range = Some(range);
        self
    }

    /// Its instances are made: what only they need to see of its memory is seen no more.
    pub(super) fn instantiated(&self) -> Result<()> {
        match &self.range {
            Some(range) => Ok(range.set_annex_access(AnnexAccess::None)?),
            None => Ok(()),
        }
    }

    /// The same guest, with these files.
    pub(super) fn with_files(mut self, files: GuestFiles) -> Self {
        self.files = files;
        self
    }

    pub(super) fn files(&mut self) -> FilesView<'_> {
        FilesView {
            files: &mut self.files,
            table: &mut self.table,
        }
    }

    /// The answers to the guest, for one question; none if there is nobody to ask.
    pub(super) fn take_session(&mut self) -> Option<Box<dyn Session>> {
        let begun = self.session.take();
        begun.or_else(|| self.asks.take().map(|asks| asks.host.session(asks.guest)))
    }

    /// What it holds of the host's.
    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    pub(super) fn give_session(&mut self, session: Box<dyn Session>) {
        self.session = Some(session);
    }

    /// Cancels what the guest asked for and still runs.
    pub(super) fn end_session(&mut self) {
        (self.asks, self.session) = (None, None);
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: self.wasi.look(),
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.egress,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// Caps the sum of a guest's linear memories and remembers its peak.
pub(super) struct MemoryCap {
    bytes_max: usize,
    bytes: usize,
    growing: usize,
    /// The largest sum so far.
    pub(super) peak_bytes: usize,
    /// Whether growth over the cap was asked for and refused.
    pub(super) refused: bool,
}

impl MemoryCap {
    fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            bytes: 0,
            growing: 0,
            peak_bytes: 0,
            refused: false,
        }
    }

    /// Counts bytes that are there without having been asked for.
    fn charge(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.peak_bytes = self.peak_bytes.max(self.bytes);
    }
}

impl ResourceLimiter for MemoryCap {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let growing = desired.saturating_sub(current);
        let bytes = self.bytes.saturating_add(growing);
        if bytes > self.bytes_max {
            self.refused = true;
            return Ok(false);
        }
        self.growing = growing;
        self.bytes = bytes;
        self.peak_bytes = self.peak_bytes.max(bytes);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> Result<()> {
        self.bytes -= std::mem::take(&mut self.growing);
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_is_over_the_sum_of_memories() {
        let mut cap = MemoryCap::new(100);
        assert!(cap.memory_growing(0, 60, None).unwrap());
        assert!(!cap.memory_growing(0, 41, Some(30)).unwrap());
        assert!(!cap.refused, "a memory's own maximum is not our cap");
        assert!(!cap.memory_growing(0, 41, None).unwrap());
        assert!(cap.refused);
        assert!(cap.memory_growing(60, 100, None).unwrap());
        assert_eq!(cap.peak_bytes, 100);
    }
}
