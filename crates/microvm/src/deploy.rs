//! A deploy: a program is loaded, run up to where calls begin, and taken as it stands.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use files::Layer;
use memory::{ImageBuilder, PAGE_BYTES};
use model::{InvocationId, Kind, Snapshot, VersionSpec};
use sandbox::{BodyError, CallLog, HeldLog, LogSink, LogStream, PrepareError, Reply};

use crate::abi;
use crate::backend::{Inner, runs_linux};
use crate::elf::{Elf, ElfError, Symbols};
use crate::freestanding;
use crate::frozen::Frozen;
use crate::inside::{self, Inside};
use crate::layout::{FRAMES, PAGE};
use crate::linux::{NotFrozen, Saved, command, lambda};
use crate::load::{LoadElfError, frames_needed};
use crate::machine::{Machine, MachineError};
use crate::microvm::{Ended, Given, Until};
use crate::space::{Space, SpaceError};
use crate::standing::Standing;
use crate::stored::{Made, Taken};
use crate::stub;

/// What initialisation may reply or log: nothing is kept of it.
const INIT_REPLY_BYTES_MAX: u64 = 1 << 20;

impl Inner {
    /// Loads a program and takes it as it stands: a freestanding one at its first `vm_next`, one of
    /// Linux at its first instruction, and then at its request loop.
    pub(crate) fn initialise(
        &self,
        spec: &VersionSpec,
        elf: &Elf,
        file: &[u8],
    ) -> Result<Made, PrepareError> {
        let linux = runs_linux(spec.kind);
        let extra = if linux {
            0
        } else {
            abi::STACK_BYTES + freestanding::EXTRA_BYTES
        };
        let mut machine = self.machine_for(spec, frames_needed(elf) + extra)?;
        let memory = machine.memory().clone();
        let begun = |error| platform("begin its initialisation", error);
        if !linux {
            let space = &mut machine.space;
            let prepared = freestanding::prepare(&memory, space, elf, file, abi::STACK_BYTES);
            let (moved_by, entry, heap) = prepared.map_err(unloadable)?;
            machine.cpu.begin(entry, abi::STACK_END).map_err(begun)?;
            let standing = Standing {
                heap,
                ..Standing::default()
            };
            return self.to_first_wait(&mut machine, spec, standing, (file, moved_by));
        }
        let prepared = command::prepare(&memory, &mut machine.space, elf, file);
        let (moved_by, entry, guest) = prepared.map_err(unloadable)?;
        machine.cpu.begin(entry, 0).map_err(begun)?;
        let entry = take(&mut machine, moved_by, guest)?;
        let layer = self.layer(spec)?;
        let request_loop = self.to_request_loop(&mut machine, spec, &layer, &entry.frozen)?;
        Ok(Made {
            entry,
            request_loop: Some(request_loop),
        })
    }

    /// Puts a module with its runtime into a machine, and takes it at its first `vm_next`.
    pub(crate) fn initialise_inside(
        &self,
        spec: &VersionSpec,
        inside: &Inside,
    ) -> Result<Made, PrepareError> {
        let mut machine = self.machine_for(spec, inside.bytes())?;
        let memory = machine.memory().clone();
        let loaded = inside.prepare(&memory, &mut machine.space);
        let loaded = loaded.map_err(unloadable)?;
        let begun = machine.cpu.begin(loaded.entry, abi::STACK_END);
        begun.map_err(|error| platform("begin its initialisation", error))?;
        machine.cpu.regs_mut().rdi = loaded.given;
        self.to_first_wait(&mut machine, spec, loaded.standing, (inside::RUNTIME, 0))
    }

    /// Runs a program that knows of its host up to where it waits for a call, and takes it there.
    /// `file` is its executable, with what was added to its addresses.
    fn to_first_wait(
        &self,
        machine: &mut Machine,
        spec: &VersionSpec,
        mut standing: Standing,
        file: (&[u8], u64),
    ) -> Result<Made, PrepareError> {
        self.run_init(machine, spec, &mut standing, file)?;
        Ok(Made {
            entry: take(machine, file.1, standing.encode())?,
            request_loop: None,
        })
    }

    /// A machine with `needed` bytes of frames and nothing in them.
    fn machine_for(&self, spec: &VersionSpec, needed: u64) -> Result<Machine, PrepareError> {
        let failed = |error: MachineError| platform("make a machine to initialise it in", error);
        let cap = spec.settings.limits.memory_bytes_max;
        if needed > cap {
            return Err(PrepareError::TooLarge {
                reason: format!(
                    "it begins with {needed} bytes of memory, and `memory_bytes_max` is {cap}"
                ),
            });
        }
        let mut machine = self.shells.make().map_err(failed)?;
        let end = FRAMES + needed.next_multiple_of(PAGE);
        machine.grow_to(end).map_err(failed)?;
        machine.space = Space::new(cap);
        let written = machine.space.write_system(machine.memory());
        written.map_err(|error| platform("write its system pages", error))?;
        Ok(machine)
    }

