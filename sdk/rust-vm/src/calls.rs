//! Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`.
//!
//! The calls as they are; `state` is made of them.

use core::fmt;

use crate::machine::ask;

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

/// Numbers of the calls that the machine itself and the payload have.
pub(crate) mod number {
    pub const VM_NEXT: u32 = 0xcea29254;
    pub const VM_EXIT: u32 = 0xf7c787e9;
    pub const VM_GROW: u32 = 0xeef6cf96;
    pub const VM_TRAP: u32 = 0xa906498e;
    pub const INPUT_READ: u32 = 0xf17c39e0;
    pub const OUTPUT_WRITE: u32 = 0x34c03aa8;
    pub const LOG_WRITE: u32 = 0xa64f68b5;
}

/// How long the value of a key is. Gives the size in bytes.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_size(key: &str) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, 0, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xf09f1e6a, args) })
}

/// Copies a whole value, as of one moment. `too-large` if it does not fit: nothing is copied then.
/// Gives the size in bytes, all of which were copied.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::TooLarge`].
pub fn state_get(key: &str, out: &mut [u8]) -> Result<u64, Error> {
    let args = [
        key.as_ptr() as u64,
        key.len() as u64,
        out.as_mut_ptr() as u64,
        out.len() as u64,
        0,
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x54187b45, args) })
}

/// Replaces a value, creating the key if need be. Where the grant says `durable`, it is on disk
/// when the call returns. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_set(key: &str, value: &[u8]) -> Result<u64, Error> {
    let args = [
        key.as_ptr() as u64,
        key.len() as u64,
        value.as_ptr() as u64,
        value.len() as u64,
        0,
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x6d201139, args) })
}

/// Copies part of a value. Gives how many bytes were copied; less than asked at the end.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_read(key: &str, offset: u64, out: &mut [u8]) -> Result<u64, Error> {
    let args = [
        key.as_ptr() as u64,
        key.len() as u64,
        offset,
        out.as_mut_ptr() as u64,
        out.len() as u64,
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xd84b083f, args) })
}

/// Writes part of a value, which grows if need be; a gap is zeros. Durable keys have it on disk
/// after the next `state_push`. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_write(key: &str, offset: u64, data: &[u8]) -> Result<u64, Error> {
    let args = [
        key.as_ptr() as u64,
        key.len() as u64,
        offset,
        data.as_ptr() as u64,
        data.len() as u64,
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x469fccbe, args) })
}

/// Adds to a number of 8 bytes, little-endian, in one step: no addition is lost, whether others add
/// by this call or by atomic instructions in a mapping. The sum wraps. A value that ends before has
/// zeros there. Of a durable value, this is safe after the next `state_push`. `too-large` also if
/// `out` has fewer than 8 bytes: nothing is added then. Gives 8, the bytes of the sum.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_add(key: &str, offset: u64, amount: u64, out: &mut [u8]) -> Result<u64, Error> {
    let args = [
        key.as_ptr() as u64,
        key.len() as u64,
        offset,
        amount,
        out.as_mut_ptr() as u64,
        out.len() as u64];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x770b0d9e, args) })
}

/// Adds to the end of a value. Appends of several functions do not mix. Gives the offset at which
/// the data begin.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_append(key: &str, data: &[u8]) -> Result<u64, Error> {
    let args = [
        key.as_ptr() as u64,
        key.len() as u64,
        data.as_ptr() as u64,
        data.len() as u64,
        0,
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x1fe07deb, args) })
}

/// Makes a value shorter, or longer with zeros. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_truncate(key: &str, size: u64) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, size, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x29aa77a9, args) })
}

/// Removes a key. Sandboxes that have it mapped keep the bytes they see until they are reset. Gives
/// 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_delete(key: &str) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, 0, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x41f89738, args) })
}

/// Writes the names of keys in order, each followed by a newline, as many as fit. Gives how many
/// bytes were written.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`].
pub fn state_list(prefix: &str, after: &str, out: &mut [u8]) -> Result<u64, Error> {
    let args = [
        prefix.as_ptr() as u64,
        prefix.len() as u64,
        after.as_ptr() as u64,
        after.len() as u64,
        out.as_mut_ptr() as u64,
        out.len() as u64];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xf84f1c93, args) })
}

/// The version of a value: it changes with every change, and none comes twice. Gives the version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_version(key: &str) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, 0, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xb5f06245, args) })
}

/// Replaces a value if nobody changed it since `expected`: compare and swap. Gives the new version.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::Conflict`], [`Error::TooLarge`],
/// [`Error::Exhausted`].
pub fn state_swap(key: &str, expected: u64, value: &[u8]) -> Result<u64, Error> {
    let args = [
        key.as_ptr() as u64,
        key.len() as u64,
        expected,
        value.as_ptr() as u64,
        value.len() as u64,
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xb1814edc, args) })
}

/// Sets when a key goes by itself. Gives 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_expire(key: &str, ttl_ms: u64) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, ttl_ms, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xb5dfe224, args) })
}

/// Takes the lock of a key, which need not exist. First come, first served. It is free again when
/// it is unlocked, when its time is over, or when the invocation ends. Gives 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TimedOut`], [`Error::Exhausted`].
pub fn state_lock(key: &str, mode: u32, wait_ms: u64, hold_ms: u64) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, u64::from(mode), wait_ms, hold_ms, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x1a13e224, args) })
}

