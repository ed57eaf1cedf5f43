//! Where an invocation stands in the tree of calls that led to it.
//!
//! Invariant: a tree never makes more calls than its budget, whatever its shape and however many
//! nodes it spans; so a cycle of functions that call each other ends. A part of a tree that is on
//! another node has no budget of its own: it borrows calls of the node that it came from, which
//! takes them off its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use futures::future::BoxFuture;
use model::{InvocationId, TraceParent};

/// Calls that are borrowed at a time.
pub const CALLS_LENT_MAX: u32 = 32;

/// What all calls of a tree share on one node.
#[derive(Debug)]
struct Tree {
    root: InvocationId,
    calls_left: AtomicU32,
    /// Of a part whose root is on another node.
    lender: Option<Arc<dyn Lender>>,
    /// Whether calls of this part may outlive the one that began it.
    is_kept: AtomicBool,
}

/// The node that a part of a tree came from, which has calls to lend.
pub trait Lender: fmt::Debug + Send + Sync {
    /// Asks for so many calls; how many there are. None where the budget is used up, or the node
    /// does not answer.
    fn borrow(&self, calls: u32) -> BoxFuture<'_, u32>;
}

impl Tree {
    /// Takes at most so many calls.
    fn take(&self, calls: u32) -> u32 {
        let less = |left: u32| left.checked_sub(calls.min(left));
        let left = &self.calls_left;
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.map_or(0, |before| before.min(calls))
    }

    fn put(&self, calls: u32) {
        let more = |left: u32| Some(left.saturating_add(calls));
        let left = &self.calls_left;
        // It always has a new number.
        let _put = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Borrows some calls; whether there are any.
    async fn borrow(&self, calls: u32) -> bool {
        let Some(lender) = &self.lender else {
            return false;
        };
        let lent = lender.borrow(calls).await.min(calls);
        self.put(lent);
        lent > 0
    }
}

/// The place of one invocation in its tree. A root that calls nobody needs none.
#[derive(Clone, Debug)]
pub struct Branch {
    tree: Arc<Tree>,
    /// The invocation that called this one.
    pub parent: InvocationId,
    /// How many calls led here: 1 for what a root calls.
    pub depth: u32,
    /// When the call must have ended, since nobody waits for it any longer.
    pub deadline: Instant,
    /// The caller's place in its trace.
    pub trace: TraceParent,
}

/// Why a call is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BranchError {
    /// The tree has made all of its calls.
    #[error("the tree of calls has used up its budget")]
    Spent,
    /// The calls are nested too deeply.
    #[error("calls are nested deeper than {0}")]
    TooDeep(u32),
}

/// What a tree of calls may do.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    /// Calls of the whole tree, at all depths.
    pub calls_max: u32,
    /// Calls between the root and any other.
    pub depth_max: u32,
}

/// The calls that one invocation makes.
#[derive(Clone, Debug)]
pub struct Trunk {
    tree: Arc<Tree>,
    limits: TreeLimits,
    depth: u32,
}

impl Trunk {
    /// For an invocation, which `branch` led to unless it is a root.
    pub fn new(id: InvocationId, branch: Option<&Branch>, limits: TreeLimits) -> Self {
        match branch {
            Some(branch) => Self {
                tree: branch.tree.clone(),
                limits,
                depth: branch.depth,
            },
            None => Self {
                tree: Arc::new(Tree {
                    root: id,
                    calls_left: limits.calls_max.into(),
                    lender: None,
                    is_kept: AtomicBool::new(false),
                }),
                limits,
                depth: 0,
            },
        }
    }

    /// The first invocation of the tree.
    pub fn root(&self) -> InvocationId {
        self.tree.root
    }

    /// Whether no call is left: some may still be borrowed.
    pub fn is_spent(&self) -> bool {
        self.tree.calls_left.load(Ordering::Relaxed) == 0
    }

    /// Borrows some calls of the node that this part of the tree came from; whether it has any.
    pub async fn borrow(&self) -> bool {
        self.tree.borrow(CALLS_LENT_MAX).await
    }

    /// Says that calls of this tree may outlive the one that began its part here: what is left is
    /// not given back when that one ends.
    pub fn keep(&self) {
        self.tree.is_kept.store(true, Ordering::Relaxed);
    }

    /// One more call.
    pub fn grow(
        &self,
        parent: InvocationId,
        deadline: Instant,
        trace: TraceParent,
    ) -> Result<Branch, BranchError> {
        if self.depth >= self.limits.depth_max {
            return Err(BranchError::TooDeep(self.limits.depth_max));
        }
        let one_less = |left: u32| left.checked_sub(1);
        let left = &self.tree.calls_left;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .map_err(|_| BranchError::Spent)?;
        Ok(Branch {
            tree: self.tree.clone(),
            parent,
            depth: self.depth + 1,
            deadline,
            trace,
        })
    }
}

/// The place of a call whose tree began on another node.
#[derive(Clone, Copy, Debug)]
pub struct Graft {
    /// The first invocation of the tree.
    pub root: InvocationId,
    /// The invocation that called this one.
    pub parent: InvocationId,
    /// How many calls led here.
    pub depth: u32,
    /// When the call must have ended.
    pub deadline: Instant,
    /// The caller's place in its trace.
    pub trace: TraceParent,
}

impl Branch {
    /// The first invocation of the tree.
    pub fn root(&self) -> InvocationId {
        self.tree.root
    }

