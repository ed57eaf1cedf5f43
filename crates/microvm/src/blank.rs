//! What the memory of a shell holds before it has a guest, and which images can be laid over that.
//!
//! A shell has the system pages, and tables for the addresses that every freestanding guest begins
//! with. It has run once and touched those, so that its hypervisor knows them already. What a
//! hypervisor remembers of page tables stays true under an image that has every entry that the
//! shell has: only such an image is copied over it, page by page. Any other is mapped in its place,
//! which makes the hypervisor forget all of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memory::{Image, ImageBuilder, MemoryError, Overlay};

use crate::abi;
use crate::freestanding;
use crate::layout::{FRAMES, SYSCALL_STUB};
use crate::machine::{Machine, MachineError, Stop};
use crate::system;

/// Pages that are copied for a guest; for one with more, mapping its image costs less.
const COPIED_PAGES_MAX: usize = 64;
/// Time for the few instructions of a first run.
const WARM_TIME: Duration = Duration::from_secs(1);

/// The memory of a shell.
pub(crate) fn image() -> Result<Arc<Image>, MemoryError> {
    let mut image = ImageBuilder::new(FRAMES as usize);
    for (at, bytes) in system::pages() {
        image.write(at as usize, &bytes);
    }
    for (at, entry) in entries() {
        image.write(at as usize, &entry.to_le_bytes());
    }
    Ok(Arc::new(image.freeze()?))
}

/// What has to be copied to put `image` over a shell that holds `blank`; None where it has to be
/// mapped.
pub(crate) fn overlay(blank: &Arc<Image>, image: &Arc<Image>) -> Option<Arc<Overlay>> {
    let overlay = Overlay::of(blank, image, COPIED_PAGES_MAX)?;
    has_all_entries(image).then(|| Arc::new(overlay))
}

/// The entries of page tables that a shell has, with where they go.
fn entries() -> impl Iterator<Item = (u64, u64)> {
    let system = system::entries().into_iter();
    system.chain(freestanding::first_entries())
}

fn has_all_entries(image: &Image) -> bool {
    entries().all(|(at, entry)| {
        let rest = image.contents().get(at as usize..).unwrap_or_default();
        rest.starts_with(&entry.to_le_bytes())
    })
}

/// Runs a shell over its memory. Returns whether that went as it should.
pub(crate) fn warm(machine: &mut Machine) -> Result<bool, MachineError> {
    let memory = machine.memory().clone();
    for (at, bytes) in freestanding::touched() {
        memory.populate(at as usize, bytes as usize)?;
    }
    machine
        .cpu
        .begin(SYSCALL_STUB + system::WARM_STUB, abi::STACK_END)?;
    machine.cpu.regs_mut().rdi = abi::CALL_PAGE;
    let stop = machine.cpu.run(Instant::now() + WARM_TIME)?;
    if stop != Stop::Syscall {
        tracing::warn!(?stop, "a machine did not run as it should");
    }
    Ok(stop == Stop::Syscall)
}
