//! The `dunlin` imports: those of a call's bytes, and the rows of the platform's table.
//!
//! A pointer is checked against the memory here, as behind the other wall; what leaves for the host
//! are addresses of the machine's, and those the host checks again.

use core::mem::MaybeUninit;
use core::ptr;

use alloc::vec::Vec;
use wasmtime::{
    Caller, Extern, FuncType, Linker, Memory, Result, Trap, ValRaw, ValType, bail, format_err,
};

use crate::abi::{self, CallPage, Given, number_of};
use crate::linear;

const DUNLIN: &str = "dunlin";
/// The name that the compiler outside gives a module's memory.
pub const MEMORY: &str = "dunlin:memory";
/// Words that a host call passes in registers.
const WORDS: usize = 6;
/// Bytes of a page of WebAssembly.
const WASM_PAGE_BYTES: u64 = 64 << 10;
/// What a guest is told where a memory may not grow for what it maps.
const EXHAUSTED: i64 = -6;

/// What the store holds.
pub struct Guest {
    /// The call's page; null while it is initialised.
    pub page: *mut CallPage,
    pub memory: Option<Memory>,
    memory_at: u64,
}

impl Guest {
    pub fn new(given: &Given) -> Self {
        Self {
            page: ptr::null_mut(),
            memory: None,
            memory_at: given.memory_at,
        }
    }

    fn page(&self) -> Option<&'static mut CallPage> {
        // SAFETY: the host gives an address that it has mapped for the machine's life, and reads
        // it only while the machine stands still.
        unsafe { self.page.as_mut() }
    }
}

type Called<'a> = Caller<'a, Guest>;

/// Offers all of them.
pub fn offer(linker: &mut Linker<Guest>, given: &Given) -> Result<()> {
    linker.func_wrap(DUNLIN, "input_size", |caller: Called<'_>| -> i32 {
        let size = caller.data().page().map_or(0, |page| page.input_size);
        i32::try_from(size).unwrap_or(i32::MAX)
    })?;
    linker.func_wrap(DUNLIN, "input_read", input_read)?;
    linker.func_wrap(DUNLIN, "output_write", output_write)?;
    linker.func_wrap(DUNLIN, "log_write", log_write)?;
    let mut rows = given.calls();
    while let Some(row) = Row::read(&mut rows) {
        row.offer(linker)?;
    }
    Ok(())
}

fn memory(caller: &mut Called<'_>) -> Result<Memory> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    let export = caller.get_export(MEMORY).and_then(Extern::into_memory);
    let memory = export.ok_or(Trap::MemoryOutOfBounds)?;
    caller.data_mut().memory = Some(memory);
    Ok(memory)
}

/// The bytes that a guest names.
fn bytes_of<'a>(caller: &'a mut Called<'_>, at: u32, length: u32) -> Result<&'a mut [u8]> {
    let memory = memory(caller)?;
    let (at, length) = (at as usize, length as usize);
    let bytes = memory.data_mut(caller).get_mut(at..at + length);
    Ok(bytes.ok_or(Trap::MemoryOutOfBounds)?)
}

fn input_read(mut caller: Called<'_>, offset: u32, at: u32, length: u32) -> Result<u32> {
    let Some(page) = caller.data().page() else {
        return Ok(0);
    };
    let rest = page.input_size.saturating_sub(offset.into());
    let count = rest.min(length.into());
    let to = bytes_of(&mut caller, at, count as u32)?;
    if u64::from(offset) + count > page.input_here {
        return Ok(abi::input_read(offset.into(), to.as_mut_ptr(), count) as u32);
    }
    let from = (page.input_at + u64::from(offset)) as *const u8;
    // SAFETY: the host has put so many bytes there, outside of the linear memory.
    unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), count as usize) };
    Ok(count as u32)
}

fn output_write(mut caller: Called<'_>, at: u32, length: u32) -> Result<i32> {
    let page = caller.data().page();
    let data = bytes_of(&mut caller, at, length)?;
    match page {
        Some(page) if u64::from(length) <= page.output_max - page.output_used => {
            let to = (page.output_at + page.output_used) as *mut u8;
            // SAFETY: the buffer has room for them, and lies outside of the linear memory.
            unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) };
            page.output_used += u64::from(length);
            Ok(0)
        }
        _ => Ok(abi::output_write(data) as i32),
    }
}

