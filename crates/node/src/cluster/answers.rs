//! What nodes tell each other of calls: decisions, graphs, and calls that trees may still make.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use api::v1::{Graph, GraphNode};
use futures::future::{BoxFuture, FutureExt as _};
use futures::{StreamExt as _, pin_mut};
use metering::{GraphBook, PriceList};
use model::{InvocationId, NodeId};
use sandbox::Lender;
use serde::Serialize;
use transport::{CallError, Incoming, Peers, Responder, Status};

use super::ask::{QUESTION_BYTES_MAX, ask, ask_all};
use super::out::TOGETHER_BYTES;
use super::place::Placing;
use super::router::NO_SERVICE;
use super::wire::{self, Loan, json};

/// Answers other nodes.
pub(super) struct Answers {
    pub placing: Arc<Placing>,
    pub graphs: GraphBook,
    pub prices: PriceList,
}

impl Answers {
    pub async fn answer(&self, call: Incoming) {
        let method = (call.method & 0xff) as u8;
        let answer = match call.body.collect(QUESTION_BYTES_MAX).await {
            Ok(question) => self.of(&call.peer, method, &question).await,
            Err(_) => None,
        };
        // Who asks may have gone: then nobody is to be told.
        let _told = match answer {
            Some(answer) if answer.len() > TOGETHER_BYTES => send(call.responder, answer).await,
            Some(answer) => call.responder.reply(Status::OK, answer),
            None => call.responder.reply(NO_SERVICE, "that is no question"),
        };
    }

    async fn of(&self, peer: &NodeId, method: u8, question: &[u8]) -> Option<Vec<u8>> {
        let id = || serde_json::from_slice::<InvocationId>(question).ok();
        match method {
            wire::LEND => {
                let loan: Loan = serde_json::from_slice(question).ok()?;
                some(&self.placing.away.lend(peer, &loan).await)
            }
            wire::EXPLAIN => some(&self.placing.decisions.of(id()?)),
            wire::GRAPH => {
                let found = self.graphs.find(id()?);
                some(&found.map(|found| gateway::graph_view(found, &self.prices)))
            }
            _ => None,
        }
    }
}

async fn send(responder: Responder, answer: Vec<u8>) -> Result<(), CallError> {
    let mut sender = responder.stream(Status::OK)?;
    sender.send(answer.into()).await?;
    sender.finish()
}

fn some<T: Serialize>(answer: &T) -> Option<Vec<u8>> {
    Some(json(answer))
}

/// The node that sent a call here, which lends it the calls that it makes.
pub(super) struct Creditor {
    pub peers: Peers,
    pub node: NodeId,
    pub id: InvocationId,
}

impl Creditor {
    async fn settle(&self, calls: u32, unused: u32) -> u32 {
        let id = self.id;
        let loan = Loan { id, calls, unused };
        let lent = ask(&self.peers, &self.node, wire::LEND, &loan).await;
        lent.unwrap_or_else(|error| {
            tracing::debug!(node = %self.node, %error, "a node lends no calls");
            0
        })
    }

    /// Gives calls back that were not made.
    pub async fn give_back(&self, unused: u32) {
        self.settle(0, unused).await;
    }
}

impl fmt::Debug for Creditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Creditor").field(&self.node).finish()
    }
}

impl Lender for Creditor {
    fn borrow(&self, calls: u32) -> BoxFuture<'_, u32> {
        self.settle(calls, 0).boxed()
    }
}

impl Placing {
    fn others(&self) -> Vec<NodeId> {
        let here = self.membership.id();
        self.membership.look(|roster| {
            let nodes = roster.peers().keys();
            nodes.filter(|node| *node != here).cloned().collect()
        })
    }

    /// What another node knows of why a call ran where it did.
    pub(super) async fn explained_elsewhere(&self, id: InvocationId) -> Option<String> {
        let answers = ask_all::<_, String>(&self.peers, self.others(), wire::EXPLAIN, &id);
        pin_mut!(answers);
        answers.next().await
    }

