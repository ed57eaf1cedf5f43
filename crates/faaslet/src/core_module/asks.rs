//! What guests ask of the platform: the rows of the host's table as imports of `dunlin`.
//!
//! What a guest passes is read where it lies in its memory. Only what overlaps the buffer that the
//! call fills is copied out before, and what a call passes that may change the memory itself.

use std::future::ready;
use std::ops::Range as Span;
use std::sync::Arc;

use memory::{Access, Out, RANGE_MAPPINGS_MAX, REGION_UNIT_BYTES, Range, Region};
use sandbox::host::{Arg, Errno, HostCall, Mapper, Session, Type, Walls};
use smallvec::SmallVec;
use wasmtime::{Caller, Linker, Memory, Trap, WasmTyList};

use super::host::{DUNLIN, Host, memory};

/// Longest text that a guest may pass.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Parameters that are taken apart without an allocation: no call has more.
const PARAMS: usize = 4;
/// The same of Wasm's own values.
const WORDS: usize = 6;

/// Offers the calls of `table`.
pub(super) fn add_asks(
    linker: &mut Linker<Host>,
    table: &'static [HostCall],
) -> wasmtime::Result<()> {
    table
        .iter()
        .enumerate()
        .try_for_each(|(index, call)| add(linker, index, call))
}

/// Adds a call as a function of its shape: `i` is an `i32`, `I` an `i64`.
fn add(linker: &mut Linker<Host>, index: usize, call: &'static HostCall) -> wasmtime::Result<()> {
    let shape: String = call.params.iter().map(|param| shape_of(param.ty)).collect();
    match shape.as_str() {
        "i" => wrap::<(i32,)>(linker, index, call),
        "iI" => wrap::<(i32, i64)>(linker, index, call),
        "ii" => wrap::<(i32, i32)>(linker, index, call),
        "iii" => wrap::<(i32, i32, i32)>(linker, index, call),
        "iiI" => wrap::<(i32, i32, i64)>(linker, index, call),
        "iIii" => wrap::<(i32, i64, i32, i32)>(linker, index, call),
        "iiII" => wrap::<(i32, i32, i64, i64)>(linker, index, call),
        "iiii" => wrap::<(i32, i32, i32, i32)>(linker, index, call),
        "iiIii" => wrap::<(i32, i32, i64, i32, i32)>(linker, index, call),
        "iiIIi" => wrap::<(i32, i32, i64, i64, i32)>(linker, index, call),
        "iiiII" => wrap::<(i32, i32, i32, i64, i64)>(linker, index, call),
        "iiiii" => wrap::<(i32, i32, i32, i32, i32)>(linker, index, call),
        "iiIIii" => wrap::<(i32, i32, i64, i64, i32, i32)>(linker, index, call),
        "iiiiii" => wrap::<(i32, i32, i32, i32, i32, i32)>(linker, index, call),
        _ => Err(wasmtime::Error::msg(format!(
            "no function has the shape of {}",
            call.name
        ))),
    }
}

const fn shape_of(ty: Type) -> &'static str {
    match ty {
        Type::U32 => "i",
        Type::U64 => "I",
        Type::Str | Type::Bytes | Type::Out => "ii",
    }
}

fn wrap<P>(linker: &mut Linker<Host>, index: usize, call: &'static HostCall) -> wasmtime::Result<()>
where
    P: WasmTyList + Into<Words> + 'static,
{
    linker.func_wrap_async(DUNLIN, call.name, move |caller, params: P| {
        begin(caller, index, call, params.into())
    })?;
    Ok(())
}

type Asking<'a> = Box<dyn Future<Output = wasmtime::Result<i64>> + Send + 'a>;

/// What a guest passed, as Wasm's own values.
struct Words(SmallVec<[u64; WORDS]>);

/// A value as a word.
trait Word {
    fn word(self) -> u64;
}

impl Word for i32 {
    fn word(self) -> u64 {
        self.cast_unsigned().into()
    }
}

impl Word for i64 {
    fn word(self) -> u64 {
        self.cast_unsigned()
    }
}

macro_rules! words {
    ($($name:ident)+) => {
        impl<$($name: Word),+> From<($($name,)+)> for Words {
            fn from(params: ($($name,)+)) -> Self {
                #[expect(non_snake_case, reason = "named after their types")]
                let ($($name,)+) = params;
                Self(SmallVec::from_iter([$($name.word()),+]))
            }
        }
    };
}

words!(A);
words!(A B);
words!(A B C);
words!(A B C D);
words!(A B C D E);
words!(A B C D E F);

fn take_session(host: &mut Host) -> Option<Box<dyn Session>> {
    let begun = host.session.take();
    begun.or_else(|| host.asks.take().map(|asks| asks.host.session(asks.guest)))
}

fn code_of(answer: Result<u64, Errno>) -> i64 {
    match answer {
        Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
        Err(errno) => errno.code(),
    }
}

/// Asks; what needs no waiting is answered by now.
fn begin<'a>(
    mut caller: Caller<'a, Host>,
    index: usize,
    call: &'static HostCall,
    words: Words,
) -> Asking<'a> {
    // Taken out, so that it and the guest's memory can be borrowed side by side.
    let Some(mut session) = take_session(caller.data_mut()) else {
        // Initialisation at deploy, which has no platform to ask.
        return Box::new(ready(Ok(Errno::Unavailable.code())));
    };
    match at_once(&mut caller, session.as_mut(), index, call, &words) {
        Ok(None) => Box::new(wait(caller, session, index, call, words)),
        Ok(Some(answer)) => {
            caller.data_mut().session = Some(session);
            Box::new(ready(Ok(code_of(answer))))
        }
        Err(trap) => Box::new(ready(Err(trap))),
    }
}