fn log_write(mut caller: Called<'_>, level: u32, at: u32, length: u32) -> Result<()> {
    /// Bytes before a line: its level and its length.
    const HEAD_BYTES: u64 = 8;
    let page = caller.data().page();
    let line = bytes_of(&mut caller, at, length)?;
    match page {
        Some(page) if u64::from(length) + HEAD_BYTES <= page.log_max - page.log_used => {
            let to = (page.log_at + page.log_used) as *mut u8;
            // SAFETY: as for the reply.
            unsafe {
                to.cast::<[u32; 2]>().write_unaligned([level, length]);
                ptr::copy_nonoverlapping(line.as_ptr(), to.add(HEAD_BYTES as usize), line.len());
            }
            page.log_used += HEAD_BYTES + u64::from(length);
        }
        _ => abi::log_write(level, line),
    }
    Ok(())
}

/// What a parameter of a row is.
#[derive(Clone, Copy)]
enum Param {
    Small,
    Word,
    /// An address and a length.
    Bytes,
}

/// A row of the table: a name, whether it maps, and its parameters.
struct Row {
    name: &'static str,
    maps: bool,
    params: Vec<Param>,
}

impl Row {
    /// The next of `rows`; none at their end.
    fn read(rows: &mut &'static [u8]) -> Option<Self> {
        let (&length, rest) = rows.split_first()?;
        let (name, rest) = rest.split_at_checked(length.into())?;
        let (&[maps, count], rest) = rest.split_first_chunk::<2>()?;
        let (params, rest) = rest.split_at_checked(count.into())?;
        *rows = rest;
        Some(Self {
            name: core::str::from_utf8(name).ok()?,
            maps: maps != 0,
            params: params
                .iter()
                .map(|param| match param {
                    0 => Param::Small,
                    1 => Param::Word,
                    _ => Param::Bytes,
                })
                .collect(),
        })
    }

    fn offer(self, linker: &mut Linker<Guest>) -> Result<()> {
        let params = self.params.iter().flat_map(|param| match param {
            Param::Small => &[ValType::I32][..],
            Param::Word => &[ValType::I64],
            Param::Bytes => &[ValType::I32, ValType::I32],
        });
        let ty = FuncType::new(linker.engine(), params.cloned(), [ValType::I64]);
        let name = self.name;
        let call = move |caller: Called<'_>, values: &mut [MaybeUninit<ValRaw>]| {
            let result = self.ask(caller, values)?;
            values[0].write(ValRaw::i64(result));
            Ok(())
        };
        // SAFETY: the values are read as the type has them, and there is always room for a result.
        unsafe { linker.func_new_unchecked(DUNLIN, name, ty, call)? };
        Ok(())
    }

    fn ask(&self, mut caller: Called<'_>, values: &[MaybeUninit<ValRaw>]) -> Result<i64> {
        let words = self.words(&mut caller, values)?;
        let mut args = [0; WORDS];
        if words.len() <= WORDS {
            args[..words.len()].copy_from_slice(&words);
        } else {
            args[0] = words.as_ptr() as u64;
        }
        let (result, mapped) = abi::ask(number_of(self.name), args);
        if self.maps && result >= 0 {
            return attach(&mut caller, result, mapped);
        }
        Ok(result)
    }

    /// What goes out: addresses of the machine's for those of the guest's.
    fn words(&self, caller: &mut Called<'_>, values: &[MaybeUninit<ValRaw>]) -> Result<Vec<u64>> {
        let mut values = values.iter();
        let mut next = || {
            let value = values
                .next()
                .ok_or_else(|| format_err!("a value is missing"))?;
            // SAFETY: as many values were passed as the type has parameters.
            Ok::<ValRaw, wasmtime::Error>(unsafe { value.assume_init() })
        };
        let mut words = Vec::with_capacity(2 * self.params.len());
        for param in &self.params {
            let value = next()?;
            match param {
                Param::Small => words.push(value.get_u32().into()),
                Param::Word => words.push(value.get_u64()),
                Param::Bytes => {
                    let bytes = bytes_of(caller, value.get_u32(), next()?.get_u32())?;
                    words.extend([bytes.as_ptr() as u64, bytes.len() as u64]);
                }
            }
        }
        Ok(words)
    }
}

/// Makes the `mapped` bytes that the host has put behind the memory part of it. Gives the guest's
/// address for the machine's.
fn attach(caller: &mut Called<'_>, address: i64, mapped: u64) -> Result<i64> {
    let memory = memory(caller)?;
    let base = caller.data().memory_at;
    let end = base + memory.data_size(&*caller) as u64;
    linear::mapped_to((end + mapped) as usize);
    if memory.grow(&mut *caller, mapped / WASM_PAGE_BYTES).is_err() {
        linear::mapped_to(0);
        if !abi::map(end as usize, mapped as usize, abi::NONE) {
            bail!("its state could not be unmapped");
        }
        return Ok(EXHAUSTED);
    }
    Ok(address - base as i64)
}
