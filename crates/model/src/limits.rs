//! What one function may use. Every limit is finite; a node's own caps bound what may be asked.

use serde::{Deserialize, Serialize};

/// The limits of one function, with their units in their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time of one invocation, from its start in a sandbox.
    pub deadline_ms: u64,
    /// Linear memory of one sandbox, over all its memories.
    pub memory_bytes_max: u64,
    /// Request body of a command or reactor, which is held in memory.
    pub input_bytes_max: u64,
    /// Reply body of one invocation.
    pub output_bytes_max: u64,
    /// Captured stdout and stderr of one invocation; what exceeds it is dropped and counted.
    pub log_bytes_max: u64,
    /// Invocations of this function that run at once.
    pub concurrency_max: u32,
    /// Invocations of this function that wait for a place; one more is refused.
    pub queue_max: u32,
    /// How long an idle sandbox is kept for the next invocation.
    pub keep_alive_ms: u64,
    /// Bytes that one invocation may write to files of its own; nothing is left of them after it.
    pub files_bytes_max: u64,
    /// Files, directories and links that one invocation may make.
    pub files_max: u32,
    /// Attempts of an asynchronous invocation before it is a dead letter.
    pub attempts_max: u32,
    /// Threads of a Linux program that run at once.
    pub processors_max: u32,
}

/// A limit that is out of its range.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("limit `{name}` is {value}: it must be between {least} and {most}")]
pub struct LimitsError {
    /// The field's name.
    pub name: &'static str,
    /// What was asked.
    pub value: u64,
    /// The least that is accepted.
    pub least: u64,
    /// The most that is accepted.
    pub most: u64,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 30_000,
            memory_bytes_max: 256 * MIB,
            input_bytes_max: 6 * MIB,
            output_bytes_max: 6 * MIB,
            log_bytes_max: 256 << 10,
            concurrency_max: 64,
            queue_max: 1024,
            keep_alive_ms: 60_000,
            files_bytes_max: 64 * MIB,
            files_max: 16_384,
            attempts_max: 3,
            processors_max: 1,
        }
    }
}

impl Limits {
    /// Checks each limit against the range that the platform supports.
    pub fn check(&self) -> Result<(), LimitsError> {
        let ranges = [
            ("deadline_ms", self.deadline_ms, 1, DAY_MS),
            (
                "memory_bytes_max",
                self.memory_bytes_max,
                1 << 16,
                4 * GIB - (1 << 16),
            ),
            ("input_bytes_max", self.input_bytes_max, 0, GIB),
            ("output_bytes_max", self.output_bytes_max, 0, GIB),
            ("log_bytes_max", self.log_bytes_max, 0, 64 * MIB),
            ("concurrency_max", self.concurrency_max.into(), 1, 65_536),
            ("queue_max", self.queue_max.into(), 0, 1 << 20),
            ("keep_alive_ms", self.keep_alive_ms, 0, DAY_MS),
            ("files_bytes_max", self.files_bytes_max, 0, 4 * GIB),
            ("files_max", self.files_max.into(), 0, 1 << 20),
            ("attempts_max", self.attempts_max.into(), 1, 100),
            ("processors_max", self.processors_max.into(), 1, 8),
        ];
        for (name, value, least, most) in ranges {
            if value < least || value > most {
                return Err(LimitsError {
                    name,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_limit_out_of_range_is_named() {
        let limits = Limits {
            deadline_ms: 0,
            ..Limits::default()
        };
        assert_eq!(limits.check().map_err(|e| e.name), Err("deadline_ms"));
    }
}
