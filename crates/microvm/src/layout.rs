//! Where everything lies: in guest-physical memory, which is the machine's range, and in the
//! guest's own addresses, a window of 8 GiB.
//!
//! ```text
//!  physical (offset in the range)          virtual
//!  0x0000_0000  nothing                    0x0_0000_0000  nothing, so that null pointers fault
//!  0x0000_1000  system pages               0x0_0001_0000  the guest's
//!  0x0020_0000  page tables (16 MiB)            …
//!  0x0120_0000  the guest's frames         0x1_FFC0_0000  nothing
//!       …                                  0x1_FFE0_0000  system pages, supervisor only,
//!                                                      but for the system-call stub and its data
//! ```
//!
//! The table for each 2 MiB of addresses has a frame of its own, fixed once and for all, and the
//! levels above never change. So changing what a guest may touch is writing entries of the last
//! level, and a hypervisor that keeps shadows of page tables can only be out of date about those:
//! `memory::Range::forget_translations` brings it up to date.

use memory::PAGE_BYTES;

/// Bytes of a page.
pub const PAGE: u64 = PAGE_BYTES as u64;
/// Bytes that one table of the last level maps.
pub const TABLE_SPAN: u64 = 2 << 20;
/// Bytes that one table of the level above maps.
const DIRECTORY_SPAN: u64 = 1 << 30;

/// The first address that there is not.
pub const WINDOW_END: u64 = 8 << 30;
/// The first address that may be mapped for a guest.
pub const USER_START: u64 = 64 << 10;
/// The first address past those that may be.
pub const USER_END: u64 = SYSTEM_VIRTUAL - TABLE_SPAN;
/// Where the system pages lie for the guest.
const SYSTEM_VIRTUAL: u64 = WINDOW_END - TABLE_SPAN;

/// System pages, physical.
pub const GDT: u64 = 0x1000;
/// Task states, one for each processor, with the bitmap of ports.
pub const TSS: u64 = 0x2000;
/// Interrupt descriptors.
pub const IDT: u64 = 0x3000;
/// Code that a fault enters, at CPL 0.
pub const FAULT_STUBS: u64 = 0x4000;
/// The stacks that faults are told on: each processor's within the page.
pub const FAULT_STACK: u64 = 0x5000;
/// Processors that a machine may have: the first, and one for each thread that runs at once.
pub const PROCESSORS_MAX: u32 = 16;
/// Bytes of a processor's own within a page that all of them share.
pub const PROCESSOR_SPAN: u64 = PAGE / PROCESSORS_MAX as u64;
/// Code that `syscall` enters.
pub const SYSCALL_STUB_FRAME: u64 = 0x6000;
/// Pages that this code and the host tell each other on, which the guest may write to.
pub const STUB_DATA: u64 = 0x1_2000;
/// Vector registers that a guest is to load, which it may read.
pub const VECTORS_DATA: u64 = 0x1_6000;
/// The root of the page tables.
pub const ROOT: u64 = 0x7000;
/// The level below: one table.
pub const POINTERS: u64 = 0x8000;
/// The level below that: a table for each GiB.
pub const DIRECTORIES: u64 = 0x9000;
/// The last level: a table for each 2 MiB.
pub const TABLES: u64 = 0x20_0000;
/// The guest's frames.
pub const FRAMES: u64 = TABLES + WINDOW_END / TABLE_SPAN * PAGE;

/// Where the `syscall` instruction goes.
pub const SYSCALL_STUB: u64 = to_virtual(SYSCALL_STUB_FRAME);

/// Directories of the window.
pub const DIRECTORY_COUNT: u64 = WINDOW_END / DIRECTORY_SPAN;

/// The guest's address of a system page.
pub const fn to_virtual(system: u64) -> u64 {
    SYSTEM_VIRTUAL + system
}

/// Where the entry for the page at `address` lies, physically.
pub const fn entry(address: u64) -> u64 {
    TABLES + address / TABLE_SPAN * PAGE + address % TABLE_SPAN / PAGE * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps() {
        const { assert!(DIRECTORIES + DIRECTORY_COUNT * PAGE <= STUB_DATA) };
        const { assert!(STUB_DATA + crate::stub::DATA_BYTES <= VECTORS_DATA) };
        const { assert!(VECTORS_DATA + PAGE <= TABLES) };
        assert_eq!(FRAMES, 0x120_0000);
        assert_eq!(entry(WINDOW_END - PAGE), FRAMES - 8);
        const { assert!(SYSCALL_STUB < WINDOW_END && SYSCALL_STUB >= USER_END) };
    }

    #[test]
    fn neighbours_have_neighbouring_entries_and_spans_have_tables_of_their_own() {
        assert_eq!(entry(0), TABLES);
        assert_eq!(entry(PAGE), TABLES + 8);
        assert_eq!(entry(TABLE_SPAN), TABLES + PAGE);
    }
}