    /// Runs a Linux program up to where it waits for a call, and takes it there if that can be.
    fn to_request_loop(
        &self,
        machine: &mut Machine,
        spec: &VersionSpec,
        layer: &Arc<Layer>,
        entry: &Frozen,
    ) -> Result<Result<(Taken, Saved), NotFrozen>, PrepareError> {
        let settings = &spec.settings;
        if settings.snapshot == Snapshot::Never {
            return Ok(Err(NotFrozen::Never));
        }
        let is_lambda = spec.kind == Kind::Lambda;
        let frozen = futures::executor::block_on(async {
            match is_lambda {
                true => lambda::freeze(machine, settings, layer, &entry.guest).await,
                false => command::freeze(machine, settings, layer, &entry.guest).await,
            }
        });
        match frozen {
            Ok(saved) => {
                let taken = take(machine, entry.moved_by, entry.guest.clone())?;
                Ok(Ok((taken, saved)))
            }
            Err(NotFrozen::Platform(reason)) => Err(PrepareError::Platform {
                reason,
                source: None,
            }),
            Err(
                reason @ (NotFrozen::Reported(_) | NotFrozen::Ended(_) | NotFrozen::Deadline(_)),
            ) if is_lambda => Err(PrepareError::Init {
                reason: reason.to_string(),
            }),
            Err(reason) if settings.snapshot == Snapshot::Always => Err(PrepareError::Init {
                reason: format!(
                    "`snapshot = \"always\"` asks that it is frozen at its request loop: {reason}"
                ),
            }),
            Err(reason) => Ok(Err(reason)),
        }
    }

    fn run_init(
        &self,
        machine: &mut Machine,
        spec: &VersionSpec,
        standing: &mut Standing,
        (file, moved_by): (&[u8], u64),
    ) -> Result<(), PrepareError> {
        let limits = &spec.settings.limits;
        let log = HeldLog::new(discard(), false);
        let given = Given {
            table: self.table,
            numbers: &self.numbers,
            input: Bytes::new(),
            reply: &Reply::new(INIT_REPLY_BYTES_MAX),
            log: &log,
            until: Until {
                deadline: Instant::now() + Duration::from_millis(limits.deadline_ms),
                budget: None,
            },
            asks: None,
            elsewhere_ns: &AtomicU64::new(0),
        };
        let init = |reason: String| Err(PrepareError::Init { reason });
        // Nothing of it waits: without a session there is nobody to wait for.
        let running = freestanding::initialise(machine, given, standing);
        let ended = futures::executor::block_on(running);
        match ended {
            (Ended::Code(0), _) => Ok(()),
            (Ended::Code(code), _) => init(format!("it returned {code}")),
            (_, true) => init("it needs more memory than its limit".into()),
            (Ended::Fault(fault), _) => {
                let symbols = Symbols::read(file);
                let at = symbols.function(fault.rip.wrapping_sub(moved_by));
                let place = at
                    .map(|(name, _)| format!(" in `{name}`"))
                    .unwrap_or_default();
                init(format!("{fault}{place}"))
            }
            (Ended::Killed(reason) | Ended::Trapped(_, reason), _) => init(reason),
            (Ended::Told(status), _) => init(status.to_string()),
            (Ended::Timeout | Ended::OverBudget, _) => init("it ran past its deadline".into()),
            (Ended::Platform(reason), _) => Err(PrepareError::Platform {
                reason,
                source: None,
            }),
        }
    }
}

/// Takes what a machine holds as it stands.
fn take(machine: &mut Machine, moved_by: u64, guest: Vec<u8>) -> Result<Taken, PrepareError> {
    machine.space.settle();
    let cpu = machine.cpu.save();
    let cpu = cpu.map_err(|error| platform("read its registers", error))?;
    let held = stub::hold(machine.memory(), &cpu.xsave);
    held.map_err(|error| platform("put its vector registers in their place", error))?;
    let image = capture(machine).map_err(|error| platform("take its image", error))?;
    Ok(Taken {
        image,
        frozen: Frozen {
            cpu,
            space: machine.space.clone(),
            moved_by,
            guest,
        },
    })
}

/// A machine's memory up to the last page that holds anything: what is behind it is zero, and
/// cheaper as memory that no file is under.
pub(crate) fn capture(machine: &Machine) -> Result<ImageBuilder, memory::MemoryError> {
    let end = machine.space.frames_end() as usize;
    let mut page = [0; PAGE_BYTES];
    let mut pages = Vec::new();
    for at in (0..end).step_by(PAGE_BYTES) {
        machine.memory().read(at, &mut page)?;
        if page.iter().any(|byte| *byte != 0) {
            pages.push((at, Box::new(page)));
        }
    }
    let end = pages.last().map_or(0, |(at, _)| at + PAGE_BYTES);
    let mut image = ImageBuilder::new(end);
    for (at, page) in pages {
        image.write(at, page.as_slice());
    }
    Ok(image)
}

pub(crate) fn refused(error: &ElfError) -> PrepareError {
    PrepareError::NotExecutable {
        reason: error.to_string(),
    }
}

fn unloadable(error: LoadElfError) -> PrepareError {
    match error {
        LoadElfError::Space(error @ SpaceError::Full { .. }) => PrepareError::TooLarge {
            reason: error.to_string(),
        },
        LoadElfError::Space(SpaceError::Memory(error)) => platform("load it", error),
        other => PrepareError::NotExecutable {
            reason: other.to_string(),
        },
    }
}

pub(crate) fn platform<E: Into<BodyError>>(doing: &str, error: E) -> PrepareError {
    let source = error.into();
    PrepareError::Platform {
        reason: format!("it could not {doing}: {source}"),
        source: Some(source),
    }
}

/// A log that goes nowhere, for guest code that runs at deploy.
fn discard() -> Arc<CallLog> {
    struct Nowhere;
    impl LogSink for Nowhere {
        fn write(&self, _: InvocationId, _: LogStream, _: &[u8]) {}
    }
    Arc::new(CallLog::new(InvocationId::new(0), Arc::new(Nowhere), 0))
}
