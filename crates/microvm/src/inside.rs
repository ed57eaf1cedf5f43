//! WebAssembly inside of a micro-VM: a runtime of our own, and code that was compiled outside.
//!
//! ```text
//!  0x0040_0000  the runtime, its heap after it
//!  0x4000_0000  what it is given: addresses, the table of host calls, the code
//!  0x6000_0000  the memory that exceptions live in
//!  0x8000_0000  the linear memory, 4 GiB of addresses and a guard; state is mapped at its end
//! 0x1_eff0_0000  (the end of) the stack, then the call's page, as of every freestanding guest
//! ```
//!
//! The runtime is a program of its own, in `inside/` of this crate, that `build.rs` builds:
//! wasmtime without a compiler. To its host it is a freestanding guest. It loads the code, makes an
//! instance and runs what is to be run once; what it then holds is the image. So nothing of a
//! module is rewritten: an instance's globals and tables are memory of the machine's as everything
//! else is.

use memory::Range;
use model::VersionSpec;
use sandbox::PrepareError;
use sandbox::host::{HostCall, Type, Walls};

use crate::elf::{Elf, ElfError};
use crate::freestanding;
use crate::layout::PAGE;
use crate::load::LoadElfError;
use crate::space::{Protection, Space, SpaceError};
use crate::standing::Standing;
use crate::view::View;

/// The runtime: an executable.
pub(crate) static RUNTIME: &[u8] = include_bytes!(env!("DUNLIN_INSIDE"));

/// Addresses of a linear memory: all that 32 bits can name, so that code need not compare.
pub const MEMORY_BYTES: u64 = 4 << 30;
/// Addresses behind a memory that stay empty: what an offset can add.
pub const GUARD_BYTES: u64 = 32 << 20;
/// Addresses of the memory that exceptions live in.
pub const ENGINE_BYTES: u64 = 64 << 20;
/// Stack that WebAssembly may use: as much as behind the other wall.
pub const WASM_STACK_BYTES: u64 = 1 << 20;

const GIVEN_AT: u64 = 0x4000_0000;
const ENGINE_AT: u64 = 0x6000_0000;
const MEMORY_AT: u64 = 0x8000_0000;
/// The same, and what the runtime itself uses on top.
pub(crate) const STACK_BYTES: u64 = WASM_STACK_BYTES + (256 << 10);
/// The version of what is given.
const GIVEN_VERSION: u64 = 1;
/// Numbers of it.
const GIVEN_WORDS: usize = 11;

const _: () = assert!(ENGINE_AT + ENGINE_BYTES + GUARD_BYTES <= MEMORY_AT);
const _: () = assert!(MEMORY_AT + MEMORY_BYTES + GUARD_BYTES <= freestanding::STACK_GUARD.start);

/// Compiles WebAssembly for the runtime: gives the code of a module, or why it cannot be a function
/// of a version. Code counts on [`MEMORY_BYTES`], [`GUARD_BYTES`] and [`ENGINE_BYTES`].
pub type Compile = dyn Fn(&VersionSpec, &[u8]) -> Result<Vec<u8>, PrepareError> + Send + Sync;

/// What the runtime is given, as bytes from [`GIVEN_AT`] on: numbers, the table, the code.
struct Given {
    head: Vec<u8>,
    code: Vec<u8>,
}

impl Given {
    fn new(table: &[HostCall], code: Vec<u8>) -> Self {
        let calls = rows(table);
        let calls_at = GIVEN_AT + (GIVEN_WORDS * 8) as u64;
        let code_at = (calls_at + calls.len() as u64).next_multiple_of(PAGE);
        let words: [u64; GIVEN_WORDS] = [
            GIVEN_VERSION,
            MEMORY_AT,
            MEMORY_BYTES,
            GUARD_BYTES,
            ENGINE_AT,
            ENGINE_BYTES,
            WASM_STACK_BYTES,
            code_at,
            code.len() as u64,
            calls_at,
            calls.len() as u64,
        ];
        let mut head: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        head.extend(calls);
        Self { head, code }
    }

    /// Bytes of its pages: those that are read only, and those of the code.
    fn pages(&self) -> (u64, u64) {
        let pages = |bytes: &[u8]| (bytes.len() as u64).next_multiple_of(PAGE);
        (pages(&self.head), pages(&self.code))
    }

