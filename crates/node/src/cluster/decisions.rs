//! The latest decisions to send calls elsewhere, kept to be explained.

use std::collections::VecDeque;

use model::InvocationId;
use parking_lot::Mutex;
use scheduler::{Demand, Explanation, View, Weights, decide, explain};

/// Nodes up to which every one of them is kept with a decision: beyond, that would cost more than
/// the decision itself.
const EXPLAINED_NODES_MAX: usize = 32;

/// A ring of decisions.
#[derive(Debug)]
pub(super) struct Decisions {
    kept: Mutex<VecDeque<Kept>>,
    kept_max: usize,
}

#[derive(Debug)]
struct Kept {
    id: InvocationId,
    explanation: Explanation,
    /// What became of it.
    result: String,
}

/// Decides, with what will explain it.
pub(super) fn weigh(view: &View, demand: &Demand, weights: &Weights) -> Explanation {
    if view.len() <= EXPLAINED_NODES_MAX {
        return explain(view, demand, weights);
    }
    Explanation {
        decision: decide(view, demand, weights),
        candidates: Vec::new(),
    }
}

impl Decisions {
    pub fn new(kept_max: usize) -> Self {
        Self {
            kept: Mutex::default(),
            kept_max,
        }
    }

    /// Keeps a decision, and lets go of the oldest where there are too many.
    pub fn keep(&self, id: InvocationId, explanation: Explanation, result: String) {
        let mut kept = self.kept.lock();
        while kept.len() >= self.kept_max.max(1) {
            kept.pop_front();
        }
        kept.push_back(Kept {
            id,
            explanation,
            result,
        });
    }

    /// All that is kept of an invocation, the first decision first.
    pub fn of(&self, id: InvocationId) -> Option<String> {
        let kept = self.kept.lock();
        let of = kept.iter().filter(|kept| kept.id == id);
        let texts: Vec<_> = of
            .map(|kept| format!("{}{}\n", kept.explanation, kept.result))
            .collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use scheduler::{Load, Policy, Resources, Standing, Tag};

    use super::*;

    #[test]
    fn the_latest_are_kept_with_what_became_of_them() {
        let mut view = View::new();
        let node = "n1".parse().unwrap();
        let places = |places| Resources {
            places,
            memory_bytes: 0,
        };
        let load = Load {
            capacity: places(1),
            ..Load::default()
        };
        view.put(&node, Standing::Serving, &load);
        let demand = Demand {
            here: "n2".parse().unwrap(),
            version: Tag(1),
            image_bytes: 0,
            needs: places(1),
            input_bytes: 0,
            data: Vec::new(),
            run_us: 1,
            avoid: Vec::new(),
            policy: Policy::default(),
            seed: 0,
        };
        let decisions = Decisions::new(2);
        let ids: Vec<_> = (0..3).map(InvocationId::new).collect();
        for (id, result) in ids.iter().zip(["ran", "was refused", "ran"]) {
            let explanation = weigh(&view, &demand, &Weights::default());
            decisions.keep(*id, explanation, result.to_owned());
        }
        assert_eq!(decisions.of(ids[0]), None);
        let text = decisions.of(ids[1]).unwrap();
        assert!(text.starts_with("n1 by locality"), "{text}");
        assert!(text.ends_with("was refused\n"), "{text}");
    }
}
