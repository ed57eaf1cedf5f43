//! Bytes under keys, which the functions of an app share.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use crate::calls::{self, Error};

/// How often a buffer grows because the value grew meanwhile.
const GET_TRIES_MAX: usize = 8;

const FIRST_BYTES: usize = 4096;

/// The whole value of a key.
///
/// # Errors
/// Those of [`calls::state_get`]; [`Error::TooLarge`] only if it grows faster than it is read.
pub fn get(key: &str) -> Result<Vec<u8>, Error> {
    let mut value = vec![0; FIRST_BYTES];
    for _ in 0..GET_TRIES_MAX {
        match calls::state_get(key, &mut value) {
            Ok(size) => {
                value.truncate(size as usize);
                return Ok(value);
            }
            Err(Error::TooLarge) => value.resize(size(key)? as usize, 0),
            Err(error) => return Err(error),
        }
    }
    Err(Error::TooLarge)
}

/// Replaces a value; gives its new version.
///
/// # Errors
/// Those of [`calls::state_set`].
pub fn set(key: &str, value: &[u8]) -> Result<u64, Error> {
    calls::state_set(key, value)
}

/// How long a value is.
///
/// # Errors
/// Those of [`calls::state_size`].
pub fn size(key: &str) -> Result<u64, Error> {
    calls::state_size(key)
}

/// The keys that begin with `prefix`, in order.
///
/// # Errors
/// Those of [`calls::state_list`].
pub fn list(prefix: &str) -> Result<Vec<String>, Error> {
    let mut keys: Vec<String> = Vec::new();
    let mut page = vec![0; 64 * 1024];
    loop {
        let after = keys.last().map_or("", String::as_str);
        let count = calls::state_list(prefix, after, &mut page)? as usize;
        if count == 0 {
            return Ok(keys);
        }
        let text = String::from_utf8_lossy(&page[..count]);
        keys.extend(text.lines().map(str::to_owned));
    }
}

/// Makes what was written to a value as safe as its durability says; gives the version.
///
/// # Errors
/// Those of [`calls::state_push`].
pub fn push(key: &str) -> Result<u64, Error> {
    calls::state_push(key, 0, 0)
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With others.
    Shared = 0,
    /// Alone.
    Exclusive = 1,
}

/// A lock that is held, until it is dropped.
#[must_use = "it is given back when this is dropped"]
#[derive(Debug)]
pub struct Lock<'a> {
    key: &'a str,
}

/// Takes the lock of a key.
///
/// # Errors
/// Those of [`calls::state_lock`]; [`Error::TimedOut`] when `wait` is over.
pub fn lock(key: &str, mode: Mode, wait: Duration) -> Result<Lock<'_>, Error> {
    calls::state_lock(key, mode as u32, millis(wait), 0)?;
    Ok(Lock { key })
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // It may be another's by now, if its time was over; then there is nothing to give back.
        let _ = calls::state_unlock(self.key);
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

mod sealed {
    pub trait Sealed {}
}

/// Numbers that any bytes are, so that shared memory can be looked at as a row of them.
pub trait Plain: Copy + sealed::Sealed + 'static {}

macro_rules! plain {
    ($($ty:ty),*) => {$(impl sealed::Sealed for $ty {} impl Plain for $ty {})*};
}
plain!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

/// Part of a value as memory to read. Others may write to it at the same time: what is read is
/// then old or new, number for number. It stays mapped until the sandbox is reset.
#[derive(Debug)]
pub struct View<T: Plain> {
    at: *const T,
    count: usize,
}

/// Part of a value as memory to write, which others see at once.
#[derive(Debug)]
pub struct ViewMut<T: Plain> {
    at: *mut T,
    count: usize,
    only: PhantomData<T>,
}

/// Maps `count` numbers of a value from byte `offset` on, or all up to its end if 0.
///
/// # Errors
/// Those of [`calls::state_map`]; [`Error::Invalid`] if `offset` is not a multiple of the size of a
/// number; [`Error::NotFound`] if the value is shorter.
pub fn map<T: Plain>(key: &str, offset: u64, count: usize) -> Result<View<T>, Error> {
    let there = size(key)?.checked_sub(offset).ok_or(Error::NotFound)? / size_of::<T>() as u64;
    let there = usize::try_from(there).map_err(|_| Error::TooLarge)?;
    let count = if count == 0 { there } else { count };
    if count > there {
        return Err(Error::NotFound);
    }
    let at = map_at::<T>(key, offset, count, 0)?;
    Ok(View { at, count })
}

/// Maps `count` numbers of a value from byte `offset` on, to write; the value is made long enough.
/// With 0, all up to its end.
///
/// # Errors
/// As for [`map`].
pub fn map_mut<T: Plain>(key: &str, offset: u64, count: usize) -> Result<ViewMut<T>, Error> {
    let count = match count {
        0 => map::<T>(key, offset, 0)?.count,
        count => count,
    };
    let at = map_at::<T>(key, offset, count, 1)?;
    Ok(ViewMut {
        at,
        count,
        only: PhantomData,
    })
}

fn map_at<T: Plain>(key: &str, offset: u64, count: usize, mode: u32) -> Result<*mut T, Error> {
    if count == 0 {
        return Ok(core::ptr::dangling_mut());
    }
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Error::TooLarge)?;
    if bytes > isize::MAX as usize {
        return Err(Error::TooLarge);
    }
    let at = calls::state_map(key, offset, bytes as u64, mode)? as *mut T;
    if at.is_aligned() {
        Ok(at)
    } else {
        Err(Error::Invalid)
    }
}

impl<T: Plain> View<T> {
    /// Where it begins.
    #[must_use]
    pub fn as_ptr(&self) -> *const T {
        self.at
    }
}

impl<T: Plain> ViewMut<T> {
    /// Where it begins.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut T {
        self.at
    }
}

impl<T: Plain> Deref for View<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the node mapped so many aligned numbers, until the sandbox ends. Whoever writes
        // does so from another sandbox; any bytes it may leave are a `T`.
        unsafe { core::slice::from_raw_parts(self.at, self.count) }
    }
}

impl<T: Plain> Deref for ViewMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as for `View`.
        unsafe { core::slice::from_raw_parts(self.at, self.count) }
    }
}

impl<T: Plain> DerefMut for ViewMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `View`; every mapping has addresses of its own in the sandbox.
        unsafe { core::slice::from_raw_parts_mut(self.at, self.count) }
    }
}
