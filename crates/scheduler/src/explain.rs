//! The long answer to "why there?": every node, with the parts of its cost or the reason against.

use std::fmt;

use model::NodeId;

use crate::place::Pass;
use crate::{Cost, Decision, Demand, Rank, Via, View, Weights, Why, decide};

/// One node as the decision saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its cost, what the call would find, and its rank; or why it cannot take the call.
    pub verdict: Result<(Cost, Via, Rank), Why>,
}

/// A decision and every node that it was made among: the chosen one first, then by rank, and those
/// that cannot take the call last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// The nodes.
    pub candidates: Vec<Candidate>,
}

/// Decides as [`decide`] does and keeps how each node was weighed.
pub fn explain(view: &View, demand: &Demand, weights: &Weights) -> Explanation {
    let mut pass = Pass::new(view, demand, weights);
    let mut weighed: Vec<_> = view
        .nodes()
        .map(|(slot, node)| (pass.judge(slot, node), node))
        .collect();
    weighed.sort_by_key(|(judged, node)| match judged {
        Ok(judged) => (0, Some(judged.order()), &node.id),
        Err(_) => (1, None, &node.id),
    });
    let candidates = weighed.into_iter().map(|(judged, node)| Candidate {
        node: node.id.clone(),
        verdict: judged.map(|it| (pass.cost(node, &it), it.via, it.rank)),
    });
    let candidates = candidates.collect();
    Explanation {
        decision: decide(view, demand, weights),
        candidates,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.decision)?;
        let names = self.candidates.iter().map(|c| c.node.as_str().len());
        let width = names.max().unwrap_or(0);
        for Candidate { node, verdict } in &self.candidates {
            match verdict {
                Ok((cost, via, _)) => {
                    let chosen = matches!(&self.decision.outcome, Ok(p) if p.node == *node);
                    let mark = if chosen { '▶' } else { ' ' };
                    writeln!(f, "{mark} {:width$}  {via}; {cost}", node.as_str())?;
                }
                Err(why) => writeln!(f, "✗ {:width$}  {why}", node.as_str())?,
            }
        }
        Ok(())
    }
}
