//! Execution graphs: which invocation called which, when, and what that took. Pure.
//!
//! ```text
//!   root ─▶ open ──its own outcome──▶ ended ──room is needed──▶ gone  (first ended, first out)
//!             └── room is needed, and none has ended ──▶ gone         (first begun, first out)
//!   part ─▶ open ◀──another call────┐
//!             └── all have ended ──▶ ended                            of a root on another node
//! ```
//!
//! Invariants:
//! - Trees, nodes of a tree and bytes of all trees are bounded; nodes over a bound are counted.
//! - A root's id counts in the [`Filter`] exactly while its tree has a node that has not ended.
//! - Who looks a tree up shares its pages, and copies nodes where nobody waits. A page that is
//!   shared when one of its nodes changes is copied first.

use std::collections::{BTreeMap, HashMap};
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use model::{Digest, FunctionPath, InvocationId, NodeId, Outcome, StartKind, Usage};

/// The limits of a book of graphs.
#[derive(Clone, Debug)]
pub struct GraphConfig {
    /// What this node is called in graphs.
    pub node: String,
    /// Trees kept.
    pub trees_max: usize,
    /// Nodes kept of a tree; the rest is counted.
    pub nodes_max: usize,
    /// Bytes kept of all trees.
    pub bytes_max: usize,
    /// Bytes kept of what a status says beside its name.
    pub detail_bytes_max: usize,
}

impl Default for GraphConfig {
    fn default() -> Self {
        Self {
            node: "local".to_owned(),
            trees_max: 4096,
            nodes_max: 10_000,
            bytes_max: 64 << 20,
            detail_bytes_max: 256,
        }
    }
}

/// An invocation that begins.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The invocation.
    pub id: InvocationId,
    /// The function.
    pub path: FunctionPath,
    /// Its version.
    pub version: Digest,
    /// When it was called, in microseconds since 1970.
    pub unix_us: u64,
}

/// How an invocation of a graph ended.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEnd {
    /// Its status, as records spell it; `refused` if it was not run, `lost` if its node was lost.
    pub status: &'static str,
    /// What the status says beside that; empty if it is `ok`.
    pub detail: Box<str>,
    /// How its sandbox came to be; none if it was not run.
    pub start: Option<StartKind>,
    /// From its call to its end, in microseconds: a wait in a queue is part of it.
    pub wall_us: u64,
    /// What it used.
    pub usage: Usage,
}

/// One invocation of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphNode {
    /// The invocation.
    pub id: InvocationId,
    /// Who called it; none for the root.
    pub parent: Option<InvocationId>,
    /// The function.
    pub path: FunctionPath,
    /// Its version.
    pub version: Digest,
    /// The node that it was sent to; none if it ran where the graph is kept.
    pub node: Option<NodeId>,
    /// Whether it goes on when its parent ends.
    pub detached: bool,
    /// When it was called, in microseconds since 1970.
    pub begun_unix_us: u64,
    /// How it ended, if it has.
    pub end: Option<NodeEnd>,
}

/// The calls that one invocation led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The first invocation.
    pub root: InvocationId,
    /// The node on which they ran, but for those that were sent elsewhere.
    pub node: Arc<str>,
    /// The invocations in the order of their calls; the root is the first.
    pub nodes: Vec<GraphNode>,
    /// Invocations that are not among them, as there were too many.
    pub left_out: u64,
}

/// Bytes that a node takes beside its detail: itself, and its entry in an index half full.
const NODE_BYTES: usize = size_of::<GraphNode>() + 2 * size_of::<(InvocationId, u32)>();
/// Bytes that a tree takes beside its nodes.
const TREE_BYTES: usize = size_of::<Tree>() + 8 * size_of::<InvocationId>();

/// Slots of the filter: a power of two, many times the trees that are open at once.
const SLOTS: usize = 1 << 14;

/// Says of most invocations that they are in no open tree, without a lock. Ids are random in their
/// low bits.
pub(crate) struct Filter(Box<[AtomicU32]>);

impl Filter {
    fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU32::new(0)).collect())
    }

    fn slot(&self, root: InvocationId) -> &AtomicU32 {
        &self.0[root.as_u128() as usize % SLOTS]
    }

    /// Whether a tree of this root may be open.
    pub(crate) fn may_hold(&self, root: InvocationId) -> bool {
        // Whoever ends was begun before by the same task, or by one that it was handed on from.
        self.slot(root).load(Ordering::Relaxed) > 0
    }
}

/// Nodes of a page: what is copied at most when one of them changes while somebody looks.
const PAGE_NODES: usize = 64;

pub(crate) struct Tree {
    /// All full but the last.
    pages: Vec<Arc<Vec<GraphNode>>>,
    index: HashMap<InvocationId, u32>,
    left_out: u64,
    bytes: usize,
    /// Nodes that have not ended.
    open: u32,
    /// Its turn among those that are open, or those that have ended.
    turn: u64,
    ended: bool,
    /// Whether its root is on another node.
    is_part: bool,
}

