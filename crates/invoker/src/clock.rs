//! What the invoker has from outside: the wall clock, which records and due times are written in,
//! and chance.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where time and chance come from: the machine, unless a simulation brings its own.
pub trait Surroundings: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// A number that nobody can foresee: ids are made of it.
    fn chance(&self) -> u128;
}

/// The machine's clock and its random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Surroundings for Machine {
    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn chance(&self) -> u128 {
        rand::random()
    }
}

/// Milliseconds since 1970, by the machine.
pub fn now_ms() -> u64 {
    millis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
