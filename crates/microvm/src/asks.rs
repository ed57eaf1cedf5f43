//! What guests ask of the platform: the rows of the host's table, by number.
//!
//! Everything that a guest passes is copied: text and bytes before a call, and what a call has
//! written into a buffer after it. Addresses outside of what the guest may use so end the guest.

use std::collections::HashMap;
use std::sync::Arc;

use memory::{Access, RANGE_MAPPINGS_MAX, REGION_UNIT_BYTES, Region};
use sandbox::host::{Arg, Errno, HostCall, Mapper, Session, Type, Walls};

use crate::inside::MEMORY_BYTES;
use crate::layout::{USER_END, USER_START};
use crate::machine::Machine;
use crate::space::Protection;
use crate::standing::contiguous_end;
use crate::view::{BadAddress, View};

/// Longest text that a guest may pass.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Words that go in registers.
const WORDS_IN_REGISTERS: usize = 6;
/// Most words of a call.
const WORDS_MAX: usize = 32;

/// The rows of a table by their numbers.
pub(crate) struct Numbers(HashMap<u32, usize>);

impl Numbers {
    pub fn of(table: &[HostCall]) -> Self {
        let rows = table.iter().enumerate();
        Self(rows.map(|(index, call)| (call.number(), index)).collect())
    }

    pub fn row(&self, number: u32) -> Option<usize> {
        self.0.get(&number).copied()
    }
}

/// What the guest passed for one parameter.
enum Passed {
    U32(u32),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    /// An address, and as many zeros as the call may fill.
    Out(u64, Vec<u8>),
}

/// What a guest is told at the end of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub result: i64,
    /// Bytes that were mapped, by a call that maps.
    pub mapped: Option<u64>,
}

/// Makes the call of a row and gives what the guest is told. What it maps becomes part of the
/// memory at `linear`, if there is such.
pub(crate) async fn answer(
    machine: &mut Machine,
    session: &mut dyn Session,
    (index, call): (usize, &HostCall),
    args: [u64; 6],
    linear: Option<u64>,
) -> Result<Told, BadAddress> {
    let told = |result| Told {
        result,
        mapped: None,
    };
    let mut passed = match read_params(&machine.view(), call, args)? {
        Ok(passed) => passed,
        Err(errno) => return Ok(told(errno.code())),
    };
    let mut lowered: Vec<Arg<'_>> = passed.iter_mut().map(lower).collect();
    let mut mapped = None;
    let answer = if call.walls == Walls::Mapped {
        let mut mapper = GuestMapper {
            machine,
            linear,
            mapped: 0,
        };
        let answer = session.call(index, &mut lowered, Some(&mut mapper)).await;
        mapped = Some(mapper.mapped);
        answer
    } else {
        session.call(index, &mut lowered, None).await
    };
    drop(lowered);
    if let Ok(count) = answer
        && let Some(Passed::Out(address, bytes)) = passed.last()
    {
        // A call that fills a buffer gives the bytes that there are, which may be more.
        let filled = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        machine.view().write(*address, &bytes[..filled])?;
    }
    let result = match answer {
        Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
        Err(errno) => errno.code(),
    };
    Ok(Told { result, mapped })
}

fn lower(passed: &mut Passed) -> Arg<'_> {
    match passed {
        Passed::U32(number) => Arg::U32(*number),
        Passed::U64(number) => Arg::U64(*number),
        Passed::Text(text) => Arg::Str(text),
        Passed::Bytes(bytes) => Arg::Bytes(bytes),
        Passed::Out(_, bytes) => Arg::Out(bytes.as_mut_slice().into()),
    }
}

fn words_of(ty: Type) -> usize {
    match ty {
        Type::U32 | Type::U64 => 1,
        Type::Str | Type::Bytes | Type::Out => 2,
    }
}

/// The words of a call: in registers, or where the first points to if they are too many.
fn words(view: &View<'_>, call: &HostCall, args: [u64; 6]) -> Result<Vec<u64>, BadAddress> {
    let count: usize = call.params.iter().map(|param| words_of(param.ty)).sum();
    if count <= WORDS_IN_REGISTERS {
        return Ok(args[..count].to_vec());
    }
    let bytes = view.copy(args[0], count.min(WORDS_MAX) * 8)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

fn read_params(
    view: &View<'_>,
    call: &HostCall,
    args: [u64; 6],
) -> Result<Result<Vec<Passed>, Errno>, BadAddress> {
    let words = words(view, call, args)?;
    let mut words = words.into_iter();
    let mut next = || words.next().unwrap_or_default();
    let mut passed = Vec::with_capacity(call.params.len());
    for param in call.params {
        let first = next();
        passed.push(match param.ty {
            Type::U32 => Passed::U32(first as u32),
            Type::U64 => Passed::U64(first),
            Type::Str => match text(view, first, next())? {
                Ok(text) => Passed::Text(text),
                Err(errno) => return Ok(Err(errno)),
            },
            Type::Bytes => Passed::Bytes(view.copy(first, length(next()))?),
            Type::Out => {
                let bytes = length(next());
                view.check(first, bytes, Protection::READ_WRITE)?;
                Passed::Out(first, vec![0; bytes])
            }
        });
    }
    Ok(Ok(passed))
}

/// A length that no address space has stands for every one that is too long.
fn length(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

fn text(view: &View<'_>, at: u64, bytes: u64) -> Result<Result<String, Errno>, BadAddress> {
    view.check(at, length(bytes), Protection::READ)?;
    if bytes > TEXT_BYTES_MAX as u64 {
        return Ok(Err(Errno::TooLarge));
    }
    let copy = view.copy(at, length(bytes))?;
    Ok(String::from_utf8(copy).map_err(|_| Errno::Invalid))
}

/// Maps regions into a gap of the guest's addresses, or behind a memory of its own.
struct GuestMapper<'a> {
    machine: &'a mut Machine,
    linear: Option<u64>,
    mapped: u64,
}

impl GuestMapper<'_> {
    fn place(&self, bytes: u64) -> Option<u64> {
        let space = &self.machine.space;
        let Some(start) = self.linear else {
            return space.gap(USER_START..USER_END, bytes, true);
        };
        let end = contiguous_end(space, start);
        (end + bytes <= start + MEMORY_BYTES).then_some(end)
    }
}

impl Mapper for GuestMapper<'_> {
    fn map(
        &mut self,
        region: &Arc<Region>,
        offset: usize,
        bytes: usize,
        access: Access,
    ) -> Result<u64, Errno> {
        if self.machine.regions() >= RANGE_MAPPINGS_MAX || !bytes.is_multiple_of(REGION_UNIT_BYTES)
        {
            return Err(Errno::Exhausted);
        }
        let at = self.place(bytes as u64).ok_or(Errno::Exhausted)?;
        let mapped = self.machine.map_region(at, region, offset, bytes, access);
        mapped.map_err(|error| {
            tracing::warn!(%error, "a region could not be mapped into a micro-VM");
            Errno::Unavailable
        })?;
        self.mapped = bytes as u64;
        Ok(at)
    }
}
