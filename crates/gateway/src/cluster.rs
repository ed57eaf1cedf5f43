//! What the gateway needs of a cluster: to run jobs on whichever node has room, and to tell of the
//! nodes. Whoever composes the node implements it; a node that stands alone has none, and pays one
//! look at an `Option`.

use std::fmt;

use api::v1::{ClusterNode, Graph, LogLine, NodeStanding};
use async_trait::async_trait;
use bytes::Bytes;
use executor::{Finished, HttpReply, Job, Rejected};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use metering::LogFilter;
use model::{InvocationId, NodeId};
use sandbox::Body;
use serde::{Deserialize, Serialize};

use crate::call::Caller;

/// A job, and what its caller said of it.
#[derive(Debug)]
pub struct Call {
    /// What is to run.
    pub job: Job,
    /// Whether it may run twice: what is lost with its node is then tried again.
    pub idempotent: bool,
}

/// What ran, and where.
#[derive(Debug)]
pub struct Ran<T> {
    /// Its node.
    pub node: NodeId,
    /// What came of it.
    pub reply: T,
}

/// Why a job has no reply.
#[derive(Debug, thiserror::Error)]
pub enum NotRun {
    /// It was not started.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// No node takes it, and it was not started.
    #[error("{0}")]
    NoNode(String),
    /// It may have run: its node is gone, or does not answer.
    #[error("node {node} took the call and was lost: {why}")]
    Lost {
        /// The node.
        node: NodeId,
        /// What is known of it.
        why: String,
    },
}

/// Why nothing could be asked of a cluster's nodes.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// No such node is known.
    #[error("the cluster has no node `{0}`")]
    Unknown(String),
    /// The cluster's store failed.
    #[error("what is wanted of the node could not be written down")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Which lines of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogsWanted {
    /// Of what.
    pub filter: LogFilter,
    /// How many of the last ones.
    pub tail: usize,
    /// Whether each new one, too.
    pub follow: bool,
}

/// What guests printed on other nodes.
pub struct LogsElsewhere {
    /// This node; none if it stands alone.
    pub here: Option<NodeId>,
    /// The last lines of each node, in no order.
    pub lines: Vec<LogLine>,
    /// Nodes that did not answer.
    pub silent: Vec<NodeId>,
    /// New lines; ends at once unless they are wanted.
    pub new: BoxStream<'static, LogLine>,
}

impl LogsElsewhere {
    /// What a node that stands alone has of other nodes.
    pub(crate) fn none() -> Self {
        Self {
            here: None,
            lines: Vec::new(),
            silent: Vec::new(),
            new: stream::empty().boxed(),
        }
    }
}

impl fmt::Debug for LogsElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogsElsewhere").finish_non_exhaustive()
    }
}

/// The cluster that a node is part of.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// Runs a command or reactor. Dropping the future cancels the invocation, wherever it runs.
    async fn invoke(
        &self,
        call: Call,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Ran<Finished>, NotRun>;

    /// Runs an http component until its response begins. Dropping the future, or the response's
    /// body before its end, cancels the invocation, wherever it runs.
    async fn invoke_http(
        &self,
        call: Call,
        request: http::Request<Body>,
    ) -> Result<Ran<HttpReply>, NotRun>;

    /// What guests printed on the other nodes. Those that do not answer in time are named.
    async fn logs(&self, wanted: &LogsWanted) -> LogsElsewhere;

    /// Every node that is alive.
    fn nodes(&self) -> Vec<ClusterNode>;

    /// Says what operators want of a node, which holds until they want something else.
    async fn want(&self, node: &str, standing: NodeStanding) -> Result<(), NodesError>;

    /// Why an invocation runs where it does, in text; none if no node sent it elsewhere, or none
    /// that can be asked still knows.
    async fn explain(&self, id: InvocationId) -> Option<String>;

    /// The graph that an invocation is in: what this node has of it, and what the others have.
    async fn graph(&self, id: InvocationId, here: Option<Graph>) -> Option<Graph>;
}

/// What a reply says of how its invocation ran.
pub(crate) struct Told<T> {
    pub(crate) node: Option<NodeId>,
    pub(crate) reply: T,
}

impl<T> Told<T> {
    fn here(reply: T) -> Self {
        Self { node: None, reply }
    }

    fn of(ran: Ran<T>) -> Self {
        Self {
            node: Some(ran.node),
            reply: ran.reply,
        }
    }
}

impl Caller {
    /// Runs a command or reactor: here, or where the cluster has room.
    pub(crate) async fn run(
        &self,
        call: Call,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Told<Finished>, NotRun> {
        let Some(cluster) = &self.cluster else {
            let ran = self.executor.invoke(call.job, body, args, env).await;
            return Ok(Told::here(ran?));
        };
        Ok(Told::of(cluster.invoke(call, body, args, env).await?))
    }

    /// Runs an http component: here, or where the cluster has room.
    pub(crate) async fn run_http(
        &self,
        call: Call,
        request: http::Request<Body>,
    ) -> Result<Told<HttpReply>, NotRun> {
        let Some(cluster) = &self.cluster else {
            let ran = self.executor.invoke_http(call.job, request).await;
            return Ok(Told::here(ran?));
        };
        Ok(Told::of(cluster.invoke_http(call, request).await?))
    }
}
