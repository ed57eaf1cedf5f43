//! Two nodes by one name, over a store with leases, with clocks that go wrong and messages that
//! are late or lost: never are both of them members, and none outlives its record.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use proptest::prelude::*;
use storage::LeaseId;

use crate::session::{Action, Event, Moment, Session, Terms};

const MS: Duration = Duration::from_millis(1);

const TERMS: Terms = Terms {
    ttl: Duration::from_millis(1000),
    margin: Duration::from_millis(100),
    renew_every: Duration::from_millis(200),
    retry_after: Duration::from_millis(50),
};

/// Time that a driver gives a request, by its own clock.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

/// What happens to one request: how long it and its answer travel, and whether they arrive.
#[derive(Clone, Copy, Debug)]
struct Fate {
    there_ms: u64,
    back_ms: u64,
    arrives: bool,
    returns: bool,
}

/// A request: in which life of its node, and which of that.
type Number = (u64, u64);

/// What happens at a moment of true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrives {
        node: usize,
        number: Number,
        kind: Kind,
        lease: u64,
        back_ms: u64,
        returns: bool,
    },
    Answers {
        node: usize,
        number: Number,
        answer: Answer,
    },
    TimesOut {
        node: usize,
        number: Number,
    },
    Wakes {
        node: usize,
    },
    Restarts {
        node: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Grant,
    Join,
    Keep,
    Revoke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Granted(u64),
    Joined(u64),
    Taken,
    Kept,
    Gone,
}

/// The store: leases and one record.
#[derive(Debug, Default)]
struct Leases {
    ends: BTreeMap<u64, Moment>,
    record: Option<(u64, u64)>,
    revision: u64,
}

struct World {
    /// How fast each node's clock goes, in thousandths.
    rates: [u32; 2],
    sessions: [Session; 2],
    /// The request of each node that its driver waits for, besides revocations.
    open: [BTreeSet<Number>; 2],
    /// How often each node has started.
    lives: [u64; 2],
    /// When each node wants to be woken next.
    wakes: [Moment; 2],
    store: Leases,
    steps: BinaryHeap<Reverse<(Moment, u64, Step)>>,
    count: u64,
    fates: Vec<Fate>,
    /// Tokens in the order in which they were members.
    tokens: Vec<u64>,
}

impl World {
    fn new(rates: [u32; 2], fates: Vec<Fate>) -> Self {
        let session = || Session::new(TERMS);
        Self {
            rates,
            sessions: [session(), session()],
            open: Default::default(),
            lives: [0; 2],
            wakes: [Moment::ZERO; 2],
            store: Leases::default(),
            steps: BinaryHeap::new(),
            count: 0,
            fates,
            tokens: Vec::new(),
        }
    }

    fn local(&self, node: usize, at: Moment) -> Moment {
        at * self.rates[node] / 1000
    }

    /// The first moment of true time at which the node's clock shows `local`.
    fn global(&self, node: usize, local: Moment) -> Moment {
        local * 1000 / self.rates[node] + MS
    }

    fn plan(&mut self, at: Moment, step: Step) {
        self.count += 1;
        self.steps.push(Reverse((at, self.count, step)));
    }

    fn tell(&mut self, node: usize, at: Moment, event: Option<Event>) {
        let local = self.local(node, at);
        for action in self.sessions[node].handle(local, event) {
            self.send(node, at, action);
        }
        if let Some(standpoint) = self.sessions[node].standpoint(local)
            && self.tokens.last() != Some(&standpoint.token)
        {
            self.tokens.push(standpoint.token);
        }
        if let Some(wake) = self.sessions[node].next_wake() {
            let wake = self.global(node, wake).max(at + MS);
            if self.wakes[node] != wake {
                self.wakes[node] = wake;
                self.plan(wake, Step::Wakes { node });
            }
        }
    }

