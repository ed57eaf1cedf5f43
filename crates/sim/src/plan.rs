//! What is simulated, what is broken on purpose, and what came of it.

use std::time::Duration;

use crate::dice::Dice;

/// A cluster, its load and its troubles, all out of one number.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that chance does.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Places of each node.
    pub places: u32,
    /// Resources that nodes claim.
    pub seats: usize,
    /// Clients that submit one invocation each, and wait for its end.
    pub clients: u64,
    /// Clients that read and replace the values which all nodes share.
    pub writers: u64,
    /// Time in which all of them begin, and all that goes wrong does so.
    pub span: Duration,
    /// Time without trouble after it, by whose end everything must have come to its own.
    pub calm: Duration,
    /// What goes wrong.
    pub troubles: Troubles,
    /// The adapter that does not do what it should.
    pub fault: Option<Fault>,
}

/// How often what goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Nodes that are killed, and start again.
    pub kills: u32,
    /// Nodes that are told to stop, and start again.
    pub stops: u32,
    /// Nodes that the store does not hear, or that do not hear it, or both.
    pub cuts: u32,
    /// Times at which nodes split in two parts that do not hear each other.
    pub splits: u32,
    /// Times at which the store does not answer.
    pub outages: u32,
    /// Times at which its disks are slow.
    pub slow_disks: u32,
    /// Times at which its disks are full.
    pub full_disks: u32,
    /// Nodes that are slow for a while.
    pub slow_nodes: u32,
    /// Messages of a thousand that are lost.
    pub loss_permille: u64,
    /// Messages of a thousand that are late by far.
    pub late_permille: u64,
    /// By how much a node's clock is slower than the store's at most, in thousandths.
    pub drift_permille: u64,
}

/// Something that is broken on purpose, to show that it would be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store commits what its compares speak against.
    ComparesForgotten,
    /// The store acknowledges writes that it does not keep.
    WritesLost,
    /// The store forgets to tell of changes.
    EventsLost,
    /// Owners write without their token.
    FencingIgnored,
    /// Clocks lose more than the margin of a lease.
    ClocksTooSlow,
    /// Owners of values go on when their claim is over.
    ClaimsIgnored,
    /// Reservations are written whatever the ledger's revision is.
    LedgersOverwritten,
}

impl Plan {
    /// A small cluster with every kind of trouble, more or less of each as the seed says.
    pub fn of(seed: u64) -> Self {
        let mut throw = Dice::new(seed).throw("plan", &[]);
        // Small numbers, which 32 bits hold.
        let mut up_to = |most: u32| throw.below(u64::from(most) + 1) as u32;
        Self {
            seed,
            nodes: 3 + up_to(4) as usize,
            places: 2 + up_to(2),
            seats: 8,
            clients: 300,
            writers: 24,
            span: Duration::from_secs(40),
            calm: Duration::from_secs(60),
            troubles: Troubles {
                kills: 2 + up_to(6),
                stops: up_to(3),
                cuts: 3 + up_to(6),
                splits: up_to(3),
                outages: up_to(2),
                slow_disks: up_to(3),
                full_disks: up_to(2),
                slow_nodes: up_to(3),
                loss_permille: u64::from(up_to(10)),
                late_permille: u64::from(up_to(20)),
                drift_permille: 100,
            },
            fault: None,
        }
    }

    /// The same without trouble.
    #[must_use]
    pub fn calm(self) -> Self {
        Self {
            troubles: Troubles::default(),
            ..self
        }
    }

    /// The same with something broken.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        let fault = Some(fault);
        Self { fault, ..self }
    }
}

/// What came of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Invocations that were accepted: each has one outcome.
    pub accepted: u64,
    /// Those of them that are dead letters.
    pub dead: u64,
    /// Runs: more than outcomes where nodes were lost, or functions failed.
    pub runs: u64,
    /// Runs at another node than the one whose queue it was.
    pub forwarded: u64,
    /// Tenures of all nodes.
    pub tenures: u64,
    /// Claims of resources.
    pub claims: u64,
    /// Writes of owners that were acknowledged.
    pub written: u64,
    /// Writes of owners that were owners no more, which had no effect.
    pub fenced: u64,
    /// Groups that had their reservations.
    pub groups: u64,
    /// Groups that had to decide again, since others had come before them.
    pub groups_again: u64,
    /// Values that were read.
    pub looked: u64,
    /// Values that were put, and acknowledged.
    pub replaced: u64,
    /// Times that the loss of a value was told.
    pub losses: u64,
    /// The store's last revision.
    pub revision: u64,
    /// A hash over every change of the store, with its time.
    pub trace: u64,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, after {after:?}: {what}")]
pub struct Violation {
    /// The plan's seed: it repeats.
    pub seed: u64,
    /// When.
    pub after: Duration,
    /// What does not hold.
    pub what: String,
}