/// The answer, if it needs no waiting.
fn at_once(
    caller: &mut Caller<'_, Host>,
    session: &mut dyn Session,
    index: usize,
    call: &HostCall,
    words: &Words,
) -> wasmtime::Result<Option<Result<u64, Errno>>> {
    let memory = memory(caller)?;
    let data = memory.data_mut(caller);
    let passed = read_params(data.len(), call, words)?;
    if call.walls == Walls::Mapped {
        return Ok(None);
    }
    let copies = overlapping(data, &passed);
    Ok(match lower(data, &passed, &copies, None) {
        Ok(mut args) => session.at_once(index, &mut args),
        Err(errno) => Some(Err(errno)),
    })
}

async fn wait(
    mut caller: Caller<'_, Host>,
    mut session: Box<dyn Session>,
    index: usize,
    call: &'static HostCall,
    words: Words,
) -> wasmtime::Result<i64> {
    let answer = answer(&mut caller, session.as_mut(), index, call, &words).await?;
    if caller.data().overgrown {
        return Err(wasmtime::Error::msg("its state could not be mapped"));
    }
    caller.data_mut().session = Some(session);
    Ok(code_of(answer))
}

async fn answer(
    caller: &mut Caller<'_, Host>,
    session: &mut dyn Session,
    index: usize,
    call: &HostCall,
    words: &Words,
) -> wasmtime::Result<Result<u64, Errno>> {
    let memory = memory(caller)?;
    let range = caller.data().range.clone();
    let data = memory.data_mut(&mut *caller);
    let passed = read_params(data.len(), call, words)?;
    if call.walls == Walls::Mapped {
        // It fills no buffer, and all that it passes is out of the memory that it changes.
        let copies = copied(data, &passed, |_| true);
        let mut args = match lower(&mut [], &passed, &copies, None) {
            Ok(args) => args,
            Err(errno) => return Ok(Err(errno)),
        };
        let mut mapper = GuestMapper { caller, memory };
        return Ok(session.call(index, &mut args, Some(&mut mapper)).await);
    }
    let copies = overlapping(data, &passed);
    Ok(match lower(data, &passed, &copies, range.as_ref()) {
        Ok(mut args) => session.call(index, &mut args, None).await,
        Err(errno) => Err(errno),
    })
}

/// What the guest passed for one parameter; spans lie within its memory.
enum Passed {
    U32(u32),
    U64(u64),
    Text(Span<usize>),
    Bytes(Span<usize>),
    Out(Span<usize>),
}

/// Checks everything that the guest passed against its memory of `bytes`: what lies outside traps.
fn read_params(
    bytes: usize,
    call: &HostCall,
    words: &Words,
) -> Result<SmallVec<[Passed; PARAMS]>, Trap> {
    let mut words = words.0.iter().copied();
    let mut next = || words.next().ok_or(Trap::MemoryOutOfBounds);
    let mut passed = SmallVec::new();
    for param in call.params {
        let first = next()?;
        let mut span = || {
            // Words of 32 bits, of which two make no overflow.
            let (start, length) = (first as usize, next()? as usize);
            let span = start..start + length;
            (span.end <= bytes)
                .then_some(span)
                .ok_or(Trap::MemoryOutOfBounds)
        };
        passed.push(match param.ty {
            Type::U32 => Passed::U32(first as u32),
            Type::U64 => Passed::U64(first),
            Type::Str => Passed::Text(span()?),
            Type::Bytes => Passed::Bytes(span()?),
            Type::Out => Passed::Out(span()?),
        });
    }
    Ok(passed)
}

/// Copies of parameters, by their places.
type Copies = Vec<(usize, Vec<u8>)>;

/// Copies of what overlaps the buffer that the call fills.
fn overlapping(data: &[u8], passed: &[Passed]) -> Copies {
    match passed.last() {
        Some(Passed::Out(out)) => copied(data, passed, |span| {
            span.start < out.end && out.start < span.end
        }),
        _ => Copies::new(),
    }
}

