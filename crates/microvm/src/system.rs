//! The system pages: descriptor tables, task state, and the few instructions that run at CPL 0.
//!
//! A guest runs at CPL 3 from its first instruction. CPL 0 is entered by faults only: each enters
//! a stub that writes to a port which the guest itself may not use, and the host reads the rest
//! from the fault's stack. `syscall` enters a stub that writes to the guest's own port. On hardware
//! it runs at CPL 0 and returns by `sysret`; some paravirtual hosts enter it at CPL 3, where the
//! host has to return for it, unless [`crate::stub`] has an answer.

use kvm_bindings::{kvm_segment, kvm_sregs};

use crate::layout::{self, PAGE, to_virtual};
use crate::stub;

/// The one port that a guest may write to, 32 bits at a time.
pub const GUEST_PORT: u16 = 0xd0;
/// The port of fault stubs.
pub const FAULT_PORT: u16 = 0xd8;
/// Bytes of one fault stub.
pub const FAULT_STUB_BYTES: u64 = 16;
/// Vectors that have a stub: the processor's own.
pub const VECTORS: u64 = 32;

const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_DATA: u16 = 0x18 | 3;
const USER_CODE: u16 = 0x20 | 3;
const TASK: u16 = 0x28;

/// Selectors that `syscall` and `sysret` derive theirs from.
pub const STAR: u64 = (KERNEL_DATA as u64 | 3) << 48 | (KERNEL_CODE as u64) << 32;
/// Flags that `syscall` clears: interrupt, direction, trap.
pub const FMASK: u64 = 0x700;
/// Flags that a guest begins with: the one that is always set.
pub const RFLAGS: u64 = 2;
/// Flags that a host may restore for a guest: arithmetic, direction, alignment check, id.
pub const RFLAGS_USER: u64 = 0x24_0cd5;

/// Descriptors: none, code and data of CPL 0, data and code of CPL 3.
const SEGMENTS: [u64; 5] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
];

/// Bytes of task state before the bitmap of ports.
const TASK_BYTES: usize = 0x68;
/// Bytes of the bitmap: up to the guest's ports, and the closing byte of ones that must follow.
const PORTS_BYTES: usize = GUEST_PORT as usize / 8 + 2;
/// What is past the limit is denied as well.
const TASK_LIMIT: usize = TASK_BYTES + PORTS_BYTES - 1;

const CR0: u64 = 0x8005_0033;
/// Physical address extension, SSE, FSGSBASE, XSAVE.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18;
/// System calls, long mode, no-execute.
const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11;

/// The bytes of every system page that holds any, with where they go.
pub fn pages() -> Vec<(u64, Vec<u8>)> {
    vec![
        (layout::GDT, gdt()),
        (layout::TSS, tasks()),
        (layout::IDT, idt()),
        (layout::FAULT_STUBS, fault_stubs()),
        (layout::SYSCALL_STUB_FRAME, syscall_stub()),
    ]
}

/// Entries of the levels above the last, which allow everything.
const ABOVE: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6;

/// The entries of page tables that every guest has, with where they go: the levels above the last,
/// and the system pages'.
pub fn entries() -> Vec<(u64, u64)> {
    const READ: u64 = 1 | 1 << 5 | 1 << 6 | 1 << 63;
    const WRITE: u64 = READ | 1 << 1;
    const EXECUTE: u64 = 1 | 1 << 5 | 1 << 6;
    const USER: u64 = 1 << 2;
    let mut entries = vec![(layout::ROOT, layout::POINTERS | ABOVE)];
    entries.extend((0..layout::DIRECTORY_COUNT).map(|index| {
        let directory = layout::DIRECTORIES + index * PAGE;
        (layout::POINTERS + index * 8, directory | ABOVE)
    }));
    entries.extend((0..layout::WINDOW_END / layout::TABLE_SPAN).map(|index| {
        let table = layout::TABLES + index * PAGE;
        (layout::DIRECTORIES + index * 8, table | ABOVE)
    }));
    let pages = [
        (layout::GDT, WRITE),
        (layout::TSS, WRITE),
        (layout::IDT, READ),
        (layout::FAULT_STUBS, EXECUTE),
        (layout::FAULT_STACK, WRITE),
        (layout::SYSCALL_STUB_FRAME, EXECUTE | USER),
        (layout::VECTORS_DATA, READ | USER),
    ];
    let data = (0..stub::DATA_BYTES).step_by(PAGE as usize);
    let data = data.map(|offset| (layout::STUB_DATA + offset, WRITE | USER));
    entries.extend(pages.into_iter().chain(data).map(|(page, flags)| {
        let at = layout::entry(to_virtual(page));
        (at, page | flags)
    }));
    entries
}

