//! Where a call runs: here while there is a place, else on the node that the scheduler chooses,
//! else in the queue here.
//!
//! ```text
//!  job ─▶ place here? ─yes─▶ run                           no look at the cluster, no allocation
//!            │ no
//!            ▼
//!        room elsewhere? ─yes─▶ forward ─accepted─▶ reply
//!            │ no    ▲             │ refused, not reached: avoid that node
//!            │       └─────────────┘ lost: again if it may run twice, else an error
//!            ▼
//!        open? ─yes─▶ queue here    ─no─▶ a queue elsewhere, or none
//! ```

use std::sync::Arc;
use std::time::Duration;

use api::v1::{ClusterNode, NodeStanding};
use async_trait::async_trait;
use bytes::Bytes;
use executor::{Admitted, Executor, Finished, HttpReply, Job};
use gateway::{Call, Cluster, LogsElsewhere, LogsWanted, NodesError, NotRun, Ran};
use membership::Membership;
use model::{InvocationId, NodeId};
use sandbox::Body;
use scheduler::{Demand, Placement, Policy, Resources, Standing, Tag, Via, Weights};
use tokio::sync::watch;
use transport::Peers;

use super::decisions::{Decisions, weigh};
use super::forward::{Failed, Held, Way, http_input};
use super::neighbours::{Neighbours, Sent};
use super::wire::{self, Head, Input};
use super::{logs, metrics, nodes};

/// Nodes that a call is sent to before it stays where it came in.
const SENT_MAX: usize = 3;
/// Bytes of a reply beside what the function may say: the report of an error.
const REPORT_BYTES: u64 = 1 << 20;

/// Places calls.
pub(super) struct Placing {
    pub executor: Executor,
    pub membership: Membership,
    pub neighbours: Arc<Neighbours>,
    pub peers: Peers,
    pub decisions: Decisions,
    /// What this node says of itself.
    pub standing: watch::Sender<Standing>,
    /// Longest wait in a queue.
    pub queue_wait_max: Duration,
}

/// The search for a node, for one call.
struct Search<'a> {
    placing: &'a Placing,
    job: &'a Job,
    input_bytes: u64,
    idempotent: bool,
    avoid: Vec<NodeId>,
    /// What was said by those that did not take it.
    said: Vec<String>,
}

/// A node that is to run the call.
struct There {
    node: NodeId,
    sent: Arc<Sent>,
    may_wait: bool,
    explanation: scheduler::Explanation,
}

/// What to try next.
enum Next {
    There(There),
    Here,
    Nowhere,
}

impl Placing {
    /// A place here, if this node takes calls and there is one; else the job again.
    fn here(&self, job: Job) -> Result<Admitted, Box<Job>> {
        if !self.neighbours.is_open() {
            return Err(Box::new(job));
        }
        let admitted = self.executor.admit_at_once(job);
        admitted.map_err(|back| Box::new(back.0))
    }

    fn ran<T>(&self, reply: T) -> Ran<T> {
        let node = self.membership.id().clone();
        Ran { node, reply }
    }

    fn search<'a>(&'a self, job: &'a Job, input_bytes: u64, idempotent: bool) -> Search<'a> {
        Search {
            placing: self,
            job,
            input_bytes,
            idempotent,
            avoid: vec![self.membership.id().clone()],
            said: Vec::new(),
        }
    }
}

