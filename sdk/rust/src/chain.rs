//! Calls of other functions.

use std::fmt;
use std::time::Duration;

use crate::calls::{self, Error};
use crate::state::millis;

/// Bytes of text that say why a call failed.
const PROBLEM_BYTES_MAX: usize = 1000;

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The platform refused, or the time to wait was over.
    Refused(Error),
    /// The function failed, for this reason.
    Failed(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Failed(problem) => write!(f, "the called function failed: {problem}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Calls a function and waits for its reply.
///
/// # Errors
/// [`CallError::Failed`] if the function failed; else as for [`calls::chain_call`].
pub fn call(function: &str, input: &[u8]) -> Result<Vec<u8>, CallError> {
    let handle = calls::chain_call(function, input)?;
    Call::of(handle).reply()
}

/// Starts a call; dropping it cancels it.
///
/// # Errors
/// Those of [`calls::chain_spawn`].
pub fn spawn(function: &str, input: &[u8]) -> Result<Call, Error> {
    calls::chain_spawn(function, input, 0).map(Call::of)
}

/// Starts a call that goes on when its caller ends, or drops it.
///
/// # Errors
/// Those of [`calls::chain_spawn`].
pub fn spawn_detached(function: &str, input: &[u8]) -> Result<Call, Error> {
    calls::chain_spawn(function, input, 1).map(Call::of)
}

/// A call that was started.
#[derive(Debug)]
pub struct Call {
    handle: u32,
}

impl Call {
    /// The node gives handles that fit: they are parameters of 32 bits.
    fn of(handle: u64) -> Self {
        Self {
            handle: handle as u32,
        }
    }

    /// Its handle, for [`calls`].
    #[must_use]
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// The id of its invocation.
    ///
    /// # Errors
    /// Those of [`calls::chain_id`].
    pub fn id(&self) -> Result<String, Error> {
        let mut id = [0; 32];
        let count = calls::chain_id(self.handle, &mut id)? as usize;
        Ok(String::from_utf8_lossy(&id[..count]).into_owned())
    }

    /// Waits until it has ended; its reply is then at hand.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when `wait` is over, [`Error::Failed`] if it failed.
    pub fn wait(&self, wait: Duration) -> Result<(), Error> {
        calls::chain_wait(self.handle, millis(wait)).map(drop)
    }

    /// Waits as long as it takes, and takes its reply.
    ///
    /// # Errors
    /// [`CallError::Failed`] if the function failed.
    pub fn reply(self) -> Result<Vec<u8>, CallError> {
        loop {
            match self.wait(Duration::from_secs(3600)) {
                Ok(()) => break,
                Err(Error::TimedOut) => {}
                Err(Error::Failed) => return Err(CallError::Failed(self.problem()?)),
                Err(error) => return Err(error.into()),
            }
        }
        let mut reply = vec![0; calls::chain_size(self.handle)? as usize];
        let count = calls::chain_read(self.handle, 0, &mut reply)? as usize;
        reply.truncate(count);
        Ok(reply)
    }

    /// Why it failed; empty if it did not.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it goes on.
    pub fn problem(&self) -> Result<String, Error> {
        let mut problem = vec![0; PROBLEM_BYTES_MAX];
        let count = calls::chain_problem(self.handle, &mut problem)? as usize;
        problem.truncate(count);
        Ok(String::from_utf8_lossy(&problem).into_owned())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Nothing is left to do for a call that the node does not know.
        let _ = calls::chain_close(self.handle);
    }
}

/// Waits until one of the calls has ended; gives its place.
///
/// # Errors
/// Those of [`calls::chain_wait_any`].
pub fn any(calls: &[Call], wait: Duration) -> Result<usize, Error> {
    calls::chain_wait_any(&handles(calls), millis(wait)).map(|place| place as usize)
}

/// Waits until all of the calls have ended; gives how many of them failed.
///
/// # Errors
/// Those of [`calls::chain_wait_all`].
pub fn all(calls: &[Call], wait: Duration) -> Result<usize, Error> {
    calls::chain_wait_all(&handles(calls), millis(wait)).map(|count| count as usize)
}

fn handles(calls: &[Call]) -> Vec<u8> {
    calls
        .iter()
        .flat_map(|call| call.handle.to_le_bytes())
        .collect()
}
