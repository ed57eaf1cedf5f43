//! Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`.
//!
//! The calls as they are; `state`, `chain` and `objects` are made of them.

use core::fmt;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The function was not granted this: see `allow` in its manifest.
    Denied,
    /// There is nothing of this name.
    NotFound,
    /// An argument is out of its range or malformed.
    Invalid,
    /// Someone else was first: the version, or the lock, is another's.
    Conflict,
    /// It does not fit the buffer, or is over a limit on its size.
    TooLarge,
    /// A quota of the function, its app or the node is used up.
    Exhausted,
    /// The time to wait is over.
    TimedOut,
    /// What was asked for broke off: a function that was called failed.
    Failed,
    /// The platform could not do it, through no fault of the guest.
    Unavailable,
    /// An error that this crate is too old to know, by its number.
    Other(i64),
}

impl Error {
    /// The error of a negative answer.
    #[must_use]
    pub const fn of(code: i64) -> Self {
        match code {
            -1 => Self::Denied,
            -2 => Self::NotFound,
            -3 => Self::Invalid,
            -4 => Self::Conflict,
            -5 => Self::TooLarge,
            -6 => Self::Exhausted,
            -7 => Self::TimedOut,
            -8 => Self::Failed,
            -9 => Self::Unavailable,
            _ => Self::Other(code),
        }
    }

    /// Its number, which is negative.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::Denied => -1,
            Self::NotFound => -2,
            Self::Invalid => -3,
            Self::Conflict => -4,
            Self::TooLarge => -5,
            Self::Exhausted => -6,
            Self::TimedOut => -7,
            Self::Failed => -8,
            Self::Unavailable => -9,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Denied => "The function was not granted this: see `allow` in its manifest",
            Self::NotFound => "There is nothing of this name",
            Self::Invalid => "An argument is out of its range or malformed",
            Self::Conflict => "Someone else was first: the version, or the lock, is another's",
            Self::TooLarge => "It does not fit the buffer, or is over a limit on its size",
            Self::Exhausted => "A quota of the function, its app or the node is used up",
            Self::TimedOut => "The time to wait is over",
            Self::Failed => "What was asked for broke off: a function that was called failed",
            Self::Unavailable => "The platform could not do it, through no fault of the guest",
            Self::Other(code) => return write!(f, "error {code}"),
        })
    }
}

impl core::error::Error for Error {}

fn answer(code: i64) -> Result<u64, Error> {
    u64::try_from(code).map_err(|_| Error::of(code))
}

