//! The calls between a reactor function and its node, for Rust on `wasm32-wasip1`.
//!
//! A reactor is a `cdylib` that exports `handle`, run for every invocation in a fresh sandbox, and
//! may export `init`, run once at deploy: its work is part of the image that every invocation
//! starts from. [`reactor!`] writes both exports.
//!
//! ```ignore
//! dunlin::reactor!(handle = shout);
//!
//! fn shout() -> Result<(), i32> {
//!     dunlin::output(dunlin::input().to_ascii_uppercase().as_slice()).map_err(|_| 1)
//! }
//! ```
//!
//! [`state`] shares bytes with the other functions of the app, [`chain`] calls functions, and
//! [`objects`] are counters, matrices, lists and dictionaries that functions share without copies.
//! [`calls`] has the calls that they are made of.

extern crate alloc;

#[rustfmt::skip]
pub mod calls;
pub mod chain;
pub mod objects;
pub mod state;

use std::fmt;

pub use calls::Error;
use calls::raw;

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i32)]
pub enum Level {
    /// The invocation failed.
    Error = 0,
    /// Something is not as it should be.
    Warn = 1,
    /// Something worth knowing happened.
    Info = 2,
    /// Of interest only to who wrote the function.
    Debug = 3,
}

/// The reply would have passed the function's output limit; nothing of this write was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutputFull;

impl fmt::Display for OutputFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reply is over the output limit")
    }
}

impl std::error::Error for OutputFull {}

/// The whole body of the request.
#[must_use]
pub fn input() -> Vec<u8> {
    // SAFETY: it only gives a number.
    let size = unsafe { raw::input_size() };
    let mut body = Vec::with_capacity(size as usize);
    // SAFETY: the vector has room for `size` bytes, and the node fills the first `count` of them.
    unsafe {
        let count = raw::input_read(0, body.as_mut_ptr(), size);
        body.set_len(count as usize);
    }
    body
}

/// Appends to the reply.
///
/// # Errors
/// [`OutputFull`] when the reply would pass the output limit.
pub fn output(bytes: &[u8]) -> Result<(), OutputFull> {
    // SAFETY: the node only reads, and only the slice's own bytes. No slice here reaches 2 GiB.
    match unsafe { raw::output_write(bytes.as_ptr(), bytes.len() as i32) } {
        0 => Ok(()),
        _ => Err(OutputFull),
    }
}

/// Writes one line to the function's log.
pub fn log(level: Level, line: &str) {
    // SAFETY: the node only reads, and only the string's own bytes.
    unsafe { raw::log_write(level as i32, line.as_ptr(), line.len() as i32) }
}

/// Exports functions of `() -> Result<(), i32>` as the reactor's `handle` and, if given, `init`;
/// an error is the function's own code.
#[macro_export]
macro_rules! reactor {
    (handle = $handle:path $(, init = $init:path)? $(,)?) => {
        #[unsafe(export_name = "handle")]
        extern "C" fn __dunlin_handle() -> i32 {
            ::std::result::Result::err($handle()).unwrap_or(0)
        }
        $(
            #[unsafe(export_name = "init")]
            extern "C" fn __dunlin_init() -> i32 {
                ::std::result::Result::err($init()).unwrap_or(0)
            }
        )?
    };
}
