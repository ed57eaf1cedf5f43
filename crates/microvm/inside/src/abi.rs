//! What the runtime and its host agree on: `crate::abi` and `crate::inside` of `microvm` have the
//! same, with reasons.

use core::arch::asm;
use core::slice;

/// What the host gives, at the address in rdi.
#[repr(C)]
pub struct Given {
    version: u64,
    /// Where the linear memory goes, the addresses that are its own, and those behind it that stay
    /// empty.
    pub memory_at: u64,
    pub memory_bytes: u64,
    pub guard_bytes: u64,
    /// The same of the memory that exceptions live in.
    pub engine_at: u64,
    pub engine_bytes: u64,
    /// Bytes of stack that WebAssembly may use.
    pub stack_bytes: u64,
    code_at: u64,
    code_bytes: u64,
    calls_at: u64,
    calls_bytes: u64,
}

/// The version of all this.
pub const VERSION: u64 = 1;

impl Given {
    /// Whether it is of the form that is read here.
    pub fn is_known(&self) -> bool {
        self.version == VERSION
    }

    /// The code, compiled outside.
    pub fn code(&self) -> *mut [u8] {
        core::ptr::slice_from_raw_parts_mut(self.code_at as *mut u8, self.code_bytes as usize)
    }

    /// The rows of the table of host calls.
    pub fn calls(&self) -> &'static [u8] {
        // SAFETY: the host maps it before the first instruction, and nothing writes to it.
        unsafe { slice::from_raw_parts(self.calls_at as *const u8, self.calls_bytes as usize) }
    }
}

/// The page that a call begins with.
#[repr(C)]
pub struct CallPage {
    version: u64,
    pub input_size: u64,
    pub input_here: u64,
    pub input_at: u64,
    pub output_at: u64,
    pub output_max: u64,
    pub output_used: u64,
    pub log_at: u64,
    pub log_max: u64,
    pub log_used: u64,
}

/// Kinds of traps, as the host numbers them.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum TrapKind {
    Unreachable = 0,
    OutOfBounds = 1,
    StackOverflow = 2,
    Arithmetic = 3,
    BadCall = 4,
    Other = 5,
}

/// What a page may be used for.
pub const NONE: u64 = 0;
pub const READ_WRITE: u64 = 3;
pub const READ_EXECUTE: u64 = 5;

const NEXT: u32 = number_of("vm_next");
const EXIT: u32 = number_of("vm_exit");
const GROW: u32 = number_of("vm_grow");
const MAP: u32 = number_of("vm_map");
const CATCH: u32 = number_of("vm_catch");
const TRAP: u32 = number_of("vm_trap");
const INPUT_READ: u32 = number_of("input_read");
const OUTPUT_WRITE: u32 = number_of("output_write");
const LOG_WRITE: u32 = number_of("log_write");

/// The number of the call `name`: its FNV-1a hash in 32 bits.
pub const fn number_of(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

/// Leaves the machine for its host. Gives the result, and how many bytes the call has mapped.
pub fn ask(number: u32, args: [u64; 6]) -> (i64, u64) {
    let (mut result, mut mapped) = (u64::from(number), args[2]);
    // SAFETY: the host returns to the next instruction; it reads and writes only memory that an
    // argument names, and changes no other register.
    unsafe {
        asm!(
            "out 0xd0, eax",
            inout("rax") result,
            inout("rdx") mapped,
            in("rdi") args[0],
            in("rsi") args[1],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            options(nostack),
        );
    }
    (result as i64, mapped)
}

fn plain(number: u32, args: &[u64]) -> i64 {
    let mut words = [0; 6];
    words[..args.len()].copy_from_slice(args);
    ask(number, words).0
}

/// Ends a call with `code`, and waits for the next.
pub fn next(code: i32) -> *mut CallPage {
    plain(NEXT, &[i64::from(code) as u64]) as *mut CallPage
}

/// Ends the call for good.
pub fn exit(code: i32) -> ! {
    plain(EXIT, &[i64::from(code) as u64]);
    stuck()
}

/// Ends the call as a trap.
pub fn trap(kind: TrapKind, message: &str) -> ! {
    plain(
        TRAP,
        &[kind as u64, message.as_ptr() as u64, message.len() as u64],
    );
    stuck()
}

/// Adds `bytes` to the heap; gives its new end.
pub fn grow(bytes: usize) -> Option<usize> {
    usize::try_from(plain(GROW, &[bytes as u64])).ok()
}

/// Gives pages `rights`: zeros where there was nothing, nothing where there are none.
pub fn map(at: usize, bytes: usize, rights: u64) -> bool {
    plain(MAP, &[at as u64, bytes as u64, rights]) == 0
}

/// Has faults of instructions from `start` to `end` go on at `handler`.
pub fn catch(handler: usize, start: usize, end: usize) -> bool {
    plain(CATCH, &[handler as u64, start as u64, end as u64]) == 0
}

/// Copies from the request.
pub fn input_read(offset: u64, at: *mut u8, bytes: u64) -> i64 {
    plain(INPUT_READ, &[offset, at as u64, bytes])
}

/// Adds to the reply.
pub fn output_write(data: &[u8]) -> i64 {
    plain(OUTPUT_WRITE, &[data.as_ptr() as u64, data.len() as u64])
}

/// Writes a log line.
pub fn log_write(level: u32, line: &[u8]) {
    plain(
        LOG_WRITE,
        &[level.into(), line.as_ptr() as u64, line.len() as u64],
    );
}

/// The host does not come back from what ends a call.
fn stuck() -> ! {
    loop {
        // SAFETY: an undefined instruction is a fault, which ends the call.
        unsafe { asm!("ud2", options(noreturn)) }
    }
}
