//! WASI preview 1, all of it, over the files of the `files` crate.
//!
//! ```text
//!  fd 0 stdin: the request's body     fd 1 stdout: the reply, or the log    fd 2 stderr: the log
//!  fd 3 the directory `/`: the version's files, and what this invocation writes over them
//! ```
//!
//! What cannot work here says so with the errno that it has for that: nothing traps but pointers
//! out of the guest's memory, and a reply that passes its limit. Rights are those of Wasmtime: what
//! a descriptor may do is decided when it is opened, by its rights to read and write alone.

mod abi;
mod descriptors;
mod fd;
mod guest;
mod offer;
mod path;
mod poll;
mod process;

use std::sync::Arc;

use bytes::Bytes;
use files::Files;

use super::program::CoreParts;
use crate::stdio::Stdio;
use descriptors::Descriptors;

pub(super) use offer::{offer, offer_waiting};

/// The imports that may wait, so that a guest that has one runs on a stack of its own.
pub(super) const WAITING: [&str; 1] = ["poll_oneoff"];

/// What a guest of preview 1 has for one call.
pub(crate) struct Preview1 {
    parts: Arc<CoreParts>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Bytes,
    descriptors: Descriptors,
    files: Files,
}

/// What a call gives its guest.
pub(super) struct Input {
    pub stdin: Bytes,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl Preview1 {
    pub(super) fn new(parts: &Arc<CoreParts>, input: Input) -> Self {
        let mut files = Files::new(parts.layer.clone(), parts.files_quota());
        let root = files.open_root();
        Self {
            parts: parts.clone(),
            args: input.args,
            env: input.env,
            stdin: input.stdin,
            descriptors: Descriptors::new(input.stdout, input.stderr, root),
            files,
        }
    }
}
