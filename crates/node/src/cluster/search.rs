//! The search for a node, for one call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use executor::{Job, Rejected, Scope};
use gateway::{NotRun, Ran};
use model::NodeId;
use scheduler::{Demand, Holding, Placement, Policy, Resources, Standing, Tag, Via, Weights};

use super::decisions::weigh;
use super::forward::{Failed, Way};
use super::metrics;
use super::neighbours::Sent;
use super::place::Placing;
use super::wire::{self, Head, InputRef, Stem};

/// Nodes that a call is sent to before it stays where it came in; as many more where the queue
/// there is full.
const SENT_MAX: usize = 3;

/// The search for a node, for one call.
pub(super) struct Search<'a> {
    placing: &'a Placing,
    job: &'a Job,
    input_bytes: u64,
    idempotent: bool,
    data: Vec<Holding>,
    stage: Stage,
    avoid: Vec<NodeId>,
    /// What was said by those that did not take it.
    said: Vec<String>,
    /// That the queue here is full.
    rejected: Option<Rejected>,
}

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The node that has its data.
    Data,
    /// A place here, since that node did not take it.
    Here,
    /// Another node with room.
    Room,
    /// A place in the queue of another node, since the queue here is full.
    Queue,
}

/// A node that is to run the call.
pub(super) struct There {
    pub node: NodeId,
    pub sent: Arc<Sent>,
    pub may_wait: bool,
    explanation: scheduler::Explanation,
}

/// What to try next.
pub(super) enum Next {
    There(There),
    Here,
    Nowhere,
}

impl<'a> Search<'a> {
    pub fn new(placing: &'a Placing, job: &'a Job, input_bytes: u64, idempotent: bool) -> Self {
        Search {
            placing,
            job,
            input_bytes,
            idempotent,
            data: placing.hints.data(job),
            stage: Stage::Data,
            avoid: Vec::new(),
            said: Vec::new(),
            rejected: None,
        }
    }

    pub fn next(&mut self) -> Next {
        if self.stage == Stage::Data {
            self.stage = Stage::Here;
            match self.to_data() {
                Some(there) => return Next::There(there),
                None => self.leave_here(),
            }
        }
        let is_open = self.placing.neighbours.is_open() && self.stage != Stage::Queue;
        if self.stage == Stage::Here {
            self.leave_here();
            if is_open {
                return Next::Here;
            }
        }
        if let Some(there) = self.to_room() {
            return Next::There(there);
        }
        if is_open {
            return Next::Here;
        }
        if let Some(there) = self.there(None, |_| true) {
            return Next::There(there);
        }
        // A node that stops runs what nobody else takes; one that is cordoned was told not to.
        match *self.placing.standing.borrow() {
            // In its queue, unless that was full already.
            Standing::Draining if self.stage != Stage::Queue => Next::Here,
            _ => Next::Nowhere,
        }
    }

    /// Looks for other nodes from now on.
    pub fn leave_here(&mut self) {
        self.stage = Stage::Room;
        self.avoid.push(self.placing.membership.id().clone());
    }

    /// Looks for a place in the queues of others from now on, if the one here is full.
    pub fn leave_queue(&mut self, rejected: Rejected) -> Result<(), NotRun> {
        match rejected {
            Rejected::QueueFull { scope, .. } if scope != Scope::Wait => {
                self.stage = Stage::Queue;
                self.rejected = Some(rejected);
                // Who had no place may have room in its queue.
                self.avoid = vec![self.placing.membership.id().clone()];
                Ok(())
            }
            other => Err(other.into()),
        }
    }

    /// The node that the call's data calls it to, if that is not this one.
    pub fn to_data(&self) -> Option<There> {
        match self.data.is_empty() {
            true => None,
            false => self.to_room(),
        }
    }

    /// The best of the nodes with room.
    pub fn to_room(&self) -> Option<There> {
        self.there(None, |via| via != Via::Queue)
    }

    /// This node, if it has room and did not refuse yet.
    pub fn to(&self, node: &NodeId) -> Option<There> {
        self.there(Some(node), |via| via != Via::Queue)
    }