impl Tree {
    fn push(&mut self, begun: Begun, parent: Option<InvocationId>, detached: bool) {
        let at = u32::try_from(self.len()).unwrap_or(u32::MAX);
        self.index.insert(begun.id, at);
        let node = GraphNode {
            id: begun.id,
            parent,
            path: begun.path,
            version: begun.version,
            node: None,
            detached,
            begun_unix_us: begun.unix_us,
            end: None,
        };
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE_NODES => Arc::make_mut(page).push(node),
            _ => self.pages.push(Arc::new(vec![node])),
        }
        self.bytes += NODE_BYTES;
        self.open += 1;
    }

    fn len(&self) -> usize {
        let before = self.pages.len().saturating_sub(1) * PAGE_NODES;
        before + self.pages.last().map_or(0, |page| page.len())
    }

    /// The node of an invocation that has not ended.
    fn open_node(&mut self, id: InvocationId) -> Option<&mut GraphNode> {
        let at = *self.index.get(&id)? as usize;
        let page = self.pages.get_mut(at / PAGE_NODES)?;
        page.get(at % PAGE_NODES)
            .filter(|node| node.end.is_none())?;
        Arc::make_mut(page).get_mut(at % PAGE_NODES)
    }
}

/// A graph that was looked up, its pages shared with the tree.
pub(crate) struct Found {
    root: InvocationId,
    node: Arc<str>,
    pages: Vec<Arc<Vec<GraphNode>>>,
    left_out: u64,
}

impl Found {
    /// The graph, copied.
    pub(crate) fn copied(self) -> Graph {
        Graph {
            root: self.root,
            node: self.node,
            nodes: self
                .pages
                .iter()
                .flat_map(|page| page.iter().cloned())
                .collect(),
            left_out: self.left_out,
        }
    }
}

/// What was left out or dropped to stay within the bounds; trees are freed outside of the lock.
#[derive(Default)]
pub(crate) struct Relief {
    pub left_out: u64,
    pub dropped: Vec<Tree>,
}

/// The graphs of a node.
pub(crate) struct Graphs {
    config: GraphConfig,
    node: Arc<str>,
    filter: Arc<Filter>,
    trees: HashMap<InvocationId, Tree>,
    open: BTreeMap<u64, InvocationId>,
    ended: BTreeMap<u64, InvocationId>,
    turns: u64,
    bytes: usize,
}

impl Graphs {
    pub(crate) fn new(config: GraphConfig) -> Self {
        Self {
            node: config.node.as_str().into(),
            config,
            filter: Arc::new(Filter::new()),
            trees: HashMap::new(),
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            turns: 0,
            bytes: 0,
        }
    }

    pub(crate) fn filter(&self) -> Arc<Filter> {
        self.filter.clone()
    }

    /// Whether the tree of `root` is there and its root has not ended.
    pub(crate) fn is_open(&self, root: InvocationId) -> bool {
        self.trees.get(&root).is_some_and(|tree| !tree.ended)
    }

    /// Begins a tree. A root that had ended begins anew: it is another attempt.
    pub(crate) fn root(&mut self, begun: Begun) -> Relief {
        let id = begun.id;
        let mut relief = Relief::default();
        if self.is_open(id) {
            return relief;
        }
        relief.dropped.extend(self.remove(id));
        self.plant(id, None, begun);
        self.relieve(id, &mut relief);
        relief
    }

    /// Begins the part of a tree whose root is on another node, or adds what was sent here to it.
    /// One that is in it already is there once.
    pub(crate) fn part(
        &mut self,
        root: InvocationId,
        parent: InvocationId,
        begun: Begun,
    ) -> Relief {
        let mut relief = Relief::default();
        match self.trees.get_mut(&root) {
            None => {
                self.plant(root, Some(parent), begun);
                self.relieve(root, &mut relief);
                relief
            }
            Some(tree) if tree.index.contains_key(&begun.id) => relief,
            Some(tree) => {
                if tree.is_part && tree.ended {
                    self.turns += 1;
                    self.ended.remove(&tree.turn);
                    (tree.turn, tree.ended) = (self.turns, false);
                    self.open.insert(tree.turn, root);
                }
                self.child(root, parent, begun, false)
            }
        }
    }

    fn plant(&mut self, root: InvocationId, parent: Option<InvocationId>, begun: Begun) {
        self.turns += 1;
        let mut tree = Tree {
            pages: Vec::new(),
            index: HashMap::new(),
            left_out: 0,
            bytes: TREE_BYTES,
            open: 0,
            turn: self.turns,
            ended: false,
            is_part: parent.is_some(),
        };
        tree.push(begun, parent, false);
        self.bytes += tree.bytes;
        self.open.insert(tree.turn, root);
        self.filter.slot(root).fetch_add(1, Ordering::Relaxed);
        self.trees.insert(root, tree);
    }

