//! Machines without a guest, made before they are needed and unmade after, where nobody waits.
//!
//! ```text
//!            made ahead              take, over an image
//!   nothing ────────────▶ a shell ───────────────────────▶ a sandbox's machine
//!                            ▲  emptied, and run again           │ given back
//!                            └───────────────────────────────────┤ broken, or too many
//!                                                   destroyed ◀──┘
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use memory::{Image, ImageBuilder, MemoryError, Overlay, Range, Slab};
use parking_lot::Mutex;

use crate::blank;
use crate::kvm::Hypervisor;
use crate::machine::{Machine, MachineError, OVERHEAD};
use crate::space::Space;

/// Bytes of frames that a shell has room for; what needs more grows.
const SHELL_BYTES: u64 = 32 << 20;
/// How long what is to be done waits for those who use shells, while there are some.
const REST: Duration = Duration::from_millis(5);

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
    /// What shells hold.
    blank: Arc<Image>,
    target: usize,
    ready: Mutex<VecDeque<Machine>>,
    /// Whether shells are missing that the thread behind was not told of.
    missing: AtomicBool,
    /// Whether the thread behind has been told to fill, and has not begun.
    told: AtomicBool,
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
            blank: blank::image()?,
            target,
            ready: Mutex::default(),
            missing: false.into(),
            told: false.into(),
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
        shells.tell_to_fill();
        Ok(shells)
    }

    /// The hypervisor.
    pub fn hypervisor(&self) -> &dyn Hypervisor {
        self.0.hypervisor.as_ref()
    }

    /// What to copy to put `image` over a shell, if that is how it is done.
    pub fn overlay(&self, image: &Arc<Image>) -> Option<Arc<Overlay>> {
        blank::overlay(&self.0.blank, image)
    }

    /// A machine over `image`, whose overlay is `overlay`, with memory up to `end`; from a shell if
    /// there is one. While others are left, it is replaced once [`Self::make_up`] is called: to
    /// wake a thread takes longer than much else that a call needs.
    pub fn take(
        &self,
        image: &Arc<Image>,
        overlay: Option<&Arc<Overlay>>,
        end: u64,
    ) -> Result<Machine, MachineError> {
        let (shell, are_left) = {
            let mut ready = self.0.ready.lock();
            (ready.pop_front(), !ready.is_empty())
        };
        match are_left {
            true => self.0.missing.store(true, Ordering::Release),
            false => self.tell_to_fill(),
        }
        let Some(machine) = shell else {
            return self.0.make(image, end);
        };
        let memory = machine.memory();
        match overlay {
            Some(overlay) => memory.lay_over(overlay)?,
            None => memory.reimage_within(image)?,
        }
        memory.keep(machine.covered().max(end) as usize)?;
        Ok(machine)
    }

    /// A machine without any guest, made here and now.
    pub fn make(&self) -> Result<Machine, MachineError> {
        self.0.make_over(self.0.slab.take(&self.0.empty)?)
    }

    /// Takes a machine back whose guest is gone.
    pub fn give_back(&self, machine: Machine) {
        self.ask(Job::TakeBack(Box::new(machine)));
    }

    /// Has shells made in place of those that were taken; where nobody waits for a call.
    pub fn make_up(&self) {
        if self.0.missing.load(Ordering::Relaxed) && self.0.missing.swap(false, Ordering::AcqRel) {
            self.tell_to_fill();
        }
    }

    /// Shells that are ready.
    pub fn ready(&self) -> usize {
        self.0.ready()
    }

    fn tell_to_fill(&self) {
        // A thread that is still to wake up need not be woken again.
        if self.0.target > 0 && !self.0.told.swap(true, Ordering::AcqRel) {
            self.ask(Job::Fill);
        }
    }

    fn ask(&self, job: Job) {
        // The thread lives as long as this does; if not, the machine is dropped here.
        let _ = self.0.jobs.send(job);
    }
}

/// Puts a machine over `image`, with memory up to `end`.
pub(crate) fn put_over(machine: &Machine, image: &Arc<Image>, end: u64) -> Result<(), MemoryError> {
    machine.memory().reimage(image)?;
    let kept = machine.covered().max(end);
    machine.memory().keep(kept as usize)
}

impl Inner {
    fn ready(&self) -> usize {
        self.ready.lock().len()
    }

    fn make_over(&self, memory: Range) -> Result<Machine, MachineError> {
        let bytes = OVERHEAD + SHELL_BYTES;
        Machine::new(self.hypervisor.as_ref(), memory, bytes, Space::new(0))
    }

    /// A machine over `image` with memory up to `end`. Memory that is complete before its machine
    /// costs the hypervisor nothing.
    fn make(&self, image: &Arc<Image>, end: u64) -> Result<Machine, MachineError> {
        let memory = self.slab.take(image)?;
        memory.keep(end.max(OVERHEAD + SHELL_BYTES) as usize)?;
        self.make_over(memory)
    }

    /// A shell, or none where it does not run as it should.
    fn make_shell(&self) -> Result<Option<Machine>, MachineError> {
        let mut machine = self.make(&self.blank, 0)?;
        Ok(blank::warm(&mut machine)?.then_some(machine))
    }

    /// A shell out of a machine that had a guest.
    fn empty(&self, mut machine: Machine) -> Result<Option<Machine>, MachineError> {
        machine.space = Space::new(0);
        let memory = machine.memory();
        memory.reimage(&self.blank)?;
        memory.keep(machine.covered() as usize)?;
        Ok(blank::warm(&mut machine)?.then_some(machine))
    }

    fn fill(&self) {
        while self.ready.lock().len() < self.target {
            match self.make_shell() {
                Ok(Some(machine)) => self.ready.lock().push_back(machine),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a machine could not be made ahead");
                    return;
                }
            }
        }
    }

    fn work_on(&self, job: Job) {
        match job {
            Job::Fill => {
                self.told.store(false, Ordering::Release);
                self.fill();
            }
            Job::TakeBack(machine) => self.take_back(*machine),
        }
    }

    fn take_back(&self, machine: Machine) {
        let usual = machine.covered() == OVERHEAD + SHELL_BYTES && machine.cpu_count() == 1;
        let wanted = usual && !machine.is_broken() && self.ready.lock().len() < self.target;
        if !wanted {
            return;
        }
        match self.empty(machine) {
            Ok(Some(machine)) => self.ready.lock().push_back(machine),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a machine could not be emptied"),
        }
    }
}

fn work(inner: &Weak<Inner>, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let Some(inner) = inner.upgrade() else {
            return;
        };
        if inner.ready() > 0 {
            // Whoever has just taken one has the processor and the maps of memory first.
            thread::sleep(REST);
        }
        for job in std::iter::once(job).chain(jobs.try_iter()) {
            inner.work_on(job);
        }
    }
}

#[cfg(test)]
#[path = "shells_tests.rs"]
mod tests;