/// The imports themselves.
pub mod raw {
    #[link(wasm_import_module = "dunlin")]
    unsafe extern "C" {
        /// How long the request body is.
        pub fn input_size() -> i32;
        /// Copies part of the request body.
        pub fn input_read(offset: i32, out: *mut u8, out_length: i32) -> i32;
        /// Adds to the reply.
        pub fn output_write(data: *const u8, data_length: i32) -> i32;
        /// Writes one log line.
        pub fn log_write(level: i32, data: *const u8, data_length: i32);
        /// How long the value of a key is.
        pub fn state_size(key: *const u8, key_length: usize) -> i64;
        /// Copies a whole value, as of one moment. `too-large` if it does not fit: nothing is
        /// copied then.
        pub fn state_get(key: *const u8, key_length: usize, out: *mut u8, out_length: usize) -> i64;
        /// Replaces a value, creating the key if need be. Where the grant says `durable`, it is on
        /// disk when the call returns.
        pub fn state_set(
            key: *const u8,
            key_length: usize,
            value: *const u8,
            value_length: usize) -> i64;
        /// Copies part of a value.
        pub fn state_read(
            key: *const u8,
            key_length: usize,
            offset: u64,
            out: *mut u8,
            out_length: usize) -> i64;
        /// Writes part of a value, which grows if need be; a gap is zeros. Durable keys have it on
        /// disk after the next `state_push`.
        pub fn state_write(
            key: *const u8,
            key_length: usize,
            offset: u64,
            data: *const u8,
            data_length: usize) -> i64;
        /// Adds to a number of 8 bytes, little-endian, in one step: no addition is lost, whether
        /// others add by this call or by atomic instructions in a mapping. The sum wraps. A value
        /// that ends before has zeros there. Of a durable value, this is safe after the next
        /// `state_push`. `too-large` also if `out` has fewer than 8 bytes: nothing is added then.
        pub fn state_add(
            key: *const u8,
            key_length: usize,
            offset: u64,
            amount: u64,
            out: *mut u8,
            out_length: usize) -> i64;
        /// Adds to the end of a value. Appends of several functions do not mix.
        pub fn state_append(
            key: *const u8,
            key_length: usize,
            data: *const u8,
            data_length: usize) -> i64;
        /// Makes a value shorter, or longer with zeros.
        pub fn state_truncate(key: *const u8, key_length: usize, size: u64) -> i64;
        /// Removes a key. Sandboxes that have it mapped keep the bytes they see until they are
        /// reset.
        pub fn state_delete(key: *const u8, key_length: usize) -> i64;
        /// Writes the names of keys in order, each followed by a newline, as many as fit.
        pub fn state_list(
            prefix: *const u8,
            prefix_length: usize,
            after: *const u8,
            after_length: usize,
            out: *mut u8,
            out_length: usize) -> i64;
        /// The version of a value: it changes with every change, and none comes twice.
        pub fn state_version(key: *const u8, key_length: usize) -> i64;
        /// Replaces a value if nobody changed it since `expected`: compare and swap.
        pub fn state_swap(
            key: *const u8,
            key_length: usize,
            expected: u64,
            value: *const u8,
            value_length: usize) -> i64;
        /// Sets when a key goes by itself.
        pub fn state_expire(key: *const u8, key_length: usize, ttl_ms: u64) -> i64;
        /// Takes the lock of a key, which need not exist. First come, first served. It is free
        /// again when it is unlocked, when its time is over, or when the invocation ends.
        pub fn state_lock(
            key: *const u8,
            key_length: usize,
            mode: u32,
            wait_ms: u64,
            hold_ms: u64) -> i64;
        /// Gives a lock back. `not-found` if the invocation does not hold it, which may be because
        /// its time was over.
        pub fn state_unlock(key: *const u8, key_length: usize) -> i64;
        /// Makes the bytes of a value part of the sandbox's own memory, until it ends: no copy, and
        /// what one function writes, others on the node see. To write, the value is made at least
        /// `offset + len` long. A mapping to read shows the live bytes; writing to it is an error
        /// that ends the call.
        pub fn state_map(
            key: *const u8,
            key_length: usize,
            offset: u64,
            len: u64,
            mode: u32) -> i64;
        /// Makes what was written to part of a value as safe as its durability says: of a durable
        /// key, the chunks that changed are on disk when the call returns.
        pub fn state_push(key: *const u8, key_length: usize, offset: u64, len: u64) -> i64;
        /// Loads part of a value to the node, so that reading it does not wait.
        pub fn state_pull(key: *const u8, key_length: usize, offset: u64, len: u64) -> i64;
        /// Calls a function and waits until it has ended, well or badly: see `chain_size`.
        pub fn chain_call(
            function: *const u8,
            function_length: usize,
            input: *const u8,
            input_length: usize) -> i64;
        /// Starts a call and goes on. Unless it is detached, it is cancelled when the caller ends.
        pub fn chain_spawn(
            function: *const u8,
            function_length: usize,
            input: *const u8,
            input_length: usize,
            flags: u32) -> i64;
        /// Waits for a call. `failed` if it ended badly, `timed-out` if it goes on.
        pub fn chain_wait(handle: u32, wait_ms: u64) -> i64;
        /// Waits until one of several calls has ended.
        pub fn chain_wait_any(handles: *const u8, handles_length: usize, wait_ms: u64) -> i64;
        /// Waits until all of several calls have ended.
        pub fn chain_wait_all(handles: *const u8, handles_length: usize, wait_ms: u64) -> i64;
        /// How long a reply is. `failed` if the call ended badly, `timed-out` if it goes on.
        pub fn chain_size(handle: u32) -> i64;
        /// Copies part of a reply.
        pub fn chain_read(handle: u32, offset: u64, out: *mut u8, out_length: usize) -> i64;
        /// Why a call failed, as text cut to fit; nothing if it ended well.
        pub fn chain_problem(handle: u32, out: *mut u8, out_length: usize) -> i64;
        /// The invocation's id: 32 hexadecimal digits.
        pub fn chain_id(handle: u32, out: *mut u8, out_length: usize) -> i64;
        /// Forgets a call and its reply. One that still runs is cancelled, unless it is detached.
        pub fn chain_close(handle: u32) -> i64;
    }
}

