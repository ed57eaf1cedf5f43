//! Where a call runs: here while there is a place, else on the node that the scheduler chooses,
//! else in the queue here. A call whose data is larger than itself goes to its data first.
//!
//! ```text
//!  job ─▶ data elsewhere? ─yes─▶ forward there ─▶ reply        asked only if it names keys
//!            │ no      ▲───────────┘ refused
//!         place here? ─yes─▶ run                           no look at the cluster, no allocation
//!            │ no
//!            ▼
//!        room elsewhere? ─yes─▶ forward ─accepted─▶ reply
//!            │ no    ▲             │ refused, not reached: avoid that node
//!            │       └─────────────┘ lost: again if it may run twice, else an error
//!            ▼
//!        open? ─yes─▶ queue here    ─no, or full─▶ a queue elsewhere, or none
//! ```

use std::sync::Arc;
use std::time::Duration;

use api::v1::{ClusterNode, Graph, NodeStanding};
use async_trait::async_trait;
use bytes::Bytes;
use executor::{Admitted, Executor, Finished, HttpReply, Job};
use gateway::{Call, Cluster, LogsElsewhere, LogsWanted, NodesError, NotRun, Ran};
use membership::Membership;
use model::InvocationId;
use sandbox::Body;
use scheduler::Standing;
use tokio::sync::watch;
use transport::Peers;

use super::away::{Away, Offers};
use super::decisions::Decisions;
use super::forward::{Held, http_input};
use super::hints::Hints;
use super::neighbours::Neighbours;
use super::search::{Next, Search};
use super::wire::InputRef;
use super::{logs, nodes};

/// Bytes of a reply beside what the function may say: the report of an error.
pub(super) const REPORT_BYTES: u64 = 1 << 20;

/// Places calls.
pub(crate) struct Placing {
    pub(super) executor: Executor,
    pub(super) membership: Membership,
    pub(super) neighbours: Arc<Neighbours>,
    pub(super) peers: Peers,
    pub(super) decisions: Decisions,
    pub(super) hints: Hints,
    /// What this node says of itself.
    pub(super) standing: watch::Sender<Standing>,
    /// Longest wait in a queue.
    pub(super) queue_wait_max: Duration,
    /// Calls that functions wait for a place for, and those that run elsewhere.
    pub(super) offers: Offers,
    pub(super) away: Arc<Away>,
}

impl Placing {
    /// A place here, if this node takes calls, there is one, and the call's data does not call it
    /// away; else the job again.
    fn here(&self, job: Job, input_bytes: u64) -> Result<Admitted, Box<Job>> {
        if !self.neighbours.is_open() || self.is_called_away(&job, input_bytes) {
            return Err(Box::new(job));
        }
        let admitted = self.executor.admit_at_once(job);
        admitted.map_err(|back| Box::new(back.0))
    }

    /// Whether the call should go to its data, which is elsewhere.
    pub fn is_called_away(&self, job: &Job, input_bytes: u64) -> bool {
        !job.spec.settings.near.is_empty()
            && self.search(job, input_bytes, false).to_data().is_some()
    }

    fn ran<T>(&self, reply: T) -> Ran<T> {
        let node = self.membership.id().clone();
        Ran { node, reply }
    }

    pub(super) fn search<'a>(&'a self, job: &'a Job, bytes: u64, idempotent: bool) -> Search<'a> {
        Search::new(self, job, bytes, idempotent)
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
        let bytes = body.len() as u64;
        let job = match self.here(call.job, bytes) {
            Ok(place) => return Ok(self.ran(place.invoke(body, args, env).await?)),
            Err(job) => *job,
        };
        let mut search = self.search(&job, bytes, call.idempotent);
        let reply_bytes_max = job.spec.settings.limits.output_bytes_max + REPORT_BYTES;
        let mut head = search.head(InputRef::Plain {
            args: &args,
            env: &env,
        });
        loop {
            let there = match search.next() {
                Next::There(there) => there,
                Next::Here => match self.executor.admit(job.clone()).await {
                    Ok(place) => return Ok(self.ran(place.invoke(body, args, env).await?)),
                    Err(rejected) => {
                        search.leave_queue(rejected)?;
                        continue;
                    }
                },
                Next::Nowhere => return Err(search.nowhere()),
            };
            head.may_wait = there.may_wait;
            let sent = search
                .way(&there)
                .plain(&mut head, &body, reply_bytes_max)
                .await;
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
        let job = match self.here(call.job, 0) {
            Ok(place) => return Ok(self.ran(place.invoke_http(request).await?)),
            Err(job) => *job,
        };
        let mut search = self.search(&job, 0, call.idempotent);
        let (parts, body) = request.into_parts();
        let mut held = Held::of(body);
        let input = http_input(&parts);
        let mut head = search.head(input.to_send());
        loop {
            let there = match search.next() {
                Next::There(there) => there,
                Next::Here => match self.executor.admit(job.clone()).await {
                    Ok(place) => {
                        let body = held.into_body().unwrap_or_else(sandbox::empty_body);
                        let request = http::Request::from_parts(parts, body);
                        return Ok(self.ran(place.invoke_http(request).await?));
                    }
                    Err(rejected) => {
                        search.leave_queue(rejected)?;
                        continue;
                    }
                },
                Next::Nowhere => return Err(search.nowhere()),
            };
            head.may_wait = there.may_wait;
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

    async fn explain(&self, id: InvocationId) -> Option<String> {
        match self.decisions.of(id) {
            Some(text) => Some(text),
            None => self.explained_elsewhere(id).await,
        }
    }

    async fn graph(&self, id: InvocationId, here: Option<Graph>) -> Option<Graph> {
        self.whole_graph(id, here).await
    }
}
