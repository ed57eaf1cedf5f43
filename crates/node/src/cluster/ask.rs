//! Short questions to other nodes, each with one answer, in JSON.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use model::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use transport::{CallError, PeerError, Peers, Request, Status};

use super::router::Service;
use super::wire::json;

/// How long an answer may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Longest question.
pub(super) const QUESTION_BYTES_MAX: usize = 4 << 10;
/// Nodes that are asked at once, where all of them are.
const ASKED_AT_ONCE: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("it was not reached")]
    Peer(#[from] PeerError),
    #[error("the question was cut")]
    Call(#[from] CallError),
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer cannot be read")]
    Answer(#[from] serde_json::Error),
}

/// Asks a node by one of the methods of the call service.
pub(super) async fn ask<Q: Serialize, A: DeserializeOwned>(
    peers: &Peers,
    node: &NodeId,
    method: u8,
    question: &Q,
) -> Result<A, AskError> {
    let bytes = bytes::Bytes::from(json(question));
    let request = Request::new(Service::Call.method(method), bytes).timeout(ANSWER_WAIT_MAX);
    let connection = peers.connection(node).await?;
    let reply = connection.ask(request).await?.reply().await?;
    if reply.status != Status::OK {
        return Err(AskError::Status(reply.status.0));
    }
    let answer = reply.body.collect(ANSWER_BYTES_MAX).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Asks many nodes the same; what there is of answers, as they come.
pub(super) fn ask_all<'a, Q: Serialize + Sync, A: DeserializeOwned + 'a>(
    peers: &'a Peers,
    nodes: Vec<NodeId>,
    method: u8,
    question: &'a Q,
) -> impl Stream<Item = A> + 'a {
    let asked = stream::iter(nodes).map(move |node| async move {
        let answer = ask::<Q, Option<A>>(peers, &node, method, question).await;
        answer.unwrap_or_else(|error| {
            tracing::debug!(%node, %error, "a node does not answer");
            None
        })
    });
    let answers = asked.buffer_unordered(ASKED_AT_ONCE);
    answers.filter_map(|answer| async move { answer })
}