    fn send(&mut self, node: usize, at: Moment, action: Action) {
        let fate = self.fates.pop().unwrap_or(Fate {
            there_ms: 1,
            back_ms: 1,
            arrives: true,
            returns: true,
        });
        let (number, kind, lease) = match action {
            Action::Grant(n) => (n, Kind::Grant, 0),
            Action::Join(n, lease) => (n, Kind::Join, lease.0),
            Action::Keep(n, lease) => (n, Kind::Keep, lease.0),
            Action::Revoke(lease) => (0, Kind::Revoke, lease.0),
        };
        if kind != Kind::Revoke {
            let number = (self.lives[node], number);
            self.open[node].insert(number);
            let timeout = REQUEST_TIMEOUT * 1000 / self.rates[node];
            self.plan(at + timeout, Step::TimesOut { node, number });
        }
        if fate.arrives {
            let arrives = Step::Arrives {
                node,
                number: (self.lives[node], number),
                kind,
                lease,
                back_ms: fate.back_ms,
                returns: fate.returns,
            };
            self.plan(at + MS * fate.there_ms as u32, arrives);
        }
    }

    /// Ends what is over; the record with it.
    fn expire(&mut self, at: Moment) {
        let over: Vec<u64> = self
            .store
            .ends
            .iter()
            .filter(|e| *e.1 <= at)
            .map(|e| *e.0)
            .collect();
        over.into_iter().for_each(|lease| self.store.end(lease));
    }

    fn step(&mut self, at: Moment, step: Step) {
        match step {
            // Another wake was planned since.
            Step::Wakes { node } if self.wakes[node] != at => (),
            Step::Wakes { node } => self.tell(node, at, None),
            Step::Restarts { node } => {
                // The requests of its last life may still arrive; nobody hears the answers.
                self.open[node].clear();
                self.lives[node] += 1;
                self.sessions[node] = Session::new(TERMS);
                self.tell(node, at, None);
            }
            Step::TimesOut { node, number } => {
                if self.open[node].remove(&number) {
                    self.tell(node, at, Some(Event::Failed(number.1)));
                }
            }
            Step::Answers {
                node,
                number,
                answer,
            } => {
                if self.open[node].remove(&number) {
                    self.tell(node, at, Some(answer.event(number)));
                }
            }
            Step::Arrives {
                node,
                number,
                kind,
                lease,
                back_ms,
                returns,
            } => {
                let answer = self.store.asked(at, kind, lease);
                if let Some(answer) = answer.filter(|_| returns) {
                    let answers = Step::Answers {
                        node,
                        number,
                        answer,
                    };
                    self.plan(at + MS * back_ms as u32, answers);
                }
            }
        }
    }

    /// Runs for `end`, and holds at every moment at which anything happens.
    fn run(&mut self, end: Moment) {
        (0..2).for_each(|node| self.plan(MS, Step::Restarts { node }));
        while let Some(Reverse((at, _, step))) = self.steps.pop() {
            if at > end {
                return;
            }
            // A record that ends between two steps is gone before the later one.
            self.expire(at);
            self.check(at);
            self.step(at, step);
            self.check(at);
        }
    }

    fn check(&self, at: Moment) {
        let stand = |node: usize| self.sessions[node].standpoint(self.local(node, at));
        let members: Vec<_> = (0..2).filter_map(stand).collect();
        assert!(members.len() < 2, "two members at {at:?}: {members:?}");
        for member in members {
            let record = self.store.record.map(|(_, token)| token);
            assert_eq!(
                record,
                Some(member.token),
                "a member without its record at {at:?}"
            );
        }
    }
}

impl Answer {
    fn event(self, (_, number): Number) -> Event {
        match self {
            Answer::Granted(lease) => Event::Granted(number, LeaseId(lease)),
            Answer::Joined(token) => Event::Joined(number, token),
            Answer::Taken => Event::Taken(number),
            Answer::Kept => Event::Kept(number),
            Answer::Gone => Event::Gone(number),
        }
    }
}

impl Leases {
    fn end(&mut self, lease: u64) {
        self.ends.remove(&lease);
        self.record = self.record.filter(|record| record.0 != lease);
    }

