//! Machines without a guest, made before they are needed and unmade after, where nobody waits.
//!
//! ```text
//!            made ahead              take, over an image
//!   nothing ────────────▶ a shell ───────────────────────▶ a sandbox's machine
//!                            ▲  emptied                          │ given back
//!                            └───────────────────────────────────┤ broken, or too many
//!                                                   destroyed ◀──┘
//! ```

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use memory::{Image, ImageBuilder, MemoryError, Slab};
use parking_lot::Mutex;

use crate::kvm::Hypervisor;
use crate::layout;
use crate::machine::{Machine, MachineError, OVERHEAD, Stop};
use crate::space::Space;

/// Bytes of frames that a shell has room for; what needs more grows.
const SHELL_BYTES: u64 = 32 << 20;
/// How long a shell that was taken is not replaced, where there are others.
const FILL_AFTER: Duration = Duration::from_millis(5);
/// Time for the few instructions of a first run.
const WARM_TIME: Duration = Duration::from_secs(1);

/// What the thread behind is told.
enum Job {
    /// Make what is missing.
    Fill,
    /// Empty it, and keep it or not.
    TakeBack(Box<Machine>),
}

/// The shells of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shells(Arc<Inner>);

struct Inner {
    hypervisor: Arc<dyn Hypervisor>,
    slab: Slab,
    empty: Arc<Image>,
    target: usize,
    ready: Mutex<VecDeque<Machine>>,
    jobs: Sender<Job>,
}

impl Shells {
    /// Begins to make `target` shells, on a thread of its own.
    pub fn new(
        hypervisor: Arc<dyn Hypervisor>,
        slab: Slab,
        target: usize,
    ) -> Result<Self, MachineError> {
        let (jobs, taken) = channel();
        let inner = Arc::new(Inner {
            hypervisor,
            slab,
            empty: Arc::new(ImageBuilder::new(0).freeze()?),
            target,
            ready: Mutex::default(),
            jobs,
        });
        let behind = Arc::downgrade(&inner);
        let spawned = thread::Builder::new().name("vm-shells".into());
        let spawned = spawned.spawn(move || work(&behind, &taken));
        spawned.map_err(|source| MemoryError::Kernel {
            doing: "start the thread of shells",
            source,
        })?;
        let shells = Self(inner);
        shells.ask(Job::Fill);
        Ok(shells)
    }

    /// The hypervisor.
    pub fn hypervisor(&self) -> &dyn Hypervisor {
        self.0.hypervisor.as_ref()
    }

    /// A machine over `image` with memory up to `end`, from a shell if there is one.
    pub fn take(&self, image: &Arc<Image>, end: u64) -> Result<Machine, MachineError> {
        let shell = self.0.ready.lock().pop_front();
        self.ask(Job::Fill);
        let machine = match shell {
            Some(machine) => machine,
            None => self.0.make()?,
        };
        machine.memory().reimage(image)?;
        let kept = machine.covered().max(end);
        machine.memory().keep(kept as usize)?;
        Ok(machine)
    }

    /// A machine without any guest, made here and now.
    pub fn make(&self) -> Result<Machine, MachineError> {
        self.0.make()
    }

    /// Takes a machine back whose guest is gone.
    pub fn give_back(&self, machine: Machine) {
        self.ask(Job::TakeBack(Box::new(machine)));
    }

    /// Shells that are ready.
    pub fn ready(&self) -> usize {
        self.0.ready()
    }

    fn ask(&self, job: Job) {
        // The thread lives as long as this does; if not, the machine is dropped here.
        let _ = self.0.jobs.send(job);
    }
}

impl Inner {
    fn ready(&self) -> usize {
        self.ready.lock().len()
    }

    fn make(&self) -> Result<Machine, MachineError> {
        let memory = self.slab.take(&self.empty)?;
        let bytes = OVERHEAD + SHELL_BYTES;
        Machine::new(self.hypervisor.as_ref(), memory, bytes, Space::new(0))
    }

    /// A machine whose processor has run once, and so has what the hypervisor makes at first.
    fn make_warm(&self) -> Result<Machine, MachineError> {
        let mut machine = self.make()?;
        let memory = machine.memory().clone();
        memory.grow_to(OVERHEAD as usize)?;
        Space::new(0).write_system(&memory)?;
        machine.cpu.begin(layout::SYSCALL_STUB, 0)?;
        let stop = machine.cpu.run(Instant::now() + WARM_TIME)?;
        memory.reimage(&self.empty)?;
        if stop != Stop::Syscall {
            tracing::warn!(?stop, "a machine did not run as it should");
        }
        Ok(machine)
    }

    fn fill(&self) {
        while self.ready.lock().len() < self.target {
            match self.make_warm() {
                Ok(machine) => self.ready.lock().push_back(machine),
                Err(error) => {
                    tracing::warn!(%error, "a machine could not be made ahead");
                    return;
                }
            }
        }
    }

    fn take_back(&self, machine: Machine) {
        let usual = machine.covered() == OVERHEAD + SHELL_BYTES && machine.cpu_count() == 1;
        let wanted = usual && !machine.cpu.is_broken() && self.ready.lock().len() < self.target;
        if !wanted {
            return;
        }
        match machine.memory().reimage(&self.empty) {
            Ok(()) => self.ready.lock().push_back(machine),
            Err(error) => tracing::warn!(%error, "a machine could not be emptied"),
        }
    }
}

fn work(inner: &Weak<Inner>, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        match job {
            Job::Fill => {
                if inner.ready() > 0 {
                    // Whoever has just taken one has the processor and the maps of memory first.
                    thread::sleep(FILL_AFTER);
                }
                inner.fill();
            }
            Job::TakeBack(machine) => inner.take_back(*machine),
        }
    }
}