fn copied(data: &[u8], passed: &[Passed], which: impl Fn(&Span<usize>) -> bool) -> Copies {
    let copy = |(at, passed): (usize, &Passed)| match passed {
        // Of what is too long, enough is copied to see that it is.
        Passed::Text(span) if which(span) => {
            let bytes = &data[span.clone()];
            Some((at, bytes[..bytes.len().min(TEXT_BYTES_MAX + 1)].to_vec()))
        }
        Passed::Bytes(span) if which(span) => Some((at, data[span.clone()].to_vec())),
        _ => None,
    };
    passed.iter().enumerate().filter_map(copy).collect()
}

/// The arguments, where they lie in the guest's memory or among the copies. Parts of a buffer can
/// be lent if it is known in which range that memory lies.
fn lower<'a>(
    data: &'a mut [u8],
    passed: &[Passed],
    copies: &'a Copies,
    range: Option<&Arc<Range>>,
) -> Result<SmallVec<[Arg<'a>; PARAMS]>, Errno> {
    let filled = match passed.last() {
        Some(Passed::Out(span)) => span.clone(),
        _ => data.len()..data.len(),
    };
    let (before, rest) = data
        .split_at_mut_checked(filled.start)
        .ok_or(Errno::Invalid)?;
    let (out, after) = rest
        .split_at_mut_checked(filled.len())
        .ok_or(Errno::Invalid)?;
    let (before, mut out, after) = (&*before, Some(out), &*after);
    let bytes_of = |at: usize, span: &Span<usize>| {
        if let Some((_, copy)) = copies.iter().find(|(of, _)| *of == at) {
            return Ok(copy.as_slice());
        }
        let found = match span.end <= filled.start {
            true => before.get(span.clone()),
            false => {
                let start = span.start.saturating_sub(filled.end);
                after.get(start..start + span.len())
            }
        };
        found.ok_or(Errno::Invalid)
    };
    let mut args = SmallVec::new();
    for (at, passed) in passed.iter().enumerate() {
        args.push(match passed {
            Passed::U32(number) => Arg::U32(*number),
            Passed::U64(number) => Arg::U64(*number),
            Passed::Text(span) => Arg::Str(text(bytes_of(at, span)?)?),
            Passed::Bytes(span) => Arg::Bytes(bytes_of(at, span)?),
            Passed::Out(_) => {
                let out = out.take().ok_or(Errno::Invalid)?;
                Arg::Out(match range {
                    // SAFETY: it is an argument of a call that waits on the guest's own stack.
                    // Whoever forgets that forgets the guest with it, and its memory stays.
                    Some(range) => unsafe { Out::of_range(out, range) },
                    None => out.into(),
                })
            }
        });
    }
    Ok(args)
}

fn text(bytes: &[u8]) -> Result<&str, Errno> {
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(Errno::TooLarge);
    }
    std::str::from_utf8(bytes).map_err(|_| Errno::Invalid)
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

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Type = Type::Out;

    /// What the call sees of text at `text` and of a buffer at `out`, in a memory of 16 letters.
    fn seen(text: Span<usize>, out: Span<usize>) -> Result<(String, usize), Errno> {
        let mut data = *b"abcdefghijklmnop";
        let passed = [Passed::Text(text), Passed::Out(out)];
        let copies = overlapping(&data, &passed);
        let args = lower(&mut data, &passed, &copies, None)?;
        match args.as_slice() {
            [Arg::Str(text), Arg::Out(out)] => Ok(((*text).to_owned(), out.len())),
            _ => unreachable!("two went in"),
        }
    }

    #[test]
    fn text_is_seen_wherever_the_buffer_is() {
        let check = |text: Span<usize>, out: Span<usize>| {
            let wanted = "abcdefghijklmnop"[text.clone()].to_owned();
            assert_eq!(seen(text, out.clone()), Ok((wanted, out.len())));
        };
        check(0..3, 8..16);
        check(12..16, 0..12);
        check(0..8, 8..8);
        check(4..4, 0..16);
        check(2..10, 4..6);
        check(4..6, 2..10);
        check(0..16, 0..16);
        check(16..16, 16..16);
    }

    #[test]
    fn what_lies_outside_of_the_memory_traps() {
        let call = HostCall {
            interface: "test",
            name: "test_read",
            doc: "",
            params: &[sandbox::host::Param {
                name: "to",
                ty: OUT,
                doc: "",
            }],
            result: "",
            grant: "",
            errors: &[],
            walls: Walls::All,
        };
        let check = |start: u32, length: u32, fits: bool| {
            let words = Words::from((start.cast_signed(), length.cast_signed()));
            assert_eq!(
                read_params(16, &call, &words).is_ok(),
                fits,
                "{start}+{length}"
            );
        };
        check(0, 16, true);
        check(16, 0, true);
        check(16, 1, false);
        check(u32::MAX, u32::MAX, false);
        check(0, u32::MAX, false);
    }
}
