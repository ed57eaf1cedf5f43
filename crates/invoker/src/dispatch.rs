//! Which invocation to start next, and when to look into the store. Pure: `handle(now, event)`.
//!
//! ```text
//!  accepted ──▶ ready (bounded) ──▶ running (bounded) ──▶ settled
//!     │ no room    ▲                                        │ due later
//!     └──▶ store ──┴─refill, when there is room and it is due ◀──┘
//! ```
//!
//! The store's index of due invocations is the truth. Memory holds a bounded part of it, together
//! with one fact: when the store may hold more that is due (`look_ms`).

use std::collections::{HashSet, VecDeque};

use model::InvocationId;

/// An invocation and when it is due, in milliseconds since 1970.
pub type Due = (u64, InvocationId);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An invocation is durable, and due now.
    Accepted(InvocationId),
    /// A refill came back: the earliest of the store's index, in order.
    Refilled {
        /// Those due, at most as many as were asked for, and perhaps one more that is due later.
        entries: Vec<Due>,
        /// Whether the index holds more than these.
        more: bool,
    },
    /// A refill could not be read.
    RefillFailed {
        /// When to try again.
        retry_ms: u64,
    },
    /// An attempt is over, and its invocation final.
    Finished(InvocationId),
    /// An attempt is over, and its invocation is in the store's index, due at this time.
    Requeued(Due),
    /// The store holds something due that memory was not told of.
    Look,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run an attempt; answer with `Finished` or `Requeued`.
    Start(InvocationId),
    /// Read this many of the earliest entries; answer with `Refilled` or `RefillFailed`.
    Refill {
        /// How many.
        limit: usize,
    },
}

/// The part of the queue that is in memory.
#[derive(Debug)]
pub struct Dispatch {
    ready: VecDeque<InvocationId>,
    /// Ready or running.
    known: HashSet<InvocationId>,
    running: usize,
    ready_max: usize,
    running_max: usize,
    delay_ms_max: u64,
    /// When the store may have something due that memory does not know; none: never.
    look_ms: Option<u64>,
    is_refilling: bool,
    /// What became due in the store while a refill was under way, which may have missed it.
    look_again_ms: Option<u64>,
}

impl Dispatch {
    /// An empty queue, which looks into the store first of all. Nothing is put off for longer than
    /// `delay_ms_max`.
    pub fn new(ready_max: usize, running_max: usize, delay_ms_max: u64) -> Self {
        Self {
            ready: VecDeque::new(),
            known: HashSet::new(),
            running: 0,
            ready_max: ready_max.max(1),
            running_max: running_max.max(1),
            delay_ms_max,
            look_ms: Some(0),
            is_refilling: false,
            look_again_ms: None,
        }
    }

    /// Takes in an event; gives what to do.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        match event {
            Event::Accepted(id) => self.accept(now_ms, id),
            Event::Refilled { entries, more } => self.refill(now_ms, entries, more),
            Event::RefillFailed { retry_ms } => {
                self.is_refilling = false;
                self.look_at(retry_ms);
            }
            Event::Finished(id) => self.settle(id),
            Event::Requeued((due_ms, id)) => {
                self.settle(id);
                self.look_at(due_ms);
            }
            Event::Look => self.look_at(now_ms),
            Event::Tick => {}
        }
        self.act(now_ms)
    }

    /// When to send the next `Tick`; none when nothing is expected.
    pub fn wake_ms(&self) -> Option<u64> {
        self.look_ms
            .filter(|_| !self.is_refilling && self.has_room())
    }

    /// Attempts that run.
    pub fn running(&self) -> usize {
        self.running
    }

    fn accept(&mut self, now_ms: u64, id: InvocationId) {
        if self.ready.len() >= self.ready_max {
            return self.look_at(now_ms);
        }
        if self.known.insert(id) {
            self.ready.push_back(id);
        }
    }

    fn refill(&mut self, now_ms: u64, entries: Vec<Due>, more: bool) {
        self.is_refilling = false;
        let mut look_ms = more.then_some(now_ms);
        for (due_ms, id) in entries {
            if self.is_due(due_ms, now_ms)
                && (self.known.contains(&id) || self.ready.len() < self.ready_max)
            {
                if self.known.insert(id) {
                    self.ready.push_back(id);
                }
                continue;
            }
            // What comes after is due later still.
            look_ms = Some(due_ms.max(now_ms));
            break;
        }
        self.look_ms = look_ms;
        if let Some(again) = self.look_again_ms.take() {
            self.look_at(again);
        }
    }

    fn is_due(&self, due_ms: u64, now_ms: u64) -> bool {
        is_due(due_ms, now_ms, self.delay_ms_max)
    }

    fn settle(&mut self, id: InvocationId) {
        if self.known.remove(&id) {
            self.running -= 1;
        }
    }

    fn look_at(&mut self, at_ms: u64) {
        let look = match self.is_refilling {
            true => &mut self.look_again_ms,
            false => &mut self.look_ms,
        };
        *look = Some(look.map_or(at_ms, |look_ms| look_ms.min(at_ms)));
    }

    /// A refill is worth its while once half of the queue is free.
    fn has_room(&self) -> bool {
        self.ready.len() <= self.ready_max / 2
    }

    fn act(&mut self, now_ms: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.running < self.running_max
            && let Some(id) = self.ready.pop_front()
        {
            self.running += 1;
            actions.push(Action::Start(id));
        }
        let is_due = self.look_ms.is_some_and(|at| self.is_due(at, now_ms));
        if is_due && !self.is_refilling && self.has_room() {
            self.is_refilling = true;
            self.look_ms = None;
            // Those that are known may be the earliest of the index: ask for as many more.
            let limit = self.ready_max - self.ready.len() + self.known.len() + 1;
            actions.push(Action::Refill { limit });
        }
        actions
    }
}

