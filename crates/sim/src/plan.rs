//! What is simulated, and what came of it.

use std::time::Duration;

use membership::Terms;

/// A cluster, its load and its troubles.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that chance does.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Places of each node.
    pub places: u32,
    /// Shards of the queue, each owned by one node at a time.
    pub shards: usize,
    /// Invocations that clients submit.
    pub invocations: u64,
    /// Groups that nodes reserve for.
    pub groups: u64,
    /// Time in which all that comes and all that goes wrong does so.
    pub span: Duration,
    /// Time without trouble after it.
    pub calm: Duration,
    /// The longest that a message usually takes; one of fifty takes up to thirty times that.
    pub delay_max: Duration,
    /// Messages of a thousand that are lost.
    pub loss_permille: u64,
    /// Nodes that crash and start again.
    pub crashes: u32,
    /// Nodes that are cut off from the store for a while.
    pub cuts: u32,
    /// Times at which nodes split in two parts that do not hear each other.
    pub splits: u32,
    /// By how much a clock goes wrong at most, in thousandths.
    pub drift_permille: u64,
    /// Times of memberships.
    pub terms: Terms,
}

impl Plan {
    /// A small cluster with every kind of trouble.
    pub fn of(seed: u64) -> Self {
        let ms = Duration::from_millis;
        Self {
            seed,
            nodes: 5,
            places: 4,
            shards: 8,
            invocations: 300,
            groups: 40,
            span: ms(60_000),
            calm: ms(30_000),
            delay_max: ms(10),
            loss_permille: 20,
            crashes: 8,
            cuts: 8,
            splits: 4,
            drift_permille: 20,
            terms: Terms {
                ttl: ms(3000),
                margin: ms(300),
                renew_every: ms(600),
                retry_after: ms(150),
            },
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Outcomes: one for each invocation.
    pub outcomes: u64,
    /// Runs: more than outcomes, where a node died or was slow to say that it was done.
    pub runs: u64,
    /// Runs that were refused by a node that was full.
    pub rejected: u64,
    /// Tenures of all nodes.
    pub tenures: u64,
    /// Claims of shards.
    pub claims: u64,
    /// Writes of those who were owners no more, which had no effect.
    pub fenced: u64,
    /// Groups that had their reservations.
    pub groups: u64,
    /// Groups that came too late for them.
    pub groups_late: u64,
    /// A hash over every step.
    pub trace: u64,
}
