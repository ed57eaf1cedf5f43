//! All nodes, the store, and what is on its way between them: one step after the other.

mod acts;
mod asked;

use std::collections::{BTreeMap, BTreeSet};

use membership::{Action, Event, Moment, ROOT};
use model::InvocationId;
use scheduler::{Holder, Ledger, Reservation};
use storage::Txn;
use xxhash_rust::xxh3::Xxh3;

use crate::dice::Dice;
use crate::node::{Held, Node};
use crate::store::Store;
use crate::{Plan, Summary};

const MS: Moment = Moment::from_millis(1);
/// From one look of a node at what it knows to the next.
const TICK: Moment = Moment::from_millis(20);
/// After which what nobody has answered is done again.
const AGAIN: Moment = Moment::from_millis(500);
/// After which a run that nobody has heard of is sent to another node.
const RUN_AGAIN: Moment = Moment::from_secs(3);

/// What a node wants of the store.
#[derive(Clone, Debug)]
enum Ask {
    Session(Action),
    Claim {
        shard: usize,
        tenure: u64,
        txn: Txn,
    },
    Outcome {
        id: u64,
        txn: Txn,
    },
    /// Nobody waits for the answer.
    Tell(Txn),
    Reserve {
        group: InvocationId,
        holder: Holder,
        reservations: Vec<Reservation>,
    },
}

/// What the store answers.
#[derive(Clone, Debug)]
enum Answer {
    Session(u64, Event),
    Claimed { shard: usize, held: Held },
}

#[derive(Clone, Debug)]
enum Step {
    Tick {
        node: usize,
        life: u64,
    },
    Asked {
        node: usize,
        life: u64,
        ask: Ask,
    },
    Answered {
        node: usize,
        life: u64,
        answer: Answer,
    },
    TimedOut {
        node: usize,
        life: u64,
        number: u64,
    },
    LeaseEnds,
    Submit {
        id: u64,
    },
    Run {
        from: usize,
        to: usize,
        id: u64,
    },
    Ends {
        node: usize,
        life: u64,
        id: u64,
        owner: usize,
    },
    Ran {
        to: usize,
        id: u64,
        was_run: bool,
    },
    Group {
        n: u64,
    },
    Crash {
        node: usize,
    },
    Start {
        node: usize,
    },
    Cut {
        node: usize,
        is_cut: bool,
    },
    Split {
        at: usize,
    },
}

struct World {
    plan: Plan,
    dice: Dice,
    now: Moment,
    count: u64,
    steps: BTreeMap<(Moment, u64), Step>,
    store: Store,
    ledgers: BTreeMap<usize, Ledger>,
    nodes: Vec<Node>,
    cut: BTreeSet<usize>,
    /// Nodes below it and the others do not hear each other; none does when it is zero.
    split: usize,
    accepted: BTreeSet<u64>,
    /// The last claim of each shard.
    claims: BTreeMap<usize, u64>,
    summary: Summary,
    trace: Xxh3,
}

