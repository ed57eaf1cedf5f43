//! What components ask of the platform: the rows of the host's table as functions of
//! `dunlin:platform`.
//!
//! A typed function exists for each shape of parameters, so that lists of bytes are copied once
//! and not value by value; a row of a new shape needs a line in [`add`].

use memory::Out;
use sandbox::host::{Arg, Errno, HostCall, Type, Walls};
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Component, ComponentNamedList, ComponentType, Lift, Linker, LinkerInstance, Lower,
};

use super::guest::Guest;

/// The package of the interfaces.
const PACKAGE: &str = "dunlin:platform/";
/// Its version.
const VERSION: &str = "0.1.0";
/// Most bytes that one call returns.
const OUT_BYTES_MAX: usize = 64 << 20;

/// `dunlin:platform/types.errno`.
#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
enum WitErrno {
    #[component(name = "denied")]
    Denied,
    #[component(name = "not-found")]
    NotFound,
    #[component(name = "invalid")]
    Invalid,
    #[component(name = "conflict")]
    Conflict,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "exhausted")]
    Exhausted,
    #[component(name = "timed-out")]
    TimedOut,
    #[component(name = "failed")]
    Failed,
    #[component(name = "unavailable")]
    Unavailable,
}

impl From<Errno> for WitErrno {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::Denied => Self::Denied,
            Errno::NotFound => Self::NotFound,
            Errno::Invalid => Self::Invalid,
            Errno::Conflict => Self::Conflict,
            Errno::TooLarge => Self::TooLarge,
            Errno::Exhausted => Self::Exhausted,
            Errno::TimedOut => Self::TimedOut,
            Errno::Failed => Self::Failed,
            Errno::Unavailable => Self::Unavailable,
        }
    }
}

/// Whether `component` imports anything of the platform.
pub(super) fn imported(component: &Component) -> bool {
    let ty = component.component_type();
    ty.imports(component.engine())
        .any(|(name, _)| name.starts_with(PACKAGE))
}

/// Offers the calls of `table` that need no mapping.
pub(super) fn add_asks(
    linker: &mut Linker<Guest>,
    table: &'static [HostCall],
) -> wasmtime::Result<()> {
    for (index, call) in table.iter().enumerate() {
        if call.walls == Walls::Mapped {
            continue;
        }
        let mut interface = linker.instance(&format!("{PACKAGE}{}@{VERSION}", call.interface))?;
        add(&mut interface, index, call)?;
    }
    Ok(())
}

/// The call's name in its interface.
fn function(call: &HostCall) -> String {
    let name = call.name.strip_prefix(call.interface).unwrap_or(call.name);
    name.trim_start_matches('_').replace('_', "-")
}

fn add(
    interface: &mut LinkerInstance<'_, Guest>,
    index: usize,
    call: &'static HostCall,
) -> wasmtime::Result<()> {
    use Type::{Bytes, Out, Str, U32, U64};
    let types: Vec<Type> = call.params.iter().map(|param| param.ty).collect();
    match types.as_slice() {
        [Str] => number::<(String,)>(interface, index, call),
        [U32] => number::<(u32,)>(interface, index, call),
        [Str, U64] => number::<(String, u64)>(interface, index, call),
        [Str, U64, U64] => number::<(String, u64, u64)>(interface, index, call),
        [Str, U32, U64, U64] => number::<(String, u32, u64, u64)>(interface, index, call),
        [Str, Bytes] => number::<(String, Vec<u8>)>(interface, index, call),
        [Str, Bytes, U32] => number::<(String, Vec<u8>, u32)>(interface, index, call),
        [Str, U64, Bytes] => number::<(String, u64, Vec<u8>)>(interface, index, call),
        [U32, U64] => number::<(u32, u64)>(interface, index, call),
        [Bytes, U64] => number::<(Vec<u8>, u64)>(interface, index, call),
        [Str, Out] => bytes::<(String, u32)>(interface, index, call),
        [Str, U64, Out] => bytes::<(String, u64, u32)>(interface, index, call),
        [Str, U64, U64, Out] => bytes::<(String, u64, u64, u32)>(interface, index, call),
        [Str, Str, Out] => bytes::<(String, String, u32)>(interface, index, call),
        [U32, Out] => bytes::<(u32, u32)>(interface, index, call),
        [U32, U64, Out] => bytes::<(u32, u64, u32)>(interface, index, call),
        _ => Err(wasmtime::Error::msg(format!(
            "no function has the shape of {}",
            call.name
        ))),
    }
}