    fn map(&self, memory: &Range, space: &mut Space) -> Result<(), SpaceError> {
        let (head, code) = self.pages();
        if GIVEN_AT + head + code > ENGINE_AT {
            let (asked, most) = (head + code, ENGINE_AT - GIVEN_AT);
            return Err(SpaceError::Full { asked, most });
        }
        space.map(memory, GIVEN_AT, head + code, Protection::READ_WRITE)?;
        for (at, bytes) in [(GIVEN_AT, &self.head), (GIVEN_AT + head, &self.code)] {
            let written = View::new(memory, space).write(at, bytes);
            written.map_err(|bad| SpaceError::Hole(bad.address))?;
        }
        space.protect(memory, GIVEN_AT, head, Protection::READ)
    }
}

/// The rows of a table: the length of a name and the name, whether the call maps, the number of
/// parameters, and for each 0 for a small number, 1 for a large one, 2 for an address and a length.
fn rows(table: &[HostCall]) -> Vec<u8> {
    let mut rows = Vec::new();
    for call in table {
        rows.push(call.name.len() as u8);
        rows.extend(call.name.as_bytes());
        rows.push(u8::from(call.walls == Walls::Mapped));
        rows.push(call.params.len() as u8);
        rows.extend(call.params.iter().map(|param| match param.ty {
            Type::U32 => 0,
            Type::U64 => 1,
            Type::Str | Type::Bytes | Type::Out => 2,
        }));
    }
    rows
}

/// A module that is ready to be put into a machine.
pub(crate) struct Inside {
    given: Given,
    runtime: Elf,
}

/// A runtime in a machine.
pub(crate) struct Loaded {
    pub entry: u64,
    /// What is passed to it.
    pub given: u64,
    pub standing: Standing,
}

impl Inside {
    pub fn new(table: &[HostCall], code: Vec<u8>) -> Result<Self, ElfError> {
        Ok(Self {
            given: Given::new(table, code),
            runtime: Elf::parse(RUNTIME)?,
        })
    }

    /// Bytes of frames that it begins with.
    pub fn bytes(&self) -> u64 {
        let (head, code) = self.given.pages();
        let runtime = crate::load::frames_needed(&self.runtime);
        runtime + STACK_BYTES + freestanding::EXTRA_BYTES + head + code
    }

    pub fn prepare(&self, memory: &Range, space: &mut Space) -> Result<Loaded, LoadElfError> {
        let (_, entry, heap) =
            freestanding::prepare(memory, space, &self.runtime, RUNTIME, STACK_BYTES)?;
        self.given.map(memory, space)?;
        Ok(Loaded {
            entry,
            given: GIVEN_AT,
            standing: Standing {
                heap,
                linear: Some(MEMORY_AT),
                catch: None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::host::Param;

    const PARAMS: [Param; 3] = [
        Param {
            name: "key",
            ty: Type::Str,
            doc: "",
        },
        Param {
            name: "offset",
            ty: Type::U64,
            doc: "",
        },
        Param {
            name: "mode",
            ty: Type::U32,
            doc: "",
        },
    ];

    #[test]
    fn the_runtime_is_an_executable_that_machines_take() {
        let elf = Elf::parse(RUNTIME).expect("it is one");
        assert!(!elf.movable && elf.span().end < GIVEN_AT);
    }

    #[test]
    fn rows_are_written_as_the_runtime_reads_them() {
        let call = HostCall {
            interface: "state",
            name: "state_map",
            doc: "",
            params: &PARAMS,
            result: "",
            grant: "",
            errors: &[],
            walls: Walls::Mapped,
        };
        assert_eq!(rows(&[call]), b"\x09state_map\x01\x03\x02\x01\x00");
    }

    #[test]
    fn code_begins_on_a_page_of_its_own() {
        let given = Given::new(&[], vec![7; 5000]);
        let (head, code) = given.pages();
        assert_eq!((head, code), (PAGE, 2 * PAGE));
        let word = |at: usize| u64::from_le_bytes(given.head[at * 8..][..8].try_into().unwrap());
        assert_eq!((word(7), word(8)), (GIVEN_AT + PAGE, 5000));
        assert_eq!((word(9), word(10)), (GIVEN_AT + 88, 0));
    }
}