/// Whether it is time. What is further ahead than anything is put off was written by a clock that
/// ran ahead, as before it was set back: it is due, for it would wait until this one comes there.
pub fn is_due(due_ms: u64, now_ms: u64, delay_ms_max: u64) -> bool {
    due_ms <= now_ms || due_ms - now_ms > delay_ms_max
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A store's index and a driver, both as simple as can be.
    struct World {
        dispatch: Dispatch,
        index: BTreeSet<Due>,
        running: BTreeMap<InvocationId, u64>,
        refill: Option<usize>,
        finished: BTreeSet<InvocationId>,
        now: u64,
    }

    const READY_MAX: usize = 3;
    const RUNNING_MAX: usize = 2;
    const DELAY_MAX: u64 = 20;

    impl World {
        fn new() -> Self {
            Self {
                dispatch: Dispatch::new(READY_MAX, RUNNING_MAX, DELAY_MAX),
                index: BTreeSet::new(),
                running: BTreeMap::new(),
                refill: None,
                finished: BTreeSet::new(),
                now: 1,
            }
        }

        fn event(&mut self, event: Event) {
            for action in self.dispatch.handle(self.now, event) {
                match action {
                    Action::Start(id) => {
                        let due = *self.index.iter().find(|(_, other)| *other == id).unwrap();
                        let is_due = is_due(due.0, self.now, DELAY_MAX);
                        assert!(is_due, "nothing starts before it is due");
                        self.index.remove(&due);
                        assert_eq!(self.running.insert(id, due.0), None, "once at a time");
                    }
                    Action::Refill { limit } => assert_eq!(self.refill.replace(limit), None),
                }
            }
            assert!(self.running.len() <= RUNNING_MAX);
            assert!(self.dispatch.ready.len() <= READY_MAX);
        }

        fn accept(&mut self, n: u64) {
            let id = InvocationId::new(n);
            self.index.insert((self.now, id));
            self.event(Event::Accepted(id));
        }

        fn answer_refill(&mut self, fail: bool) {
            let Some(limit) = self.refill.take() else {
                return;
            };
            if fail {
                return self.event(Event::RefillFailed {
                    retry_ms: self.now + 5,
                });
            }
            let entries = self.index.iter().copied().take(limit).collect();
            let more = self.index.len() > limit;
            self.event(Event::Refilled { entries, more });
        }

        fn settle(&mut self, retry_in: Option<u64>) {
            let Some((id, _)) = self.running.pop_first() else {
                return;
            };
            match retry_in {
                Some(delay) => {
                    let due = (self.now + delay, id);
                    self.index.insert(due);
                    self.event(Event::Requeued(due));
                }
                None => {
                    self.finished.insert(id);
                    self.event(Event::Finished(id));
                }
            }
        }

        /// Lets everything come to its end, moving time only where the queue asks to be woken.
        fn drain(&mut self) {
            for _ in 0..10_000 {
                self.answer_refill(false);
                self.settle(None);
                if self.running.is_empty() && self.refill.is_none() {
                    match self.dispatch.wake_ms() {
                        Some(at) => self.now = self.now.max(at),
                        None => return,
                    }
                    self.event(Event::Tick);
                }
            }
            panic!("the queue never comes to rest");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Accept,
        Settle(Option<u64>),
        Refill(bool),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Accept),
            3 => prop::option::of(0u64..20).prop_map(Step::Settle),
            3 => prop::bool::weighted(0.2).prop_map(Step::Refill),
            2 => (0u64..10).prop_map(Step::Wait),
        ]
    }

    #[test]
    fn what_a_clock_wrote_that_was_set_back_does_not_wait_for_it() {
        let mut world = World::new();
        world.now = 10_000;
        // One at its time by the clock as it was, one that is put off, one that was just accepted.
        for (n, due) in [(1, world.now), (2, world.now + DELAY_MAX), (3, 100)] {
            world.index.insert((due, InvocationId::new(n)));
        }
        world.now = 100;
        world.event(Event::Tick);
        world.answer_refill(false);
        assert_eq!(world.running.len(), RUNNING_MAX);
        world.drain();
        assert_eq!((world.finished.len(), world.now), (3, 100));
        // Nor does the look into the store that was to come.
        world.now = 10_000;
        world.event(Event::Requeued((10_000 + DELAY_MAX, InvocationId::new(4))));
        world.now = 100;
        world.event(Event::Tick);
        assert!(world.refill.is_some());
    }

    proptest! {
        /// Whatever the order: bounds hold, nothing starts early or twice at once, and in the end
        /// all that was accepted is finished.
        #[test]
        fn nothing_accepted_is_forgotten(steps in prop::collection::vec(step(), 0..120)) {
            let mut world = World::new();
            world.event(Event::Tick);
            let mut accepted = 0;
            for step in steps {
                match step {
                    Step::Accept => {
                        accepted += 1;
                        world.accept(accepted);
                    }
                    Step::Settle(retry_in) => world.settle(retry_in),
                    Step::Refill(fail) => world.answer_refill(fail),
                    Step::Wait(ms) => {
                        world.now += ms;
                        world.event(Event::Tick);
                    }
                }
            }
            world.drain();
            prop_assert_eq!(world.finished.len() as u64, accepted);
            prop_assert!(world.index.is_empty());
        }
    }
}
