//! Processes without a machine: calls one by one, and whatever calls a hostile guest may make.

use bytes::Bytes;
use files::{Files, LayerBuilder, Quota};
use proptest::prelude::*;

use super::errno::Errno;
use super::memory::GuestMemory;
use super::memory::fake::FakeMemory;
use super::process::{Beginning, Clocks, Exit, Flow, OTHERS, Process, Turn};
use super::request_loop::Stage;
use super::signal::SIGKILL;
use super::table::TABLE;
use super::thread::{FIRST, Request, State, THREADS_MAX, Tid};
use super::world::{Network, NoNetwork, World};
use crate::space::Protection;

const MIB: u64 = 1 << 20;
/// Memory that the process has mapped, and that is zero.
pub(super) const DATA: u64 = 0x50_0000;
const DATA_BYTES: u64 = 64 << 10;

struct Quiet(NoNetwork);

impl World for Quiet {
    fn random(&mut self, out: &mut [u8]) {
        out.fill(7);
    }

    fn reply(&mut self, data: &[u8]) -> bool {
        data.len() < MIB as usize
    }

    fn log(&mut self, _: &[u8]) -> bool {
        true
    }

    fn network(&mut self) -> &mut dyn Network {
        &mut self.0
    }
}

pub(super) fn process() -> (Process, FakeMemory) {
    let mut layer = LayerBuilder::default();
    layer.directory("tmp").unwrap();
    let quota = Quota {
        bytes_max: MIB,
        inodes_max: 100,
    };
    let mut memory = FakeMemory::new(8 * MIB);
    memory
        .map(DATA, DATA_BYTES, Protection::READ_WRITE)
        .unwrap();
    let process = Process::new(Beginning {
        segments: vec![(DATA..DATA + DATA_BYTES, Protection::READ_WRITE)],
        args: vec![b"function".to_vec()],
        stage: Stage::Call,
        input: Bytes::from_static(b"input"),
        files: Files::with_clock(std::sync::Arc::new(layer.build()), quota, || 7),
        world: Box::new(Quiet(NoNetwork)),
        processors: 1,
        memory_bytes_max: 8 * MIB,
        lambda: None,
    });
    (process, memory)
}

fn number(name: &str) -> u64 {
    let row = TABLE.iter().find(|row| row.name() == name);
    row.unwrap_or_else(|| panic!("{name} is not offered"))
        .number
}

pub(super) fn call(
    process: &mut Process,
    memory: &mut FakeMemory,
    tid: Tid,
    name: &str,
    args: &[u64],
) -> Flow {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let request = Request {
        number: number(name),
        args: all,
    };
    process.call(memory, tid, request)
}

fn failed(errno: Errno) -> Flow {
    Flow::Return(errno.result())
}

/// Makes a thread.
fn clone(process: &mut Process, memory: &mut FakeMemory) -> Flow {
    call(process, memory, FIRST, "clone", &[0x10d00, DATA + 4096])
}

#[test]
fn a_futex_wakes_as_many_as_it_is_told_and_times_out_the_rest() {
    let (mut process, mut memory) = process();
    let tids: Vec<Tid> = (0..3)
        .map(|_| match clone(&mut process, &mut memory) {
            Flow::Return(tid) => Tid(tid as u32),
            other => panic!("{other:?}"),
        })
        .collect();
    memory
        .write(
            DATA + 64,
            &[0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0],
        )
        .unwrap();
    for tid in &tids {
        let waits = call(
            &mut process,
            &mut memory,
            *tid,
            "futex",
            &[DATA, 0, 0, DATA + 64],
        );
        assert_eq!(waits, Flow::Switch);
    }
    let wrong = call(&mut process, &mut memory, FIRST, "futex", &[DATA, 0, 5, 0]);
    assert_eq!(wrong, failed(Errno::EAGAIN));
    let woken = call(&mut process, &mut memory, FIRST, "futex", &[DATA, 1, 1]);
    assert_eq!(woken, Flow::Return(1));
    let result = |process: &Process, tid| process.threads.find(tid).unwrap().regs.rax;
    assert_eq!(result(&process, tids[0]), 0);
    process.tick(Clocks {
        monotonic_ns: 100,
        ..Clocks::default()
    });
    for tid in &tids[1..] {
        assert_eq!(result(&process, *tid), Errno::ETIMEDOUT.result());
        assert_eq!(process.threads.find(*tid).unwrap().state, State::Ready);
    }
    let moved = call(&mut process, &mut memory, FIRST, "futex", &[DATA + 2, 1, 1]);
    assert_eq!(moved, failed(Errno::EINVAL));
}

