//! The book of execution graphs: its lock and its clock.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, counter};
use model::{InvocationId, NodeId, Outcome};
use parking_lot::Mutex;

use crate::graph::{Begun, Filter, Found, Graph, GraphConfig, Graphs, Relief};
use crate::metrics::{GRAPH_NODES_LEFT_OUT_TOTAL, GRAPHS_DROPPED_TOTAL};

/// The execution graphs of a node, in memory. Cheap to clone.
#[derive(Clone)]
pub struct GraphBook(Arc<Inner>);

struct Inner {
    graphs: Mutex<Graphs>,
    filter: Arc<Filter>,
    left_out: Counter,
    dropped: Counter,
}

impl fmt::Debug for GraphBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphBook").finish_non_exhaustive()
    }
}

/// Now, in microseconds since 1970.
pub fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

impl GraphBook {
    /// A book without a graph.
    pub fn new(config: GraphConfig) -> Self {
        let graphs = Graphs::new(config);
        Self(Arc::new(Inner {
            filter: graphs.filter(),
            graphs: Mutex::new(graphs),
            left_out: counter!(GRAPH_NODES_LEFT_OUT_TOTAL),
            dropped: counter!(GRAPHS_DROPPED_TOTAL),
        }))
    }

    /// An invocation that nobody's call led to makes a call: from now on it has a graph. `begun` is
    /// asked only if it had none.
    pub fn root(&self, id: InvocationId, begun: impl FnOnce() -> Begun) {
        if self.0.graphs.lock().is_open(id) {
            return;
        }
        let begun = begun();
        let relief = self.0.graphs.lock().root(begun);
        self.count(relief);
    }

    /// `parent`, in the graph of `root`, makes a call. Each needs its [`GraphBook::ended`] or
    /// [`GraphBook::refused`].
    pub fn child(&self, root: InvocationId, parent: InvocationId, begun: Begun, detached: bool) {
        let mut graphs = self.0.graphs.lock();
        let relief = graphs.child(root, parent, begun, detached);
        drop(graphs);
        self.count(relief);
    }

    /// An invocation that was sent here makes a call: from now on there is a part of the graph of
    /// `root` here, which is on another node, and `begun` is in it.
    pub fn part(&self, root: InvocationId, parent: InvocationId, begun: Begun) {
        let relief = self.0.graphs.lock().part(root, parent, begun);
        self.count(relief);
    }

    /// The invocation `id`, which calls from `root` led to, is sent to another node.
    pub fn sent(&self, root: InvocationId, id: InvocationId, node: &NodeId) {
        self.0.graphs.lock().sent(root, id, node);
    }

    /// The invocation `id`, which calls from `root` led to, has ended; a root led to itself. Costs
    /// nothing but one look at a counter where `root` has no graph.
    pub fn ended(&self, root: InvocationId, id: InvocationId, outcome: &Outcome) {
        if self.0.filter.may_hold(root) {
            let now = unix_us();
            self.0.graphs.lock().ended(root, id, outcome, now);
        }
    }

    /// The invocation `id`, which calls from `root` led to, was not run.
    pub fn refused(&self, root: InvocationId, id: InvocationId, reason: &str) {
        let now = unix_us();
        let mut graphs = self.0.graphs.lock();
        graphs.without(root, id, "refused", reason, now);
    }

    /// The invocation `id`, which calls from `root` led to, was lost with its node.
    pub fn lost(&self, root: InvocationId, id: InvocationId, reason: &str) {
        let now = unix_us();
        let mut graphs = self.0.graphs.lock();
        graphs.without(root, id, "lost", reason, now);
    }

    /// Says of the invocation that it was not run, unless its end was told before: when what is
    /// returned is dropped. So one whose caller goes away while it queues has its end, too.
    pub fn watch(&self, root: InvocationId, id: InvocationId) -> Watch {
        Watch {
            book: self.clone(),
            root,
            id,
        }
    }

    /// The graph that the invocation is in: of its own calls, or of the one that led to it.
    pub fn find(&self, id: InvocationId) -> Option<Graph> {
        let found = self.0.graphs.lock().find(id);
        found.map(Found::copied)
    }

    fn count(&self, relief: Relief) {
        if relief.left_out > 0 {
            self.0.left_out.increment(relief.left_out);
        }
        if !relief.dropped.is_empty() {
            self.0.dropped.increment(relief.dropped.len() as u64);
        }
    }
}

/// One invocation that is to have its end in its graph.
#[must_use = "the invocation counts as not run when this is dropped"]
#[derive(Debug)]
pub struct Watch {
    book: GraphBook,
    root: InvocationId,
    id: InvocationId,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.book
            .refused(self.root, self.id, "its caller went away");
    }
}

#[cfg(test)]
mod tests {
    use model::{Digest, StartKind, Status, Usage};

    use super::*;

    #[test]
    fn who_goes_away_before_its_end_was_not_run() {
        let book = GraphBook::new(GraphConfig::default());
        let ids = [1, 2, 3].map(InvocationId::new);
        let begun = |id| Begun {
            id,
            path: "a/f".parse().expect("a path"),
            version: Digest::of(b"version"),
            unix_us: unix_us(),
        };
        book.root(ids[0], || begun(ids[0]));
        for id in &ids[1..] {
            book.child(ids[0], ids[0], begun(*id), false);
        }
        let outcome = Outcome {
            status: Status::Ok,
            start: StartKind::Restored,
            usage: Usage::default(),
        };
        let watches = [book.watch(ids[0], ids[1]), book.watch(ids[0], ids[2])];
        book.ended(ids[0], ids[1], &outcome);
        drop(watches);
        let graph = book.find(ids[0]).expect("it is kept");
        let status = |at: usize| graph.nodes[at].end.as_ref().map(|end| end.status);
        assert_eq!(
            [status(0), status(1), status(2)],
            [None, Some("ok"), Some("refused")]
        );
    }
}