fn gdt() -> Vec<u8> {
    let base = to_virtual(layout::TSS);
    let limit = TASK_LIMIT as u64;
    let low = limit & 0xffff | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    let all = SEGMENTS.into_iter().chain([low, base >> 32]);
    all.flat_map(u64::to_le_bytes).collect()
}

/// The task states of all processors.
fn tasks() -> Vec<u8> {
    let all = (0..layout::PROCESSORS_MAX).flat_map(|number| {
        let mut task = task(number);
        task.resize(layout::PROCESSOR_SPAN as usize, 0xff);
        task
    });
    all.collect()
}

/// The end of the stack that a processor's faults are told on, from the machine's first byte on.
pub fn fault_stack_end(number: u32) -> u64 {
    layout::FAULT_STACK + PAGE - u64::from(number) * layout::PROCESSOR_SPAN
}

fn task(number: u32) -> Vec<u8> {
    let mut task = vec![0; TASK_BYTES];
    task[4..12].copy_from_slice(&to_virtual(fault_stack_end(number)).to_le_bytes());
    task[0x66..0x68].copy_from_slice(&(TASK_BYTES as u16).to_le_bytes());
    let mut ports = vec![0xff; PORTS_BYTES];
    // A write of 32 bits needs the bits of all four.
    ports[usize::from(GUEST_PORT) / 8] &= !(0xf << (GUEST_PORT % 8));
    task.extend(ports);
    task
}

fn idt() -> Vec<u8> {
    const INTERRUPT_GATE: u64 = 0x8e;
    let gate = |vector: u64| {
        let at = to_virtual(layout::FAULT_STUBS + vector * FAULT_STUB_BYTES);
        let low = at & 0xffff
            | u64::from(KERNEL_CODE) << 16
            | INTERRUPT_GATE << 40
            | (at >> 16 & 0xffff) << 48;
        [low, at >> 32]
    };
    let words = (0..VECTORS).flat_map(gate);
    words.flat_map(u64::to_le_bytes).collect()
}

fn fault_stubs() -> Vec<u8> {
    // out FAULT_PORT, eax; hlt; jmp to the hlt.
    let stub = [0xe7, FAULT_PORT as u8, 0xf4, 0xeb, 0xfd];
    let mut page = vec![0xcc; (VECTORS * FAULT_STUB_BYTES) as usize];
    for one in page.chunks_mut(FAULT_STUB_BYTES as usize) {
        one[..stub.len()].copy_from_slice(&stub);
    }
    page
}

/// Where `syscall` goes on processors but the first, from the stub's start on: it answers nothing.
pub const PLAIN_STUB: u64 = 0xe00;
/// Where a shell begins that touches what most guests do, from the stub's start on.
pub const WARM_STUB: u64 = 0xf00;