#[test]
fn too_many_threads_and_every_process_are_refused() {
    let (mut process, mut memory) = process();
    for _ in 1..THREADS_MAX {
        assert!(matches!(clone(&mut process, &mut memory), Flow::Return(tid) if tid < 1000));
    }
    assert_eq!(clone(&mut process, &mut memory), failed(Errno::EAGAIN));
    for name in ["fork", "vfork", "execve"] {
        let refused = call(&mut process, &mut memory, FIRST, name, &[]);
        assert_eq!(refused, failed(Errno::ENOSYS));
    }
    assert_eq!(process.unknown.len(), 3);
}

#[test]
fn calls_that_are_not_offered_are_counted_in_bounds() {
    let (mut process, mut memory) = process();
    for number in 1000..1100 {
        let request = Request {
            number,
            args: [0; 6],
        };
        let refused = process.call(&mut memory, FIRST, request);
        assert_eq!(refused, failed(Errno::ENOSYS));
    }
    assert_eq!(process.unknown.len(), 65);
    assert_eq!(process.unknown.get(&OTHERS), Some(&36));
}

#[test]
fn a_reader_that_waits_is_woken_by_what_is_written() {
    let (mut process, mut memory) = process();
    let Flow::Return(reader) = clone(&mut process, &mut memory) else {
        panic!("no thread")
    };
    let reader = Tid(reader as u32);
    let made = call(&mut process, &mut memory, FIRST, "pipe", &[DATA]);
    assert_eq!(made, Flow::Return(0));
    let waits = call(
        &mut process,
        &mut memory,
        reader,
        "read",
        &[3, DATA + 100, 50],
    );
    assert_eq!(waits, Flow::Switch);
    memory.write(DATA + 200, b"hello").unwrap();
    let wrote = call(
        &mut process,
        &mut memory,
        FIRST,
        "write",
        &[4, DATA + 200, 5],
    );
    assert_eq!(wrote, Flow::Return(5));
    process.threads.rotate();
    process.turn(&mut memory);
    process.threads.rotate();
    assert_eq!(process.turn(&mut memory), Turn::Run(reader));
    assert_eq!(process.threads.find(reader).unwrap().regs.rax, 5);
    let mut read = [0; 5];
    memory.read(DATA + 100, &mut read).unwrap();
    assert_eq!(&read, b"hello");
}

#[test]
fn a_signal_ends_waiting_and_one_that_kills_ends_the_process() {
    let (mut process, mut memory) = process();
    let waits = call(&mut process, &mut memory, FIRST, "pause", &[]);
    assert_eq!(waits, Flow::Switch);
    assert_eq!(process.turn(&mut memory), Turn::Idle(None));
    call(
        &mut process,
        &mut memory,
        FIRST,
        "kill",
        &[2, SIGKILL.into()],
    );
    assert_eq!(process.exit, Some(Exit::Signal(SIGKILL)));
}

#[test]
fn no_pointer_is_followed_out_of_what_is_mapped() {
    for row in TABLE {
        for wild in [
            1,
            DATA - 1,
            DATA + DATA_BYTES - 1,
            1 << 40,
            u64::MAX,
            u64::MAX - 7,
        ] {
            let (mut process, mut memory) = process();
            let request = Request {
                number: row.number,
                args: [wild; 6],
            };
            process.call(&mut memory, FIRST, request);
        }
    }
}

/// Numbers that programs pass: descriptors, flags, lengths, addresses, and wild ones.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..12,
        0u64..0x2000,
        Just(DATA),
        (0..DATA_BYTES).prop_map(|at| DATA + at),
        prop::sample::select(vec![
            u64::MAX,
            1 << 31,
            1 << 63,
            0xffff_ff9c,
            DATA + DATA_BYTES
        ]),
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let number = prop_oneof![
        9 => (0..TABLE.len()).prop_map(|at| TABLE[at].number),
        1 => any::<u64>(),
    ];
    let args = [word(), word(), word(), word(), word(), word()];
    (number, args).prop_map(|(number, args)| Request { number, args })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_a_guest_asks_the_host_goes_on_and_its_bounds_hold(
        data in prop::collection::vec(word(), 1..64),
        requests in prop::collection::vec(request(), 1..60),
    ) {
        let (mut process, mut memory) = process();
        let bytes: Vec<u8> = data.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.write(DATA, &bytes).unwrap();
        memory.write(DATA + 2048, b"/tmp/f\0").unwrap();
        let mut now = Clocks::default();
        for request in requests {
            now.monotonic_ns += 1000;
            process.tick(now);
            let Turn::Run(tid) = process.turn(&mut memory) else {
                break;
            };
            if process.has_signal(tid) {
                process.deliver_signals(&mut memory, tid);
            }
            if process.exit.is_some() {
                break;
            }
            process.call(&mut memory, tid, request);
            process.threads.rotate();
            prop_assert!(memory.bytes() <= memory.bytes_max());
            prop_assert!(process.threads.count() <= THREADS_MAX);
            prop_assert!(process.files.usage().bytes <= MIB);
        }
    }
}
