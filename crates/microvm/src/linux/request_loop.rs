//! When a process may be frozen and started again and again: at its first wait for input, if
//! nothing that it asked before would then be the same for all invocations and must not be.

/// What a process has asked that an image would freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Random bytes that may have become a key.
    pub random: bool,
    /// The time of day.
    pub time: bool,
}