    /// An invocation of the tree of `root` is sent to `node`.
    pub(crate) fn sent(&mut self, root: InvocationId, id: InvocationId, node: &NodeId) {
        let tree = self.trees.get_mut(&root);
        if let Some(found) = tree.and_then(|tree| tree.open_node(id)) {
            found.node = Some(node.clone());
        }
    }

    /// Adds a call to the tree of `root`, if it is kept.
    pub(crate) fn child(
        &mut self,
        root: InvocationId,
        parent: InvocationId,
        begun: Begun,
        detached: bool,
    ) -> Relief {
        let mut relief = Relief::default();
        let Some(tree) = self.trees.get_mut(&root) else {
            return relief;
        };
        let full = tree.len() >= self.config.nodes_max;
        if full || tree.bytes + NODE_BYTES > self.config.bytes_max {
            tree.left_out += 1;
            relief.left_out = 1;
            return relief;
        }
        if tree.open == 0 {
            self.filter.slot(root).fetch_add(1, Ordering::Relaxed);
        }
        tree.push(begun, Some(parent), detached);
        self.bytes += NODE_BYTES;
        self.relieve(root, &mut relief);
        relief
    }

    /// An invocation of the tree of `root` ended at `unix_us`.
    pub(crate) fn ended(
        &mut self,
        root: InvocationId,
        id: InvocationId,
        outcome: &Outcome,
        unix_us: u64,
    ) {
        let detail = match outcome.status.is_ok() {
            true => String::new(),
            false => outcome.status.to_string(),
        };
        let end = NodeEnd {
            status: outcome.status.as_str(),
            detail: cut(&detail, self.config.detail_bytes_max).into(),
            start: Some(outcome.start),
            wall_us: 0,
            usage: outcome.usage,
        };
        self.end(root, id, end, unix_us);
    }

    /// An invocation of the tree of `root` has no outcome, for this reason: it was `refused`, or is
    /// `lost`.
    pub(crate) fn without(
        &mut self,
        root: InvocationId,
        id: InvocationId,
        status: &'static str,
        reason: &str,
        unix_us: u64,
    ) {
        let end = NodeEnd {
            status,
            detail: cut(reason, self.config.detail_bytes_max).into(),
            start: None,
            wall_us: 0,
            usage: Usage::default(),
        };
        self.end(root, id, end, unix_us);
    }

    fn end(&mut self, root: InvocationId, id: InvocationId, mut end: NodeEnd, unix_us: u64) {
        let Some(tree) = self.trees.get_mut(&root) else {
            return;
        };
        let Some(node) = tree.open_node(id) else {
            return;
        };
        end.wall_us = unix_us.saturating_sub(node.begun_unix_us);
        let bytes = end.detail.len();
        node.end = Some(end);
        tree.bytes += bytes;
        self.bytes += bytes;
        tree.open -= 1;
        if tree.open == 0 {
            self.filter.slot(root).fetch_sub(1, Ordering::Relaxed);
        }
        let is_over = match tree.is_part {
            true => tree.open == 0,
            false => id == root,
        };
        if is_over {
            self.turns += 1;
            self.open.remove(&tree.turn);
            tree.turn = self.turns;
            tree.ended = true;
            self.ended.insert(tree.turn, root);
        }
    }

    /// The graph whose root, or any of whose invocations, is `id`.
    pub(crate) fn find(&self, id: InvocationId) -> Option<Found> {
        let (root, tree) = self.trees.get_key_value(&id).or_else(|| {
            let holds = |tree: &Tree| tree.index.contains_key(&id);
            self.trees.iter().find(|(_, tree)| holds(tree))
        })?;
        Some(Found {
            root: *root,
            node: self.node.clone(),
            pages: tree.pages.clone(),
            left_out: tree.left_out,
        })
    }

    /// Drops trees until what is kept is within its bounds; the tree of `root` is the last to go.
    fn relieve(&mut self, root: InvocationId, relief: &mut Relief) {
        let over = |graphs: &Self| {
            graphs.trees.len() > graphs.config.trees_max || graphs.bytes > graphs.config.bytes_max
        };
        while over(self) {
            let others = self.ended.values().chain(self.open.values());
            let oldest = others.copied().find(|id| *id != root);
            match self.remove(oldest.unwrap_or(root)) {
                Some(tree) => relief.dropped.push(tree),
                None => return,
            }
        }
    }

    fn remove(&mut self, root: InvocationId) -> Option<Tree> {
        let tree = self.trees.remove(&root)?;
        let turns = if tree.ended {
            &mut self.ended
        } else {
            &mut self.open
        };
        turns.remove(&tree.turn);
        self.bytes -= tree.bytes;
        if tree.open > 0 {
            self.filter.slot(root).fetch_sub(1, Ordering::Relaxed);
        }
        Some(tree)
    }
}

/// The start of `text`, in whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
