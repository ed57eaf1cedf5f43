//! A loaded version: its images, what is frozen beside them, and machines to restore them in.

use std::sync::Arc;

use files::Layer;
use memory::{Image, MemoryError, Overlay};
use model::{Kind, Settings};
use sandbox::host::HostCall;
use sandbox::{Program, Sandbox, SandboxError};

use crate::asks::Numbers;
use crate::elf::Symbols;
use crate::frozen::Frozen;
use crate::linux::{Saved, command};
use crate::machine::{Machine, MachineError};
use crate::microvm::MicroVm;
use crate::shells::{Shells, put_over};

/// A guest as it stands before a call.
pub(crate) struct Beginning {
    pub image: Arc<Image>,
    /// What to copy of it for a shell, where that is few pages.
    pub overlay: Option<Arc<Overlay>>,
    pub frozen: Frozen,
}

/// Where a call begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// At the entry of the version.
    Entry,
    /// At the request loop of its process.
    Loop,
}

/// What all sandboxes of a version share.
pub(crate) struct Parts {
    pub shells: Shells,
    /// The guest as it was loaded; for a freestanding one, as it waits for a call.
    pub entry: Beginning,
    /// A process at its request loop, if it is frozen there.
    pub request_loop: Option<(Beginning, Saved)>,
    /// Why it is not.
    pub not_frozen: Option<String>,
    pub symbols: Symbols,
    pub settings: Settings,
    /// What lies under the private files of a Linux program.
    pub layer: Arc<Layer>,
    pub kind: Kind,
    pub table: &'static [HostCall],
    pub numbers: Arc<Numbers>,
}

impl Parts {
    /// Bytes of its images that are not zero.
    pub fn image_bytes(&self) -> u64 {
        let frozen = self.request_loop.iter().map(|(beginning, _)| beginning);
        let all = std::iter::once(&self.entry).chain(frozen);
        all.map(|beginning| beginning.image.stored_bytes() as u64)
            .sum()
    }

    /// Where most calls begin.
    pub fn usual(&self) -> From {
        match self.request_loop {
            Some(_) => From::Loop,
            None => From::Entry,
        }
    }

    /// Where a call begins that brings these arguments and variables of its own. A process that is
    /// frozen has read those of its version already: it takes no arguments, and variables only
    /// where its owner has asked that it is frozen in any case.
    pub fn begins(&self, args: &[String], env: &[(String, String)]) -> From {
        match &self.request_loop {
            // It is told of its call by its invocation, not by its environment.
            Some(_) if self.kind == Kind::Lambda => From::Loop,
            Some((_, saved)) if args.is_empty() && command::takes(saved, env) => From::Loop,
            _ => From::Entry,
        }
    }

    /// What is there.
    pub fn beginning(&self, from: From) -> &Beginning {
        match (&self.request_loop, from) {
            (Some((beginning, _)), From::Loop) => beginning,
            _ => &self.entry,
        }
    }

    /// A machine that equals an image.
    pub fn machine(&self, from: From) -> Result<Machine, SandboxError> {
        let Beginning {
            image,
            overlay,
            frozen,
        } = self.beginning(from);
        let made = || -> Result<Machine, MachineError> {
            let end = frozen.space.frames_end();
            let mut machine = self.shells.take(image, overlay.as_ref(), end)?;
            machine.become_image(&frozen.space, &frozen.cpu)?;
            Ok(machine)
        };
        made().map_err(|error| match error {
            MachineError::Memory(MemoryError::Full { live, max }) => {
                SandboxError::Full { live, max }
            }
            other => failed("made", &other),
        })
    }

    /// Makes a machine equal to another image than it did.
    pub fn change(&self, machine: &mut Machine, from: From) -> Result<(), MachineError> {
        let Beginning { image, frozen, .. } = self.beginning(from);
        put_over(machine, image, frozen.space.frames_end())?;
        machine.become_image(&frozen.space, &frozen.cpu)
    }

    /// Whether guests may have effects outside of their sandboxes.
    pub fn asks(&self) -> bool {
        !self.settings.allow.is_empty()
    }

    /// What is at `address`, in words: the function and how far into it.
    pub fn place(&self, address: u64) -> String {
        let at = address.wrapping_sub(self.entry.frozen.moved_by);
        match self.symbols.function(at) {
            Some((name, 0)) => format!("in `{name}`"),
            Some((name, into)) => format!("in `{name}`+{into:#x}"),
            None => "in no function that has a name".to_owned(),
        }
    }
}

/// A loaded version.
pub(crate) struct MicroVmProgram(pub Arc<Parts>);

impl Program for MicroVmProgram {
    fn sandbox(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        Ok(Box::new(MicroVm::new(self.0.clone())?))
    }

    fn cooperative(&self) -> bool {
        false
    }

    fn asks(&self) -> bool {
        self.0.asks()
    }
}

/// For `map_err`: a sandbox could not be `doing`.
pub(crate) fn failed(doing: &'static str, error: &dyn std::error::Error) -> SandboxError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason.push_str(": ");
        reason.push_str(&error.to_string());
        cause = error.source();
    }
    SandboxError::Failed { doing, reason }
}