    /// All that the nodes have of a graph of which this one may have a part.
    pub(super) async fn whole_graph(&self, id: InvocationId, here: Option<Graph>) -> Option<Graph> {
        let mut whole = Whole::default();
        let mut asked = HashSet::from([self.membership.id().clone()]);
        let is_root = |graph: &Graph| graph.nodes.iter().any(|node| node.id == graph.root);
        let mut to_ask = match &here {
            Some(graph) if is_root(graph) => sent_to(graph, &asked),
            // The others have more of it: who called, at least.
            _ => self.others(),
        };
        let mut question: Option<InvocationId> =
            here.as_ref().and_then(|graph| graph.root.parse().ok());
        whole.extend(here);
        while !to_ask.is_empty() {
            asked.extend(to_ask.iter().cloned());
            let id = question.unwrap_or(id);
            let answers = ask_all::<_, Graph>(&self.peers, to_ask, wire::GRAPH, &id);
            let parts: Vec<Graph> = answers.collect().await;
            to_ask = Vec::new();
            for part in parts {
                if question.is_none() {
                    question = part.root.parse().ok();
                    // Those who knew nothing of the call may know of its root.
                    asked = HashSet::from([self.membership.id().clone()]);
                    to_ask = self.others();
                }
                to_ask.extend(sent_to(&part, &asked));
                whole.extend(Some(part));
            }
            to_ask.sort();
            to_ask.dedup();
        }
        whole.graph()
    }
}

/// The nodes that a graph names beside those that were asked.
fn sent_to(graph: &Graph, asked: &HashSet<NodeId>) -> Vec<NodeId> {
    let named: HashSet<&str> = graph.nodes.iter().map(|node| node.node.as_str()).collect();
    let nodes = named
        .into_iter()
        .filter_map(|name| name.parse::<NodeId>().ok());
    nodes.filter(|node| !asked.contains(node)).collect()
}

/// A graph that is put together.
#[derive(Default)]
struct Whole {
    graph: Option<Graph>,
    places: BTreeMap<String, usize>,
}

impl Whole {
    /// Adds what is not there yet. What has ended for one node has for all.
    fn extend(&mut self, part: Option<Graph>) {
        let Some(mut part) = part else { return };
        let nodes = std::mem::take(&mut part.nodes);
        let graph = self.graph.get_or_insert(Graph {
            left_out: 0,
            ..part.clone()
        });
        graph.left_out += part.left_out;
        for node in nodes {
            match self.places.get(&node.id) {
                Some(at) => {
                    let known: &mut GraphNode = &mut graph.nodes[*at];
                    if known.end.is_none() {
                        known.end = node.end;
                    }
                }
                None => {
                    self.places.insert(node.id.clone(), graph.nodes.len());
                    graph.nodes.push(node);
                }
            }
        }
    }

    /// The root first, the others in the order of their calls.
    fn graph(self) -> Option<Graph> {
        let mut graph = self.graph?;
        let root = graph.root.clone();
        graph
            .nodes
            .sort_by_key(|node| (node.id != root, node.begun_unix_us));
        let ends = graph.nodes.iter().filter_map(|node| node.end.as_ref());
        graph.cost = ends.map(|end| end.cost).sum();
        Some(graph)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, parent: Option<&str>, at: u64, name: &str) -> GraphNode {
        GraphNode {
            id: id.into(),
            parent: parent.map(Into::into),
            app: "a".into(),
            function: "f".into(),
            version: "v".into(),
            node: name.into(),
            detached: false,
            begun_unix_us: at,
            end: None,
        }
    }

    fn graph(nodes: Vec<GraphNode>) -> Graph {
        Graph {
            root: "r".into(),
            nodes,
            left_out: 1,
            cost: 0.0,
            currency: "EUR".into(),
        }
    }

    #[test]
    fn parts_make_one_graph_with_each_call_once_and_in_order() {
        let root = graph(vec![
            node("r", None, 5, "n1"),
            node("x", Some("r"), 6, "n2"),
            node("z", Some("r"), 9, "n1"),
        ]);
        let part = graph(vec![
            node("x", Some("r"), 7, "n2"),
            node("y", Some("x"), 8, "n3"),
        ]);
        let asked = HashSet::from(["n1".parse().unwrap()]);
        assert_eq!(sent_to(&root, &asked), ["n2".parse::<NodeId>().unwrap()]);
        for parts in [[root.clone(), part.clone()], [part, root]] {
            let mut whole = Whole::default();
            parts.into_iter().for_each(|part| whole.extend(Some(part)));
            let graph = whole.graph().unwrap();
            let ids: Vec<_> = graph.nodes.iter().map(|node| node.id.as_str()).collect();
            assert_eq!((ids, graph.left_out), (vec!["r", "x", "y", "z"], 2));
        }
        assert!(Whole::default().graph().is_none());
    }
}
