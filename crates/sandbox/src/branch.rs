//! Where an invocation stands in the tree of calls that led to it.
//!
//! Invariant: a tree never makes more calls than its budget, whatever its shape; so a cycle of
//! functions that call each other ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use model::{InvocationId, TraceParent};

/// What all calls of a tree share.
#[derive(Debug)]
struct Tree {
    root: InvocationId,
    calls_left: AtomicU32,
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

impl Branch {
    /// The first invocation of the tree.
    pub fn root(&self) -> InvocationId {
        self.tree.root
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
