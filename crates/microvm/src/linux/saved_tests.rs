//! The form of a saved process, and that it comes back as it was.

use files::LayerBuilder;
use model::Digest;

use super::super::memory::GuestMemory;
use super::super::memory::fake::FakeMemory;
use super::super::process::Flow;
use super::super::tests::{DATA, call, process};
use super::super::thread::FIRST;
use super::super::world::{Network, NoNetwork};
use super::*;

struct Nowhere(NoNetwork);

impl World for Nowhere {
    fn random(&mut self, out: &mut [u8]) {
        out.fill(9);
    }

    fn reply(&mut self, _: &[u8]) -> bool {
        true
    }

    fn log(&mut self, _: &[u8]) -> bool {
        true
    }

    fn network(&mut self) -> &mut dyn Network {
        &mut self.0
    }
}

fn layer() -> Arc<Layer> {
    let mut layer = LayerBuilder::default();
    layer.directory("tmp").unwrap();
    Arc::new(layer.build())
}

const QUOTA: Quota = Quota {
    bytes_max: 1 << 20,
    inodes_max: 100,
};

fn made(process: &mut Process, memory: &mut FakeMemory, name: &str, args: &[u64]) -> u64 {
    match call(process, memory, FIRST, name, args) {
        Flow::Return(result) if result < u64::MAX - 4096 => result,
        other => panic!("{name} {args:?}: {other:?}"),
    }
}

/// A process that has one of everything, and waits for its input.
fn of_everything() -> (Process, FakeMemory) {
    let (mut process, mut memory) = process();
    let (p, m) = (&mut process, &mut memory);
    p.stage = Stage::Init { despite: false };
    p.input = Input::Awaited;
    m.write(DATA, b"/tmp/file\0").unwrap();
    let file = made(p, m, "open", &[DATA, 0o102, 0o644]);
    made(p, m, "write", &[file, DATA, 9]);
    made(p, m, "pipe2", &[DATA + 64, 0]);
    made(p, m, "socketpair", &[1, 1, 0, DATA + 72]);
    made(p, m, "write", &[7, DATA, 4]);
    let event = made(p, m, "eventfd2", &[3, 0]);
    made(p, m, "timerfd_create", &[1, 0]);
    let epoll = made(p, m, "epoll_create1", &[0]);
    m.write(DATA + 80, &[1, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0])
        .unwrap();
    made(p, m, "epoll_ctl", &[epoll, 1, event, DATA + 80]);
    let thread = Tid(made(p, m, "clone", &[0x10d00, DATA + 4096]) as u32);
    assert_eq!(call(p, m, thread, "pause", &[]), Flow::Switch);
    m.write(DATA + 128, &[0; 64]).unwrap();
    m.write(DATA + 128, &0x40_1000_u64.to_le_bytes()).unwrap();
    made(p, m, "rt_sigaction", &[10, DATA + 128, 0, 8]);
    made(p, m, "write", &[2, DATA, 3]);
    made(p, m, "mmap", &[0, 1 << 16, 3, 0x22, u64::MAX, 0]);
    let waits = call(p, m, FIRST, "read", &[0, DATA, 9]);
    assert_eq!(waits, Flow::Switch);
    assert!(p.awaits().is_some());
    (process, memory)
}

#[test]
fn the_form_is_what_it_was() {
    let saved = Saved::of(of_everything().0, FIRST).0;
    let bytes = saved.encode().unwrap();
    // If this fails, images that nodes have stored mean something else now: count FORM up.
    let text = "sha256:c35b7a483c24567023d7208452a738022464c7386165059c87b8e4349657c38d";
    assert_eq!((FORM, Digest::of(&bytes).to_string().as_str()), (2, text));
}

#[test]
fn it_comes_back_as_it_was_and_its_calls_do_not_see_each_other() {
    let (process, mut memory) = of_everything();
    let saved = Saved::of(process, FIRST).0;
    let bytes = saved.encode().unwrap();
    let back = Saved::decode(&bytes, layer(), QUOTA).unwrap();
    assert_eq!(back.encode().unwrap(), bytes);
    for _ in 0..2 {
        let world = Box::new(Nowhere(NoNetwork));
        let mut process = back.process(Bytes::from_static(b"input"), world, (8 << 20, 1));
        let (p, m) = (&mut process, &mut memory);
        assert_eq!((p.said.as_slice(), p.threads.count()), (&b"/tm"[..], 2));
        let turn = p.turn(m);
        assert!(matches!(turn, super::super::process::Turn::Run(_)));
        assert_eq!(p.threads.find(FIRST).unwrap().regs.rax, 5);
        assert_eq!(made(p, m, "lseek", &[3, 0, 1]), 9);
        assert_eq!(made(p, m, "write", &[3, DATA, 5]), 5);
        assert_eq!(made(p, m, "read", &[6, DATA, 9]), 4);
        assert_eq!(made(p, m, "epoll_wait", &[10, DATA, 4, 0]), 1);
        assert_eq!(made(p, m, "read", &[8, DATA, 8]), 8);
    }
}

#[test]
fn another_form_or_layer_is_refused_and_whatever_is_cut_short() {
    let saved = Saved::of(of_everything().0, FIRST).0;
    let mut bytes = saved.encode().unwrap();
    for length in 0..bytes.len() {
        assert!(Saved::decode(&bytes[..length], layer(), QUOTA).is_err());
    }
    let mut of_as_many = LayerBuilder::default();
    of_as_many.directory("temp").unwrap();
    for layer in [Layer::empty(), Arc::new(of_as_many.build())] {
        let other = Saved::decode(&bytes, layer, QUOTA).unwrap_err();
        assert!(matches!(other, SavedError::Files(_)));
    }
    bytes[0] += 1;
    let other = Saved::decode(&bytes, layer(), QUOTA).unwrap_err();
    assert!(matches!(other, SavedError::OtherForm(3)), "{other}");
}