/// Gives a lock back. `not-found` if the invocation does not hold it, which may be because its time
/// was over. Gives 0.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`].
pub fn state_unlock(key: &str) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, 0, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x44da2833, args) })
}

/// Makes the bytes of a value part of the sandbox's own memory, until it ends: no copy, and what
/// one function writes, others on the node see. To write, the value is made at least `offset + len`
/// long. A mapping to read shows the live bytes; writing to it is an error that ends the call.
/// Gives the address of the byte at `offset`.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::TooLarge`], [`Error::Exhausted`].
pub fn state_map(key: &str, offset: u64, len: u64, mode: u32) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, offset, len, u64::from(mode), 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xcebac1fb, args) })
}

/// Makes what was written to part of a value as safe as its durability says: of a durable key, the
/// chunks that changed are on disk when the call returns. Gives the version that is safe now.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Unavailable`].
pub fn state_push(key: &str, offset: u64, len: u64) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, offset, len, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xba459bef, args) })
}

/// Loads part of a value to the node, so that reading it does not wait. Gives the version that was
/// loaded.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Unavailable`].
pub fn state_pull(key: &str, offset: u64, len: u64) -> Result<u64, Error> {
    let args = [key.as_ptr() as u64, key.len() as u64, offset, len, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xb447d114, args) })
}

/// Calls a function and waits until it has ended, well or badly: see `chain_size`. Gives a handle
/// on the reply.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Exhausted`].
pub fn chain_call(function: &str, input: &[u8]) -> Result<u64, Error> {
    let args = [
        function.as_ptr() as u64,
        function.len() as u64,
        input.as_ptr() as u64,
        input.len() as u64,
        0,
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x2aaad1db, args) })
}

/// Starts a call and goes on. Unless it is detached, it is cancelled when the caller ends. Gives a
/// handle on the call.
///
/// # Errors
/// [`Error::Denied`], [`Error::Invalid`], [`Error::NotFound`], [`Error::Exhausted`].
pub fn chain_spawn(function: &str, input: &[u8], flags: u32) -> Result<u64, Error> {
    let args = [
        function.as_ptr() as u64,
        function.len() as u64,
        input.as_ptr() as u64,
        input.len() as u64,
        u64::from(flags),
        0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xd599304e, args) })
}

/// Waits for a call. `failed` if it ended badly, `timed-out` if it goes on. Gives 0: it ended well.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`], [`Error::Failed`].
pub fn chain_wait(handle: u32, wait_ms: u64) -> Result<u64, Error> {
    let args = [u64::from(handle), wait_ms, 0, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x9ed60d72, args) })
}

/// Waits until one of several calls has ended. Gives the place in the list of one that has ended.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::TimedOut`].
pub fn chain_wait_any(handles: &[u8], wait_ms: u64) -> Result<u64, Error> {
    let args = [handles.as_ptr() as u64, handles.len() as u64, wait_ms, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xa77b4447, args) })
}

/// Waits until all of several calls have ended. Gives how many of them failed.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`], [`Error::TimedOut`].
pub fn chain_wait_all(handles: &[u8], wait_ms: u64) -> Result<u64, Error> {
    let args = [handles.as_ptr() as u64, handles.len() as u64, wait_ms, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x967fa6b2, args) })
}

/// How long a reply is. `failed` if the call ended badly, `timed-out` if it goes on. Gives the size
/// of the reply in bytes.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`], [`Error::Failed`].
pub fn chain_size(handle: u32) -> Result<u64, Error> {
    let args = [u64::from(handle), 0, 0, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xc483ee0a, args) })
}

/// Copies part of a reply. Gives how many bytes were copied; less than asked at the end.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`], [`Error::Failed`].
pub fn chain_read(handle: u32, offset: u64, out: &mut [u8]) -> Result<u64, Error> {
    let args = [u64::from(handle), offset, out.as_mut_ptr() as u64, out.len() as u64, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xac2fd7df, args) })
}

/// Why a call failed, as text cut to fit; nothing if it ended well. Gives how many bytes were
/// copied.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TimedOut`].
pub fn chain_problem(handle: u32, out: &mut [u8]) -> Result<u64, Error> {
    let args = [u64::from(handle), out.as_mut_ptr() as u64, out.len() as u64, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0x330cc52a, args) })
}

/// The invocation's id: 32 hexadecimal digits. Gives how many bytes were copied.
///
/// # Errors
/// [`Error::NotFound`].
pub fn chain_id(handle: u32, out: &mut [u8]) -> Result<u64, Error> {
    let args = [u64::from(handle), out.as_mut_ptr() as u64, out.len() as u64, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xc4931626, args) })
}

/// Forgets a call and its reply. One that still runs is cancelled, unless it is detached. Gives 0.
///
/// # Errors
/// [`Error::NotFound`].
pub fn chain_close(handle: u32) -> Result<u64, Error> {
    let args = [u64::from(handle), 0, 0, 0, 0, 0];
    // SAFETY: the node touches only the bytes of the slices that it is given.
    answer(unsafe { ask(0xcc9b67b1, args) })
}
