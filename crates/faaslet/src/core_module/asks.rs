//! What guests ask of the platform: the rows of the host's table as imports of `dunlin`.
//!
//! Text is copied out of the guest's memory before a call; bytes and buffers are not, and no call
//! has two of them, so what a guest passes never aliases.

use std::sync::Arc;

use memory::{Access, RANGE_MAPPINGS_MAX, REGION_UNIT_BYTES, Range, Region};
use sandbox::host::{Arg, Errno, HostCall, Mapper, Session, Type, Walls};
use wasmtime::{Caller, FuncType, Linker, Memory, Trap, Val, ValType};

use super::host::{DUNLIN, Host, memory};

/// Longest text that a guest may pass.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Offers the calls of `table`.
pub(super) fn add_asks(
    linker: &mut Linker<Host>,
    table: &'static [HostCall],
) -> wasmtime::Result<()> {
    for (index, call) in table.iter().enumerate() {
        let ty = signature(linker, call);
        linker.func_new_async(DUNLIN, call.name, ty, move |caller, params, results| {
            Box::new(async move {
                results[0] = Val::I64(ask(caller, index, call, params).await?);
                Ok(())
            })
        })?;
    }
    Ok(())
}

fn signature(linker: &Linker<Host>, call: &HostCall) -> FuncType {
    let params = call.params.iter().flat_map(|param| match param.ty {
        Type::U32 => vec![ValType::I32],
        Type::U64 => vec![ValType::I64],
        Type::Str | Type::Bytes | Type::Out => vec![ValType::I32, ValType::I32],
    });
    FuncType::new(linker.engine(), params, [ValType::I64])
}

async fn ask(
    mut caller: Caller<'_, Host>,
    index: usize,
    call: &HostCall,
    params: &[Val],
) -> wasmtime::Result<i64> {
    // Taken out, so that it and the guest's memory can be borrowed side by side.
    let Some(mut session) = take_session(caller.data_mut()) else {
        // Initialisation at deploy, which has no platform to ask.
        return Ok(Errno::Unavailable.code());
    };
    let answer = answer(&mut caller, session.as_mut(), index, call, params).await?;
    if caller.data().overgrown {
        return Err(wasmtime::Error::msg("its state could not be mapped"));
    }
    caller.data_mut().session = Some(session);
    Ok(match answer {
        Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
        Err(errno) => errno.code(),
    })
}

fn take_session(host: &mut Host) -> Option<Box<dyn Session>> {
    let begun = host.session.take();
    begun.or_else(|| host.asks.take().map(|asks| asks.host.session(asks.guest)))
}

/// What the guest passed for one parameter, its text copied.
enum Passed {
    U32(u32),
    U64(u64),
    Text(String),
    Span(usize, usize),
}

async fn answer(
    caller: &mut Caller<'_, Host>,
    session: &mut dyn Session,
    index: usize,
    call: &HostCall,
    params: &[Val],
) -> wasmtime::Result<Result<u64, Errno>> {
    let memory = memory(caller)?;
    let passed = match read_params(memory.data(&caller), call, params)? {
        Ok(passed) => passed,
        Err(errno) => return Ok(Err(errno)),
    };
    if call.walls == Walls::Mapped {
        let mut args: Vec<_> = passed.iter().filter_map(plain).collect();
        let mut mapper = GuestMapper { caller, memory };
        return Ok(session.call(index, &mut args, Some(&mut mapper)).await);
    }
    let mut data = Some(memory.data_mut(caller));
    let mut args = Vec::with_capacity(passed.len());
    for (passed, param) in passed.iter().zip(call.params) {
        args.push(match (passed, param.ty) {
            (&Passed::Span(start, end), Type::Out) => {
                let data = data.take().ok_or(Trap::MemoryOutOfBounds)?;
                Arg::Out(&mut data[start..end])
            }
            (&Passed::Span(start, end), _) => {
                let data = data.take().ok_or(Trap::MemoryOutOfBounds)?;
                Arg::Bytes(&data[start..end])
            }
            (other, _) => plain(other).ok_or(Trap::MemoryOutOfBounds)?,
        });
    }
    Ok(session.call(index, &mut args, None).await)
}

fn plain(passed: &Passed) -> Option<Arg<'_>> {
    match passed {
        Passed::U32(number) => Some(Arg::U32(*number)),
        Passed::U64(number) => Some(Arg::U64(*number)),
        Passed::Text(text) => Some(Arg::Str(text)),
        Passed::Span(..) => None,
    }
}

/// Checks everything that the guest passed against its memory: what lies outside traps.
fn read_params(
    data: &[u8],
    call: &HostCall,
    params: &[Val],
) -> wasmtime::Result<Result<Vec<Passed>, Errno>> {
    let mut values = params.iter();
    let mut next = || values.next().ok_or(Trap::MemoryOutOfBounds);
    let mut passed = Vec::with_capacity(call.params.len());
    for param in call.params {
        let first = next()?;
        passed.push(match param.ty {
            Type::U32 => Passed::U32(first.unwrap_i32().cast_unsigned()),
            Type::U64 => Passed::U64(first.unwrap_i64().cast_unsigned()),
            Type::Str | Type::Bytes | Type::Out => {
                let start = first.unwrap_i32().cast_unsigned() as usize;
                let end = start + next()?.unwrap_i32().cast_unsigned() as usize;
                let bytes = data.get(start..end).ok_or(Trap::MemoryOutOfBounds)?;
                match param.ty {
                    Type::Str => match text(bytes) {
                        Ok(text) => Passed::Text(text),
                        Err(errno) => return Ok(Err(errno)),
                    },
                    _ => Passed::Span(start, end),
                }
            }
        });
    }
    Ok(Ok(passed))
}

fn text(bytes: &[u8]) -> Result<String, Errno> {
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(Errno::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Errno::Invalid)?;
    Ok(text.to_owned())
}

/// Grows the guest's memory by what it maps.
struct GuestMapper<'a, 'b> {
    caller: &'a mut Caller<'b, Host>,
    memory: Memory,
}

impl Mapper for GuestMapper<'_, '_> {
    fn map(
        &mut self,
        region: &Arc<Region>,
        offset: usize,
        bytes: usize,
        access: Access,
    ) -> Result<u64, Errno> {
        let range = self.caller.data().range.clone().ok_or(Errno::Unavailable)?;
        if self.caller.data().mappings >= RANGE_MAPPINGS_MAX {
            return Err(Errno::Exhausted);
        }
        self.caller.data_mut().mappings += 1;
        // The cap is on memory of the guest's own; what it maps is its app's, and capped there.
        self.caller.data_mut().limiter.mapped_bytes += bytes;
        let pages = (bytes / REGION_UNIT_BYTES) as u64;
        let grown = self.memory.grow(&mut *self.caller, pages);
        let at = grown.map_err(|_| Errno::Exhausted)? as usize * REGION_UNIT_BYTES;
        self.caller.data_mut().maps_to_read |= access == Access::Read;
        if let Err(error) = range.map(at, region, offset, bytes, access) {
            // The guest's memory has grown for it, past what it may have of its own.
            tracing::warn!(%error, "a region could not be mapped: its guest ends");
            self.caller.data_mut().overgrown = true;
            return Err(Errno::Unavailable);
        }
        Ok(at as u64)
    }
}

/// Whether a guest wrote to what it mapped to read, which no other guest then sees.
pub(super) fn wrote_read_only(host: &Host, range: &Range) -> bool {
    host.maps_to_read && range.wrote_read_only().unwrap_or(true)
}