    fn asked(&mut self, at: Moment, kind: Kind, lease: u64) -> Option<Answer> {
        self.revision += 1;
        match kind {
            Kind::Grant => {
                self.ends.insert(self.revision, at + TERMS.ttl);
                Some(Answer::Granted(self.revision))
            }
            Kind::Revoke => {
                self.end(lease);
                None
            }
            _ if !self.ends.contains_key(&lease) => Some(Answer::Gone),
            Kind::Keep => {
                self.ends.insert(lease, at + TERMS.ttl);
                Some(Answer::Kept)
            }
            Kind::Join if self.record.is_some() => Some(Answer::Taken),
            Kind::Join => {
                self.record = Some((lease, self.revision));
                Some(Answer::Joined(self.revision))
            }
        }
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    let late = prop_oneof![6 => 0..20u64, 2 => 0..400u64, 1 => 0..2000u64];
    let late2 = prop_oneof![6 => 0..20u64, 2 => 0..400u64, 1 => 0..2000u64];
    let arrives = prop_oneof![6 => Just(true), 1 => Just(false)];
    let returns = prop_oneof![6 => Just(true), 1 => Just(false)];
    (late, late2, arrives, returns).prop_map(|(there_ms, back_ms, arrives, returns)| Fate {
        there_ms,
        back_ms,
        arrives,
        returns,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A clock may lose a tenth of the time, which is what the margin is of the lease, nearly.
    #[test]
    fn at_most_one_is_a_member_and_only_while_its_record_is_there(
        rates in [920..1080u32, 920..1080u32],
        fates in prop::collection::vec(fate(), 0..200),
        restarts in prop::collection::vec((0..2usize, 0..20_000u32), 0..6),
    ) {
        let mut world = World::new(rates, fates);
        for (node, at) in restarts {
            world.plan(MS * at, Step::Restarts { node });
        }
        world.run(MS * 20_000);
        let tokens = world.tokens.clone();
        prop_assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    }

    /// Whatever has happened: once messages come through, somebody is a member within two leases.
    #[test]
    fn once_messages_come_through_somebody_is_a_member(
        fates in prop::collection::vec(fate(), 0..60),
    ) {
        let mut world = World::new([1000, 1000], fates);
        world.run(MS * 60_000);
        prop_assert!(world.fates.is_empty(), "time enough for all that goes wrong");
        let local = world.local(0, MS * 60_000);
        let stands = |session: &Session| session.standpoint(local).is_some();
        prop_assert!(world.sessions.iter().any(stands));
    }
}

#[test]
fn a_member_stops_before_its_lease_does_when_nobody_answers() {
    let mut session = Session::new(TERMS);
    assert_eq!(session.handle(MS, None), [Action::Grant(1)]);
    let granted = Event::Granted(1, LeaseId(9));
    assert_eq!(
        session.handle(MS * 100, Some(granted)),
        [Action::Join(2, LeaseId(9))]
    );
    assert_eq!(session.handle(MS * 150, Some(Event::Joined(2, 7))), []);
    // Counted from the request for the lease, at one.
    assert_eq!(session.next_wake(), Some(MS * 201));
    assert_eq!(
        session.handle(MS * 201, None),
        [Action::Keep(3, LeaseId(9))]
    );
    assert_eq!(session.next_wake(), Some(MS * 901));
    assert!(session.standpoint(MS * 900).is_some());
    assert_eq!(
        session.standpoint(MS * 901),
        None,
        "though nobody has told it"
    );
    let late = session.handle(MS * 901, Some(Event::Kept(3)));
    assert_eq!(late, [Action::Revoke(LeaseId(9)), Action::Grant(4)]);
}

#[test]
fn what_comes_too_late_is_ended_and_who_leaves_stays_away() {
    let mut session = Session::new(TERMS);
    session.handle(MS, None);
    assert_eq!(session.handle(MS * 10, Some(Event::Leave)), []);
    assert!(session.has_left() && session.next_wake().is_none());
    let late = session.handle(MS * 20, Some(Event::Granted(1, LeaseId(3))));
    assert_eq!(late, [Action::Revoke(LeaseId(3))]);
    assert_eq!(session.handle(MS * 5000, Some(Event::Freed)), []);
}