    fn there(&self, only: Option<&NodeId>, fits: fn(Via) -> bool) -> Option<There> {
        let sent_max = match self.stage {
            Stage::Queue => 2 * SENT_MAX,
            _ => SENT_MAX,
        };
        if self.said.len() >= sent_max {
            return None;
        }
        let placing = self.placing;
        let mut demand = self.demand();
        let needs = demand.needs;
        let weigh = |roster: &membership::Roster| {
            if let Some(only) = only {
                let others = roster.peers().keys().filter(|node| *node != only);
                demand.avoid.extend(others.cloned());
            }
            // Alone there is nobody to be weighed.
            (roster.view().len() > 1).then(|| weigh(roster.view(), &demand, &Weights::default()))
        };
        let explanation = placing.membership.look(weigh)?;
        let Ok(Placement { node, via, .. }) = &explanation.decision.outcome else {
            return None;
        };
        if node == placing.membership.id() || !fits(*via) {
            return None;
        }
        Some(There {
            node: node.clone(),
            sent: Arc::new(placing.neighbours.send(node, needs)?),
            may_wait: *via == Via::Queue || self.stage == Stage::Queue,
            explanation,
        })
    }

    fn demand(&self) -> Demand {
        let expected = self.placing.executor.expected(self.job);
        let run_us = u64::try_from(expected.time.as_micros()).unwrap_or(u64::MAX);
        let version = Tag::from(&self.job.version);
        Demand {
            here: self.placing.membership.id().clone(),
            version,
            image_bytes: self.placing.hints.image_bytes(&self.job.spec),
            needs: Resources {
                places: 1,
                memory_bytes: expected.memory_bytes,
            },
            input_bytes: self.input_bytes,
            data: self.data.clone(),
            run_us,
            avoid: self.avoid.clone(),
            policy: Policy::Locality,
            seed: scheduler::habit(self.placing.membership.id(), version),
        }
    }

    /// What is sent of the call, to whichever node.
    pub fn head<'i>(&self, input: InputRef<'i>) -> Head<InputRef<'i>> {
        let stem = |branch: &sandbox::Branch| Stem {
            root: branch.root(),
            parent: branch.parent,
            depth: branch.depth,
            left_ms: left(branch.deadline).as_millis() as u64,
        };
        Head {
            id: self.job.id,
            path: self.job.path.clone(),
            version: self.job.version,
            trace: self.job.trace,
            may_wait: false,
            streams: false,
            stem: self.job.branch.as_deref().map(stem),
            input,
        }
    }

    pub fn way<'w>(&'w self, there: &'w There) -> Way<'w> {
        let placing = self.placing;
        let queue = there.may_wait.then_some(placing.queue_wait_max);
        let own = Duration::from_millis(self.job.spec.settings.limits.deadline_ms);
        let branch = self.job.branch.as_deref();
        let deadline = branch.map_or(own, |branch| own.min(left(branch.deadline)));
        Way {
            peers: &placing.peers,
            node: &there.node,
            sent: there.sent.clone(),
            timeout: wire::patience(deadline, queue),
        }
    }

    /// Notes how it went; an error ends the search.
    pub fn sent<T>(
        &mut self,
        there: There,
        sent: Result<T, Failed>,
        can_repeat: bool,
    ) -> Result<Option<Ran<T>>, NotRun> {
        if let Err(Failed::Refused(refusal)) = &sent {
            there.sent.hear(refusal.brief);
        }
        let There {
            node, explanation, ..
        } = there;
        let (result, text) = match &sent {
            Ok(_) => ("ran", format!("{node} ran it")),
            Err(Failed::NotBegun(why)) => ("unreached", format!("{node} was not reached: {why}")),
            Err(Failed::Refused(refusal)) => {
                let message = &refusal.message;
                (
                    refusal.why.as_str(),
                    format!("{node} refused it: {message}"),
                )
            }
            Err(Failed::Lost(why)) => ("lost", format!("{node} was lost with it: {why}")),
        };
        ::metrics::counter!(metrics::FORWARDED_TOTAL, "outcome" => result).increment(1);
        let id = self.job.id;
        self.placing.decisions.keep(id, explanation, text.clone());
        match sent {
            Ok(reply) => Ok(Some(Ran { node, reply })),
            Err(Failed::Lost(why)) if !(self.idempotent && can_repeat) => {
                Err(NotRun::Lost { node, why })
            }
            Err(_) => {
                self.said.push(text);
                self.avoid.push(node);
                Ok(None)
            }
        }
    }

    pub fn nowhere(&mut self) -> NotRun {
        if let Some(rejected) = self.rejected.take() {
            return rejected.into();
        }
        let said = match self.said.is_empty() {
            true => "no other node has room".to_owned(),
            false => self.said.join("; "),
        };
        NotRun::NoNode(format!("this node takes no new calls, and {said}"))
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