/// Adds a call that results in a number.
fn number<P>(
    interface: &mut LinkerInstance<'_, Guest>,
    index: usize,
    call: &'static HostCall,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + Passed + Send + Sync + 'static,
{
    interface.func_wrap_async(
        &function(call),
        move |mut store: StoreContextMut<'_, Guest>, params: P| {
            Box::new(async move {
                let passed = params.passed();
                let mut args: Vec<Arg<'_>> = passed.iter().map(Piece::arg).collect();
                let answer = ask(&mut store, index, &mut args).await;
                Ok((answer.map_err(WitErrno::from),))
            })
        },
    )
}

/// Adds a call that fills a buffer.
fn bytes<P>(
    interface: &mut LinkerInstance<'_, Guest>,
    index: usize,
    call: &'static HostCall,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lift + Passed + Send + Sync + 'static,
{
    interface.func_wrap_async(
        &function(call),
        move |mut store: StoreContextMut<'_, Guest>, params: P| {
            Box::new(async move {
                let mut passed = params.passed();
                let bytes_max = match passed.pop() {
                    Some(Piece::U32(bytes_max)) => bytes_max as usize,
                    _ => 0,
                };
                if bytes_max > OUT_BYTES_MAX {
                    return Ok((Err(WitErrno::TooLarge),));
                }
                let mut args: Vec<Arg<'_>> = passed.iter().map(Piece::arg).collect();
                args.push(Arg::Out(Out::of_zeros(bytes_max)));
                let answer = ask(&mut store, index, &mut args).await;
                let mut buffer = match args.pop() {
                    Some(Arg::Out(out)) => out.into_vec(),
                    _ => Vec::new(),
                };
                Ok((match answer {
                    Ok(filled) => {
                        buffer.truncate(usize::try_from(filled).unwrap_or(usize::MAX));
                        Ok(buffer)
                    }
                    Err(errno) => Err(WitErrno::from(errno)),
                },))
            })
        },
    )
}

async fn ask(
    store: &mut StoreContextMut<'_, Guest>,
    index: usize,
    args: &mut [Arg<'_>],
) -> Result<u64, Errno> {
    let session = store.data_mut().take_session();
    let mut session = session.ok_or(Errno::Unavailable)?;
    let answer = session.call(index, args, None).await;
    store.data_mut().give_session(session);
    answer
}

/// What a component passed for one parameter.
enum Piece {
    U32(u32),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Piece {
    fn arg(&self) -> Arg<'_> {
        match self {
            Piece::U32(number) => Arg::U32(*number),
            Piece::U64(number) => Arg::U64(*number),
            Piece::Text(text) => Arg::Str(text),
            Piece::Bytes(bytes) => Arg::Bytes(bytes),
        }
    }
}

impl From<u32> for Piece {
    fn from(number: u32) -> Self {
        Piece::U32(number)
    }
}

impl From<u64> for Piece {
    fn from(number: u64) -> Self {
        Piece::U64(number)
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Piece::Text(text)
    }
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Piece::Bytes(bytes)
    }
}

/// Parameters as a list.
trait Passed {
    fn passed(self) -> Vec<Piece>;
}

macro_rules! passed {
    ($($name:ident)+) => {
        impl<$($name: Into<Piece>),+> Passed for ($($name,)+) {
            fn passed(self) -> Vec<Piece> {
                #[expect(non_snake_case, reason = "named after their types")]
                let ($($name,)+) = self;
                vec![$($name.into()),+]
            }
        }
    };
}

passed!(A);
passed!(A B);
passed!(A B C);
passed!(A B C D);