/// How long the value of a key is. Gives the size in bytes.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_size(key: &str) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_size(key.as_ptr(), key.len()) })
}

/// Copies a whole value, as of one moment. `too-large` if it does not fit: nothing is copied then.
/// Gives the size in bytes, all of which were copied.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::TooLarge`].
pub fn state_get(key: &str, out: &mut [u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_get(key.as_ptr(), key.len(), out.as_mut_ptr(), out.len()) })
}

/// Replaces a value, creating the key if need be. Where the grant says `durable`, it is on disk
/// when the call returns. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_set(key: &str, value: &[u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_set(key.as_ptr(), key.len(), value.as_ptr(), value.len()) })
}

/// Copies part of a value. Gives how many bytes were copied; less than asked at the end.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_read(key: &str, offset: u64, out: &mut [u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_read(key.as_ptr(), key.len(), offset, out.as_mut_ptr(), out.len()) })
}

/// Writes part of a value, which grows if need be; a gap is zeros. Durable keys have it on disk
/// after the next `state_push`. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_write(key: &str, offset: u64, data: &[u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_write(key.as_ptr(), key.len(), offset, data.as_ptr(), data.len()) })
}

/// Adds to a number of 8 bytes, little-endian, in one step: no addition is lost, whether others add
/// by this call or by atomic instructions in a mapping. The sum wraps. A value that ends before has
/// zeros there. Of a durable value, this is safe after the next `state_push`. `too-large` also if
/// `out` has fewer than 8 bytes: nothing is added then. Gives 8, the bytes of the sum.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_add(key: &str, offset: u64, amount: u64, out: &mut [u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_add(
        key.as_ptr(),
        key.len(),
        offset,
        amount,
        out.as_mut_ptr(),
        out.len()) })
}

/// Adds to the end of a value. Appends of several functions do not mix. Gives the offset at which
/// the data begin.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_append(key: &str, data: &[u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_append(key.as_ptr(), key.len(), data.as_ptr(), data.len()) })
}

/// Makes a value shorter, or longer with zeros. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_truncate(key: &str, size: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_truncate(key.as_ptr(), key.len(), size) })
}

/// Removes a key. Sandboxes that have it mapped keep the bytes they see until they are reset. Gives
/// 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_delete(key: &str) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_delete(key.as_ptr(), key.len()) })
}

/// Writes the names of keys in order, each followed by a newline, as many as fit. Gives how many
/// bytes were written.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`].
pub fn state_list(prefix: &str, after: &str, out: &mut [u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_list(
        prefix.as_ptr(),
        prefix.len(),
        after.as_ptr(),
        after.len(),
        out.as_mut_ptr(),
        out.len()) })
}

/// The version of a value: it changes with every change, and none comes twice. Gives the version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_version(key: &str) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_version(key.as_ptr(), key.len()) })
}

/// Replaces a value if nobody changed it since `expected`: compare and swap. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::Conflict`], [`Error::TooLarge`],
/// [`Error::Exhausted`].
pub fn state_swap(key: &str, expected: u64, value: &[u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_swap(
        key.as_ptr(),
        key.len(),
        expected,
        value.as_ptr(),
        value.len()) })
}

/// Sets when a key goes by itself. Gives 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_expire(key: &str, ttl_ms: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_expire(key.as_ptr(), key.len(), ttl_ms) })
}