/// Runs a plan to its end. Panics where an invariant does not hold: the seed is in the plan.
pub fn run(plan: &Plan) -> Summary {
    let mut world = World::new(plan.clone());
    world.foresee();
    let end = plan.span + plan.calm;
    while let Some(((at, _), step)) = world.steps.pop_first() {
        if at > end {
            break;
        }
        world.now = at;
        // Its debug form names everything that a step holds.
        world.trace.update(format!("{at:?} {step:?}").as_bytes());
        world.step(step);
    }
    world.conclude()
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut dice = Dice::new(plan.seed);
        let nodes = (0..plan.nodes).map(|n| {
            let drift = dice.roll(2 * plan.drift_permille + 1) as u32;
            let rate = 1000 + drift - plan.drift_permille as u32;
            let id = format!("n{n}").parse().expect("a label");
            Node::new(id, rate, plan.terms)
        });
        let nodes = nodes.collect();
        Self {
            dice,
            now: Moment::ZERO,
            count: 0,
            steps: BTreeMap::new(),
            store: Store::default(),
            ledgers: BTreeMap::new(),
            nodes,
            cut: BTreeSet::new(),
            split: 0,
            accepted: BTreeSet::new(),
            claims: BTreeMap::new(),
            summary: Summary::default(),
            trace: Xxh3::new(),
            plan,
        }
    }

    /// Plans all that comes from outside, and all that goes wrong.
    fn foresee(&mut self) {
        let (span, nodes) = (self.plan.span, self.plan.nodes);
        for node in 0..nodes {
            let at = self.dice.time(MS * 100);
            self.plan(at, Step::Start { node });
        }
        for id in 0..self.plan.invocations {
            let at = self.dice.time(span);
            self.plan(at, Step::Submit { id });
        }
        for n in 0..self.plan.groups {
            let at = self.dice.time(span);
            self.plan(at, Step::Group { n });
        }
        for _ in 0..self.plan.crashes {
            let (node, at) = (self.dice.index(nodes), self.dice.time(span));
            let back = (at + self.dice.time(MS * 10_000)).min(span);
            self.plan(at, Step::Crash { node });
            self.plan(back, Step::Start { node });
        }
        for _ in 0..self.plan.cuts {
            let (node, at) = (self.dice.index(nodes), self.dice.time(span));
            let back = (at + self.dice.time(MS * 10_000)).min(span);
            self.plan(at, Step::Cut { node, is_cut: true });
            let is_cut = false;
            self.plan(back, Step::Cut { node, is_cut });
        }
        for _ in 0..self.plan.splits {
            let (at, split) = (self.dice.time(span), self.dice.index(nodes));
            let back = (at + self.dice.time(MS * 10_000)).min(span);
            self.plan(at, Step::Split { at: split });
            self.plan(back, Step::Split { at: 0 });
        }
        // Whatever was planned in which order: from here on all is well.
        for node in 0..nodes {
            let is_cut = false;
            self.plan(span, Step::Cut { node, is_cut });
            self.plan(span, Step::Start { node });
        }
        self.plan(span, Step::Split { at: 0 });
    }

    fn plan(&mut self, at: Moment, step: Step) {
        self.count += 1;
        self.steps.insert((at, self.count), step);
    }

    /// Sends something on its way: it may be late, and it may be lost.
    fn send(&mut self, step: Step) {
        let is_rough = self.now < self.plan.span;
        if is_rough && self.dice.chance(self.plan.loss_permille) {
            return;
        }
        let most = self.plan.delay_max;
        let is_late = is_rough && self.dice.chance(20);
        let late = if is_late { most * 30 } else { most };
        let at = self.now + MS / 10 + self.dice.time(late);
        self.plan(at, step);
    }

    fn ask(&mut self, node: usize, ask: Ask) {
        let life = self.nodes[node].life;
        if let Ask::Session(Action::Grant(n) | Action::Join(n, _) | Action::Keep(n, _)) = ask {
            self.nodes[node].open.insert(n);
            let at = self.now + self.plan.terms.renew_every;
            let number = n;
            self.plan(at, Step::TimedOut { node, life, number });
        }
        if !self.cut.contains(&node) {
            self.send(Step::Asked { node, life, ask });
        }
    }

    fn hears(&self, node: usize, life: u64) -> bool {
        self.nodes[node].is_up && self.nodes[node].life == life
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Tick { node, life } if self.hears(node, life) => self.tick(node),
            Step::Asked { node, life, ask } => self.asked(node, life, ask),
            Step::Answered { node, life, answer } if self.hears(node, life) => {
                self.answered(node, answer);
            }
            Step::TimedOut { node, life, number } if self.hears(node, life) => {
                if self.nodes[node].open.remove(&number) {
                    self.tell(node, Some(Event::Failed(number)));
                }
            }
            Step::LeaseEnds => {
                self.store.expire(self.now);
                self.check_owners();
            }
            Step::Submit { id } => self.submit(id),
            Step::Run { from, to, id } => self.start_run(from, to, id),
            Step::Ends {
                node,
                life,
                id,
                owner,
            } if self.hears(node, life) => {
                self.nodes[node].running.remove(&id);
                self.send_between(node, owner, |to| Step::Ran {
                    to,
                    id,
                    was_run: true,
                });
            }
            Step::Ran { to, id, was_run } => self.ran(to, id, was_run),
            Step::Group { n } => self.group(n),
            Step::Crash { node } => self.nodes[node].is_up = false,
            Step::Start { node } => self.start(node),
            Step::Cut { node, is_cut: true } => drop(self.cut.insert(node)),
            Step::Cut { node, .. } => drop(self.cut.remove(&node)),
            Step::Split { at } => self.split = at,
            // For a life that is over.
            Step::Tick { .. }
            | Step::Answered { .. }
            | Step::TimedOut { .. }
            | Step::Ends { .. } => (),
        }
    }

    fn start(&mut self, node: usize) {
        if !self.nodes[node].is_up {
            self.nodes[node].start(self.plan.terms);
            self.tick(node);
        }
    }

    /// Lets a node's session hear something, and do what it wants.
    fn tell(&mut self, node: usize, event: Option<Event>) {
        let local = self.nodes[node].local(self.now);
        for action in self.nodes[node].session.handle(local, event) {
            self.ask(node, Ask::Session(action));
        }
    }

    /// Nobody owns a shard besides the one whose claim is in the store.
    fn check_owners(&self) {
        for at in 0..self.plan.shards {
            let owners = self.nodes.iter().filter_map(|node| node.owns(self.now, at));
            let owners: Vec<Held> = owners.collect();
            assert!(owners.len() < 2, "shard {at} has owners {owners:?}");
            for Held { token, .. } in owners {
                let claim = self.store.get(format!("{ROOT}own/queue/{at}").as_bytes());
                let claim = claim.map(|(_, revision)| revision);
                // One that gives it up stops before the store hears of it.
                assert_eq!(claim, Some(token), "shard {at} is owned without a claim");
            }
        }
    }

    fn conclude(mut self) -> Summary {
        let all: BTreeSet<u64> = (0..self.plan.invocations).collect();
        assert_eq!(self.accepted, all, "every invocation is accepted");
        let left: Vec<_> = self.store.keys("queue/").collect();
        assert!(left.is_empty(), "left in the queue: {left:?}");
        let outcomes = self.store.keys("outcome/").count() as u64;
        assert_eq!(outcomes, self.plan.invocations, "each has an outcome");
        assert_eq!(self.summary.outcomes, outcomes, "and only one");
        self.summary.trace = self.trace.digest();
        self.summary
    }
}

/// Whether the store has the record of the holder's tenure.
fn is_alive(store: &Store, holder: &Holder) -> bool {
    let record = store.get(format!("{ROOT}node/{}", holder.node).as_bytes());
    record.is_some_and(|(_, revision)| revision == holder.token)
}