    /// A call whose tree began on another node, which lends it the calls that it makes.
    pub fn grafted(graft: Graft, lender: Arc<dyn Lender>) -> Self {
        let Graft {
            root,
            parent,
            depth,
            deadline,
            trace,
        } = graft;
        let tree = Arc::new(Tree {
            root,
            calls_left: 0.into(),
            lender: Some(lender),
            is_kept: AtomicBool::new(false),
        });
        Self {
            tree,
            parent,
            depth,
            deadline,
            trace,
        }
    }

    /// Whether its tree began on another node.
    pub fn is_grafted(&self) -> bool {
        self.tree.lender.is_some()
    }

    /// Takes calls off the budget, for a part of the tree on another node; how many there were.
    pub async fn lend(&self, calls: u32) -> u32 {
        let calls = calls.min(CALLS_LENT_MAX);
        match self.tree.take(calls) {
            0 if self.tree.borrow(calls).await => self.tree.take(calls),
            taken => taken,
        }
    }

    /// Puts calls back that were lent and not made.
    pub fn give_back(&self, calls: u32) {
        self.tree.put(calls);
    }

    /// Takes what is left of what was borrowed, to be given back, once the call that began this
    /// part of the tree has ended. Nothing is, where calls may outlive that one.
    pub fn unused(&self) -> u32 {
        match self.tree.is_kept.load(Ordering::Relaxed) {
            true => 0,
            false => self.tree.take(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TreeLimits = TreeLimits {
        calls_max: 5,
        depth_max: 3,
    };

    fn grow(trunk: &Trunk) -> Result<Branch, BranchError> {
        let id = InvocationId::new(1);
        trunk.grow(id, Instant::now(), TraceParent::root(id))
    }

    #[test]
    fn a_chain_ends_at_its_depth() {
        let id = InvocationId::new(0);
        let mut trunk = Trunk::new(id, None, LIMITS);
        for depth in 1..=LIMITS.depth_max {
            let branch = grow(&trunk).expect("there is room");
            assert_eq!((branch.depth, branch.root()), (depth, id));
            trunk = Trunk::new(InvocationId::new(2), Some(&branch), LIMITS);
        }
        assert_eq!(grow(&trunk).err(), Some(BranchError::TooDeep(3)));
    }

    /// Lends of a branch, as another node does.
    #[derive(Debug)]
    struct Of(Branch);

    impl Lender for Of {
        fn borrow(&self, calls: u32) -> BoxFuture<'_, u32> {
            Box::pin(self.0.lend(calls))
        }
    }

    /// What another node makes of a branch.
    fn graft(branch: &Branch) -> Branch {
        let graft = Graft {
            root: branch.root(),
            parent: branch.parent,
            depth: branch.depth,
            deadline: branch.deadline,
            trace: branch.trace,
        };
        Branch::grafted(graft, Arc::new(Of(branch.clone())))
    }

    fn trunk_of(branch: &Branch) -> Trunk {
        Trunk::new(InvocationId::new(2), Some(branch), LIMITS)
    }

    #[tokio::test]
    async fn a_tree_over_many_nodes_makes_no_more_calls_than_its_budget() {
        let root = Trunk::new(InvocationId::new(0), None, LIMITS);
        let branch = grow(&root).expect("there is room");
        let there = graft(&branch);
        let part = trunk_of(&there);
        assert_eq!(
            grow(&part).err(),
            Some(BranchError::Spent),
            "it has none of its own"
        );
        assert!(part.is_spent() && part.borrow().await);
        assert!(!root.borrow().await, "a root has nobody to borrow of");
        let further = graft(&grow(&part).expect("it has borrowed"));
        let beyond = trunk_of(&further);
        assert!(beyond.borrow().await);
        assert_eq!(further.depth, 2);
        // All four that were left are lent on: nobody has any more.
        assert_eq!(grow(&root).err(), Some(BranchError::Spent));
        for _ in 0..3 {
            grow(&beyond).expect("it has borrowed");
        }
        assert_eq!(grow(&beyond).err(), Some(BranchError::Spent));
        assert!(!beyond.borrow().await && !part.borrow().await);
    }

    #[tokio::test]
    async fn what_is_not_called_is_given_back_unless_calls_go_on() {
        let root = Trunk::new(InvocationId::new(0), None, LIMITS);
        let branch = grow(&root).expect("there is room");
        let there = graft(&branch);
        let part = trunk_of(&there);
        assert!(part.borrow().await);
        grow(&part).expect("it has borrowed");
        branch.give_back(there.unused());
        assert_eq!(there.unused(), 0);
        assert_eq!(branch.lend(u32::MAX).await, 3);
        branch.give_back(3);
        assert!(part.borrow().await);
        part.keep();
        assert_eq!(there.unused(), 0);
    }

    #[test]
    fn a_tree_shares_one_budget() {
        let trunk = Trunk::new(InvocationId::new(0), None, LIMITS);
        let branch = grow(&trunk).expect("there is room");
        let inner = Trunk::new(InvocationId::new(2), Some(&branch), LIMITS);
        for _ in 0..2 {
            grow(&trunk).expect("there is room");
            grow(&inner).expect("there is room");
        }
        assert_eq!(grow(&trunk).err(), Some(BranchError::Spent));
        assert_eq!(grow(&inner).err(), Some(BranchError::Spent));
    }
}
