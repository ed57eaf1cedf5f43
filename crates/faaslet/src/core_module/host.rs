//! What the host keeps for a guest, and the `dunlin` imports.
//!
//! | import | meaning |
//! |---|---|
//! | `input_size() -> i32` | bytes of the request body |
//! | `input_read(offset, ptr, len) -> i32` | copies at most `len` bytes from `offset`; how many |
//! | `output_write(ptr, len) -> i32` | appends to the reply; 0, or -1 if it would pass its limit |
//! | `log_write(level, ptr, len)` | one log line; 0 error, 1 warn, 2 info, 3 debug |
//!
//! A pointer outside of the guest's memory traps.

use std::sync::Arc;

use bytes::Bytes;
use memory::Range;
use sandbox::host::Session;
use sandbox::{Asks, LogStream};
use wasmtime::{Caller, Extern, Linker, Memory, ResourceLimiter, Trap};

use super::preview1::Preview1;
use super::rewrite::memory_export;
use crate::stdio::{Log, Reply};

/// Import module of our own calls.
pub(super) const DUNLIN: &str = "dunlin";
/// Import module of preview 1.
pub(super) const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// Elements that a table of a guest may have.
pub(super) const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// The store's data.
#[derive(Default)]
pub(crate) struct Host {
    /// What the call in progress gave; None between calls.
    pub call: Option<HostCall>,
    pub memory: Option<Memory>,
    pub limiter: Limiter,
    /// Preview 1, for the call in progress.
    pub wasi: Option<Box<Preview1>>,
    /// Whom to ask, until the first question.
    pub asks: Option<Box<Asks>>,
    /// The answers, from the first question to the end of the call.
    pub session: Option<Box<dyn Session>>,
    /// What the guest's memory lies in.
    pub range: Option<Arc<Range>>,
    /// Whether anything is mapped to read.
    pub maps_to_read: bool,
    /// Regions that are mapped.
    pub mappings: usize,
    /// Whether the guest's memory has grown for a region that could not be mapped.
    pub overgrown: bool,
}

impl Host {
    /// Forgets the call. What was asked for and still runs is cancelled.
    pub fn end_call(&mut self) {
        (self.call, self.wasi) = (None, None);
        (self.asks, self.session) = (None, None);
    }

    /// Forgets what was mapped, which is there no more.
    pub fn unmapped(&mut self) {
        self.maps_to_read = false;
        self.overgrown = false;
        self.mappings = 0;
        self.limiter.mapped_bytes = 0;
    }
}

pub(crate) struct HostCall {
    pub input: Bytes,
    pub reply: Reply,
    pub log: Log,
}

/// Holds a guest to its memory.
#[derive(Default)]
pub(crate) struct Limiter {
    pub memory_bytes_max: usize,
    /// Bytes of regions that are mapped.
    pub mapped_bytes: usize,
    /// Whether memory was refused since the call began.
    pub refused: bool,
    /// Bytes of all memories together: the guest's, the poll page's, and the heap of objects.
    pub bytes: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_sub(current).saturating_add(desired);
        let fits = bytes <= self.memory_bytes_max.saturating_add(self.mapped_bytes);
        match fits {
            true => self.bytes = bytes,
            false => self.refused = true,
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        _: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// Offers the `dunlin` imports.
pub(super) fn add_dunlin(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap(DUNLIN, "input_size", |caller: Caller<'_, Host>| -> i32 {
        let size = caller
            .data()
            .call
            .as_ref()
            .map_or(0, |call| call.input.len());
        i32::try_from(size).unwrap_or(i32::MAX)
    })?;
    linker.func_wrap(DUNLIN, "input_read", input_read)?;
    linker.func_wrap(DUNLIN, "output_write", output_write)?;
    linker.func_wrap(DUNLIN, "log_write", log_write)?;
    Ok(())
}

fn input_read(
    mut caller: Caller<'_, Host>,
    offset: u32,
    ptr: u32,
    len: u32,
) -> wasmtime::Result<u32> {
    let input = caller
        .data()
        .call
        .as_ref()
        .map_or_else(Bytes::new, |call| call.input.clone());
    let rest = input.get(offset as usize..).unwrap_or_default();
    let count = rest.len().min(len as usize);
    guest_bytes_mut(&mut caller, ptr, count)?.copy_from_slice(&rest[..count]);
    Ok(count as u32)
}

fn output_write(mut caller: Caller<'_, Host>, ptr: u32, len: u32) -> wasmtime::Result<i32> {
    let (data, host) = guest_bytes(&mut caller, ptr, len)?;
    let taken = host.call.as_ref().map(|call| call.reply.write(data));
    Ok(if matches!(taken, Some(Ok(()))) { 0 } else { -1 })
}

fn log_write(mut caller: Caller<'_, Host>, level: u32, ptr: u32, len: u32) -> wasmtime::Result<()> {
    let level = u8::try_from(level).unwrap_or(u8::MAX);
    let (data, host) = guest_bytes(&mut caller, ptr, len)?;
    if let Some(call) = &host.call {
        call.log.write(LogStream::Log(level), data);
        if !data.ends_with(b"\n") {
            call.log.write(LogStream::Log(level), b"\n");
        }
    }
    Ok(())
}

pub(super) fn memory(caller: &mut Caller<'_, Host>) -> wasmtime::Result<Memory> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    let export = caller
        .get_export(&memory_export())
        .and_then(Extern::into_memory);
    let memory = export.ok_or(Trap::MemoryOutOfBounds)?;
    caller.data_mut().memory = Some(memory);
    Ok(memory)
}

fn guest_bytes<'a>(
    caller: &'a mut Caller<'_, Host>,
    ptr: u32,
    len: u32,
) -> wasmtime::Result<(&'a [u8], &'a mut Host)> {
    let memory = memory(caller)?;
    let (bytes, host) = memory.data_and_store_mut(caller);
    let end = (ptr as usize).saturating_add(len as usize);
    Ok((
        bytes
            .get(ptr as usize..end)
            .ok_or(Trap::MemoryOutOfBounds)?,
        host,
    ))
}

fn guest_bytes_mut<'a>(
    caller: &'a mut Caller<'_, Host>,
    ptr: u32,
    len: usize,
) -> wasmtime::Result<&'a mut [u8]> {
    let memory = memory(caller)?;
    let end = (ptr as usize).saturating_add(len);
    let bytes = memory.data_mut(caller).get_mut(ptr as usize..end);
    Ok(bytes.ok_or(Trap::MemoryOutOfBounds)?)
}
