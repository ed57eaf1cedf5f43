//! What an engine's error says about how a guest ended.

use model::{Status, TrapKind};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::stdio::ReplyTooLong;

/// Frames of the guest's stack that a trap's message names.
const FRAMES_MAX: usize = 16;

/// The status of a guest that ended with `error`; `refused_memory` says whether it was refused
/// memory over its cap before.
pub(crate) fn status_of(error: &wasmtime::Error, refused_memory: bool) -> Status {
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return if *code == 0 {
            Status::Ok
        } else {
            Status::Exit { code: *code }
        };
    }
    if error.downcast_ref::<ReplyTooLong>().is_some() {
        return Status::OutputLimit;
    }
    if refused_memory {
        return Status::OutOfMemory;
    }
    let kind = error
        .downcast_ref::<Trap>()
        .map_or(TrapKind::Other, kind_of);
    Status::Trap {
        kind,
        message: describe(error),
    }
}

fn kind_of(trap: &Trap) -> TrapKind {
    match trap {
        Trap::UnreachableCodeReached => TrapKind::Unreachable,
        Trap::MemoryOutOfBounds | Trap::TableOutOfBounds | Trap::HeapMisaligned => {
            TrapKind::OutOfBounds
        }
        Trap::StackOverflow => TrapKind::StackOverflow,
        Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => {
            TrapKind::Arithmetic
        }
        Trap::IndirectCallToNull | Trap::BadSignature => TrapKind::BadCall,
        _ => TrapKind::Other,
    }
}

fn describe(error: &wasmtime::Error) -> String {
    let mut message = error.root_cause().to_string();
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        for frame in backtrace.frames().iter().take(FRAMES_MAX) {
            let name = frame
                .func_name()
                .map_or_else(|| format!("function {}", frame.func_index()), str::to_owned);
            message.push_str("\n  at ");
            message.push_str(&name);
        }
    }
    message
}