fn syscall_stub() -> Vec<u8> {
    let mut page = stub::code().to_vec();
    page.resize(PLAIN_STUB as usize, 0xcc);
    // out GUEST_PORT, eax; sysretq.
    page.extend([0xe7, GUEST_PORT as u8, 0x48, 0x0f, 0x07]);
    page.resize(WARM_STUB as usize, 0xcc);
    // mov rax, [rip + …], twice: what a guest begins with.
    for data in [layout::STUB_DATA, layout::VECTORS_DATA] {
        let next = layout::SYSCALL_STUB_FRAME + page.len() as u64 + 7;
        page.extend([0x48, 0x8b, 0x05]);
        page.extend(((data - next) as u32).to_le_bytes());
    }
    // mov rax, [rsp - 8]; mov rax, [rdi]; out GUEST_PORT, eax; ud2.
    page.extend([0x48, 0x8b, 0x44, 0x24, 0xf8, 0x48, 0x8b, 0x07]);
    page.extend([0xe7, GUEST_PORT as u8, 0x0f, 0x0b]);
    page
}

/// Makes `sregs` those of a guest that is about to run on processor `number`: long mode, CPL 3, our
/// tables.
pub fn enter_user_mode(sregs: &mut kvm_sregs, number: u32) {
    sregs.cs = flat(USER_CODE, 0xb, true);
    let data = flat(USER_DATA, 0x3, false);
    (sregs.ss, sregs.ds, sregs.es) = (data, data, data);
    (sregs.fs, sregs.gs) = (data, data);
    sregs.tr = kvm_segment {
        base: to_virtual(layout::TSS) + u64::from(number) * layout::PROCESSOR_SPAN,
        limit: TASK_LIMIT as u32,
        selector: TASK,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.gdt.base = to_virtual(layout::GDT);
    sregs.gdt.limit = (gdt().len() - 1) as u16;
    sregs.idt.base = to_virtual(layout::IDT);
    sregs.idt.limit = (VECTORS * 16 - 1) as u16;
    (sregs.cr0, sregs.cr3) = (CR0, layout::ROOT);
    (sregs.cr4, sregs.efer) = (CR4, EFER);
}

/// Puts the segments of CPL 3 back, after a fault; bases of `fs` and `gs` stay.
pub fn leave_fault(sregs: &mut kvm_sregs) {
    sregs.cs = flat(USER_CODE, 0xb, true);
    sregs.ss = flat(USER_DATA, 0x3, false);
}

fn flat(selector: u16, type_: u8, code: bool) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_is_open_and_only_to_all_its_bytes() {
        let tasks = tasks();
        let spans = tasks.chunks(layout::PROCESSOR_SPAN as usize);
        assert_eq!(spans.len(), layout::PROCESSORS_MAX as usize);
        for (number, span) in spans.enumerate() {
            assert_eq!(span[..=TASK_LIMIT], task(number as u32));
        }
        let task = task(0);
        let bitmap = &task[TASK_BYTES..];
        let closed = |port: usize| {
            let byte = bitmap.get(port / 8);
            byte.is_none_or(|byte| byte & (1 << (port % 8)) != 0)
        };
        let open: Vec<_> = (0..0x1_0000).filter(|port| !closed(*port)).collect();
        assert_eq!(open, [0xd0, 0xd1, 0xd2, 0xd3]);
        assert_eq!(bitmap.last(), Some(&0xff));
        assert_eq!(task.len(), TASK_LIMIT + 1);
    }

    #[test]
    fn a_stub_tells_its_vector_by_where_it_is() {
        let stubs = fault_stubs();
        for vector in 0..VECTORS as usize {
            let at = vector * FAULT_STUB_BYTES as usize;
            assert_eq!(stubs[at..at + 2], [0xe7, FAULT_PORT as u8]);
        }
    }

    #[test]
    fn every_system_page_fits_its_page() {
        for (at, bytes) in pages() {
            assert!(bytes.len() as u64 <= PAGE, "{at:#x}");
        }
    }

    #[test]
    fn flags_that_a_guest_may_have_do_not_open_ports_or_interrupts() {
        // Interrupt flag, I/O privilege, nested task, virtual-8086.
        assert_eq!(RFLAGS_USER & (1 << 9 | 3 << 12 | 1 << 14 | 1 << 17), 0);
    }
}