/// Takes the lock of a key, which need not exist. First come, first served. It is free again when
/// it is unlocked, when its time is over, or when the invocation ends. Gives 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TimedOut`], [`Error::Exhausted`].
pub fn state_lock(key: &str, mode: u32, wait_ms: u64, hold_ms: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_lock(key.as_ptr(), key.len(), mode, wait_ms, hold_ms) })
}

/// Gives a lock back. `not-found` if the invocation does not hold it, which may be because its time
/// was over. Gives 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_unlock(key: &str) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_unlock(key.as_ptr(), key.len()) })
}

/// Makes the bytes of a value part of the sandbox's own memory, until it ends: no copy, and what
/// one function writes, others on the node see. To write, the value is made at least `offset + len`
/// long. A mapping to read shows the live bytes; writing to it is an error that ends the call.
/// Gives the address of the byte at `offset`.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_map(key: &str, offset: u64, len: u64, mode: u32) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_map(key.as_ptr(), key.len(), offset, len, mode) })
}

/// Makes what was written to part of a value as safe as its durability says: of a durable key, the
/// chunks that changed are on disk when the call returns. Gives the version that is safe now.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Unavailable`].
pub fn state_push(key: &str, offset: u64, len: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_push(key.as_ptr(), key.len(), offset, len) })
}

/// Loads part of a value to the node, so that reading it does not wait. Gives the version that was
/// loaded.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Unavailable`].
pub fn state_pull(key: &str, offset: u64, len: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::state_pull(key.as_ptr(), key.len(), offset, len) })
}

/// Calls a function and waits until it has ended, well or badly: see `chain_size`. Gives a handle
/// on the reply.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Exhausted`].
pub fn chain_call(function: &str, input: &[u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_call(
        function.as_ptr(),
        function.len(),
        input.as_ptr(),
        input.len()) })
}

/// Starts a call and goes on. Unless it is detached, it is cancelled when the caller ends. Gives a
/// handle on the call.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Exhausted`].
pub fn chain_spawn(function: &str, input: &[u8], flags: u32) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_spawn(
        function.as_ptr(),
        function.len(),
        input.as_ptr(),
        input.len(),
        flags) })
}

/// Waits for a call. `failed` if it ended badly, `timed-out` if it goes on. Gives 0: it ended well.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`], [`Error::Failed`].
pub fn chain_wait(handle: u32, wait_ms: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_wait(handle, wait_ms) })
}

/// Waits until one of several calls has ended. Gives the place in the list of one that has ended.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::TimedOut`].
pub fn chain_wait_any(handles: &[u8], wait_ms: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_wait_any(handles.as_ptr(), handles.len(), wait_ms) })
}

/// Waits until all of several calls have ended. Gives how many of them failed.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::TimedOut`].
pub fn chain_wait_all(handles: &[u8], wait_ms: u64) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_wait_all(handles.as_ptr(), handles.len(), wait_ms) })
}

/// How long a reply is. `failed` if the call ended badly, `timed-out` if it goes on. Gives the size
/// of the reply in bytes.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`], [`Error::Failed`].
pub fn chain_size(handle: u32) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_size(handle) })
}

/// Copies part of a reply. Gives how many bytes were copied; less than asked at the end.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`], [`Error::Failed`].
pub fn chain_read(handle: u32, offset: u64, out: &mut [u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_read(handle, offset, out.as_mut_ptr(), out.len()) })
}

/// Why a call failed, as text cut to fit; nothing if it ended well. Gives how many bytes were
/// copied.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`].
pub fn chain_problem(handle: u32, out: &mut [u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_problem(handle, out.as_mut_ptr(), out.len()) })
}

/// The invocation's id: 32 hexadecimal digits. Gives how many bytes were copied.
///
/// # Errors
/// [`Error::NotFound`].
pub fn chain_id(handle: u32, out: &mut [u8]) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_id(handle, out.as_mut_ptr(), out.len()) })
}

/// Forgets a call and its reply. One that still runs is cancelled, unless it is detached. Gives 0.
///
/// # Errors
/// [`Error::NotFound`].
pub fn chain_close(handle: u32) -> Result<u64, Error> {
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { raw::chain_close(handle) })
}
