//! A loaded version: an image, what is frozen beside it, and machines to restore it in.

use std::sync::Arc;

use memory::{Image, MemoryError, Overlay};
use model::{Kind, Settings};
use sandbox::host::HostCall;
use sandbox::{Program, Sandbox, SandboxError};

use crate::asks::Numbers;
use crate::elf::Symbols;
use crate::frozen::Frozen;
use crate::machine::{Machine, MachineError};
use crate::microvm::MicroVm;
use crate::shells::Shells;

/// What all sandboxes of a version share.
pub(crate) struct Parts {
    pub shells: Shells,
    pub image: Arc<Image>,
    /// What to copy of it for a shell, where that is few pages.
    pub overlay: Option<Arc<Overlay>>,
    pub frozen: Frozen,
    pub symbols: Symbols,
    pub settings: Settings,
    pub kind: Kind,
    pub table: &'static [HostCall],
    pub numbers: Arc<Numbers>,
}

impl Parts {
    /// A machine that equals the image.
    pub fn machine(&self) -> Result<Machine, SandboxError> {
        let made = || -> Result<Machine, MachineError> {
            let end = self.frozen.space.frames_end();
            let mut machine = self.shells.take(&self.image, self.overlay.as_ref(), end)?;
            machine.become_image(&self.frozen.space, &self.frozen.cpu)?;
            Ok(machine)
        };
        made().map_err(|error| match error {
            MachineError::Memory(MemoryError::Full { live, max }) => {
                SandboxError::Full { live, max }
            }
            other => failed("made", &other),
        })
    }

    /// Whether guests may have effects outside of their sandboxes.
    pub fn asks(&self) -> bool {
        !self.settings.allow.is_empty()
    }

    /// What is at `address`, in words: the function and how far into it.
    pub fn place(&self, address: u64) -> String {
        let at = address.wrapping_sub(self.frozen.moved_by);
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