impl Search<'_> {
    fn next(&self) -> Next {
        let placing = self.placing;
        let tries_left = self.avoid.len() <= SENT_MAX;
        let there = |fits: fn(Via) -> bool| tries_left.then(|| self.there(fits)).flatten();
        if let Some(there) = there(|via| via != Via::Queue) {
            return Next::There(there);
        }
        if placing.neighbours.is_open() {
            return Next::Here;
        }
        if let Some(there) = there(|_| true) {
            return Next::There(there);
        }
        // A node that stops runs what nobody else takes; one that is cordoned was told not to.
        match *placing.standing.borrow() {
            Standing::Draining => Next::Here,
            _ => Next::Nowhere,
        }
    }

    fn there(&self, fits: fn(Via) -> bool) -> Option<There> {
        let placing = self.placing;
        let demand = self.demand();
        let weigh = |roster: &membership::Roster| {
            // Alone there is nobody to be weighed.
            (roster.view().len() > 1).then(|| weigh(roster.view(), &demand, &Weights::default()))
        };
        let explanation = placing.membership.look(weigh)?;
        let Ok(Placement { node, via, .. }) = &explanation.decision.outcome else {
            return None;
        };
        if !fits(*via) {
            return None;
        }
        Some(There {
            node: node.clone(),
            sent: Arc::new(placing.neighbours.send(node, demand.needs)?),
            may_wait: *via == Via::Queue,
            explanation,
        })
    }

    fn demand(&self) -> Demand {
        let expected = self.placing.executor.expected(self.job);
        let run_us = u64::try_from(expected.time.as_micros()).unwrap_or(u64::MAX);
        Demand {
            here: self.placing.membership.id().clone(),
            version: Tag::from(&self.job.version),
            image_bytes: 0,
            needs: Resources {
                places: 1,
                memory_bytes: expected.memory_bytes,
            },
            input_bytes: self.input_bytes,
            data: Vec::new(),
            run_us,
            avoid: self.avoid.clone(),
            policy: Policy::Locality,
            seed: self.job.id.as_u128() as u64,
        }
    }

    fn head(&self, may_wait: bool, input: Input) -> Head {
        Head {
            id: self.job.id,
            path: self.job.path.clone(),
            version: self.job.version,
            traceparent: self.job.trace.to_string(),
            may_wait,
            streams: false,
            input,
        }
    }

    fn way<'a>(&'a self, there: &'a There) -> Way<'a> {
        let placing = self.placing;
        let queue = there.may_wait.then_some(placing.queue_wait_max);
        Way {
            peers: &placing.peers,
            node: &there.node,
            sent: there.sent.clone(),
            timeout: wire::patience(self.job.spec.settings.limits.deadline_ms, queue),
        }
    }

    /// Notes how it went; an error ends the search.
    fn sent<T>(
        &mut self,
        there: There,
        sent: Result<T, Failed>,
        can_repeat: bool,
    ) -> Result<Option<Ran<T>>, NotRun> {
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

    fn nowhere(&self) -> NotRun {
        let said = match self.said.is_empty() {
            true => "no other node has room".to_owned(),
            false => self.said.join("; "),
        };
        NotRun::NoNode(format!("this node takes no new calls, and {said}"))
    }
}

#[async_trait]
impl Cluster for Placing {
    async fn invoke(
        &self,
        call: Call,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Ran<Finished>, NotRun> {
        let job = match self.here(call.job) {
            Ok(place) => return Ok(self.ran(place.invoke(body, args, env).await?)),
            Err(job) => *job,
        };
        let mut search = self.search(&job, body.len() as u64, call.idempotent);
        let reply_bytes_max = job.spec.settings.limits.output_bytes_max + REPORT_BYTES;
        loop {
            let there = match search.next() {
                Next::There(there) => there,
                Next::Here => {
                    let ran = self.executor.invoke(job.clone(), body, args, env).await?;
                    return Ok(self.ran(ran));
                }
                Next::Nowhere => return Err(search.nowhere()),
            };
            let (args, env) = (args.clone(), env.clone());
            let mut head = search.head(there.may_wait, Input::Plain { args, env });
            let way = search.way(&there);
            let sent = way.plain(&mut head, &body, reply_bytes_max).await;
            if let Some(ran) = search.sent(there, sent, true)? {
                return Ok(ran);
            }
        }
    }

    async fn invoke_http(
        &self,
        call: Call,
        request: http::Request<Body>,
    ) -> Result<Ran<HttpReply>, NotRun> {
        let job = match self.here(call.job) {
            Ok(place) => return Ok(self.ran(place.invoke_http(request).await?)),
            Err(job) => *job,
        };
        let mut search = self.search(&job, 0, call.idempotent);
        let (parts, body) = request.into_parts();
        let mut held = Held::of(body);
        loop {
            let there = match search.next() {
                Next::There(there) => there,
                Next::Here => {
                    let body = held.into_body().unwrap_or_else(sandbox::empty_body);
                    let request = http::Request::from_parts(parts, body);
                    let ran = self.executor.invoke_http(job.clone(), request).await?;
                    return Ok(self.ran(ran));
                }
                Next::Nowhere => return Err(search.nowhere()),
            };
            let mut head = search.head(there.may_wait, http_input(&parts));
            let sent = search.way(&there).http(&mut head, &mut held).await;
            let can_repeat = !matches!(held, Held::Spent);
            if let Some(ran) = search.sent(there, sent, can_repeat)? {
                return Ok(ran);
            }
        }
    }

    async fn logs(&self, wanted: &LogsWanted) -> LogsElsewhere {
        logs::elsewhere(&self.membership, &self.peers, wanted).await
    }

    fn nodes(&self) -> Vec<ClusterNode> {
        nodes::list(&self.membership)
    }

    async fn want(&self, node: &str, standing: NodeStanding) -> Result<(), NodesError> {
        nodes::want(&self.membership, node, standing).await
    }

    fn explain(&self, id: InvocationId) -> Option<String> {
        self.decisions.of(id)
    }
}
