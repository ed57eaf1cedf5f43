//! A process as it stands at its request loop: a value that is written beside its image, and that
//! each call begins with a copy of.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use files::{Files, Ino, Layer, OtherLayer, Quota};
use serde::{Deserialize, Serialize};

use super::descriptor::Descriptors;
use super::kept::Kept;
use super::lambda::RuntimeApi;
use super::maps::Maps;
use super::pipe::Pipes;
use super::process::{Clocks, Process};
use super::request_loop::{Asked, Input, Stage};
use super::signal::Signals;
use super::sockets::Sockets;
use super::stack::Places;
use super::thread::{Threads, Tid};
use super::world::World;

/// The form of what is written; another is not read. It changes with the golden test below.
const FORM: u32 = 2;

/// Why a saved process cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read.
    #[error("the saved process is unusable")]
    Unreadable(#[from] postcard::Error),
    /// It is of another version of this program.
    #[error("the saved process is of form {0}, and {FORM} is what is read here")]
    OtherForm(u32),
    /// Its files lie over a layer that is not there.
    #[error("the files of the saved process do not fit")]
    Files(#[from] OtherLayer),
}

/// All of a process but its files and what lies outside of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Parts {
    maps: Kept<Maps>,
    threads: Threads,
    signals: Kept<Signals>,
    descriptors: Kept<Descriptors>,
    pipes: Kept<Pipes>,
    sockets: Kept<Sockets>,
    directory: Ino,
    umask: u16,
    now: Clocks,
    args: Kept<Vec<Vec<u8>>>,
    unknown: Kept<BTreeMap<u64, u64>>,
    refused_memory: bool,
    said: Vec<u8>,
    random_at: Option<u64>,
    places: Option<Places>,
    lambda: Option<RuntimeApi>,
    /// Whose registers its processor holds.
    loaded: Tid,
}

/// A process that is frozen. Cheap to copy: its files are shared until they are changed.
#[derive(Clone, Debug)]
pub struct Saved {
    parts: Parts,
    files: Files,
}

#[derive(Serialize)]
struct Written<'a> {
    parts: &'a Parts,
    files: files::Saved,
}

#[derive(Deserialize)]
struct Read {
    parts: Parts,
    files: files::Saved,
}

impl Saved {
    /// Freezes a process none of whose threads runs; the processor holds the registers of `loaded`.
    /// Gives the world that it leaves, too.
    pub fn of(process: Process, loaded: Tid) -> (Self, Box<dyn World>) {
        let Process {
            maps,
            threads,
            signals,
            descriptors,
            pipes,
            sockets,
            files,
            directory,
            umask,
            now,
            args,
            unknown,
            refused_memory,
            said,
            random_at,
            places,
            lambda,
            // What belongs to a call, or is known at its beginning.
            input: _,
            world,
            memory_bytes_max: _,
            processors: _,
            exit: _,
            stirred: _,
            stage: _,
            asked: _,
        } = process;
        let parts = Parts {
            maps,
            threads,
            signals,
            descriptors,
            pipes,
            sockets,
            directory,
            umask,
            now,
            args,
            unknown,
            refused_memory,
            said,
            random_at,
            places,
            lambda,
            loaded,
        };
        (Self { parts, files }, world)
    }

    /// A copy that goes on for a call, which reads `input`. It may have so many bytes of memory,
    /// and so many processors.
    pub fn process(
        &self,
        input: Bytes,
        world: Box<dyn World>,
        (memory_bytes_max, processors): (u64, u32),
    ) -> Process {
        let Parts {
            maps,
            threads,
            signals,
            descriptors,
            pipes,
            sockets,
            directory,
            umask,
            now,
            args,
            unknown,
            refused_memory,
            said,
            random_at,
            places,
            lambda,
            loaded: _,
        } = self.parts.clone();
        let mut process = Process {
            maps,
            threads,
            signals,
            descriptors,
            pipes,
            sockets,
            files: self.files.clone(),
            directory,
            umask,
            now,
            args,
            unknown,
            refused_memory,
            said,
            random_at,
            places,
            lambda,
            input: Input::Awaited,
            world,
            memory_bytes_max,
            processors,
            exit: None,
            stirred: false,
            stage: Stage::Call,
            asked: Asked::default(),
        };
        process.begin_call(input);
        process
    }

    /// Whether a call of it may bring these variables.
    pub fn takes(&self, env: &[Vec<u8>]) -> bool {
        env.is_empty()
            || self
                .parts
                .places
                .is_some_and(|places| places.fill(env).is_some())
    }

    /// Whose registers the processor holds.
    pub fn loaded(&self) -> Tid {
        self.parts.loaded
    }

    /// What its clocks have shown.
    pub fn clocks(&self) -> Clocks {
        self.parts.now
    }

    /// As it is kept: its form, and then the rest.
    pub fn encode(&self) -> Result<Vec<u8>, SavedError> {
        let written = Written {
            parts: &self.parts,
            files: self.files.save(),
        };
        let form = FORM.to_le_bytes().to_vec();
        Ok(postcard::to_extend(&written, form)?)
    }

    /// Reads it back, over the layer that its files lie over, and held to `quota`.
    pub fn decode(bytes: &[u8], layer: Arc<Layer>, quota: Quota) -> Result<Self, SavedError> {
        let cut_short = || SavedError::Unreadable(postcard::Error::DeserializeUnexpectedEnd);
        let (form, rest) = bytes.split_first_chunk().ok_or_else(cut_short)?;
        let form = u32::from_le_bytes(*form);
        if form != FORM {
            return Err(SavedError::OtherForm(form));
        }
        let Read { parts, files } = postcard::from_bytes(rest)?;
        let files = Files::restore(layer, quota, &files)?;
        Ok(Self { parts, files })
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
