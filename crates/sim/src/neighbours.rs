//! The other nodes, as calls need them: whether one that runs a call is gone, and what was sent to
//! whom since its last word.

use std::collections::BTreeMap;
use std::time::Duration;

use membership::{Membership, Roster};
use model::NodeId;
use parking_lot::Mutex;
use scheduler::{Resources, Standing};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Reports that a node could have made by the time that what was assumed of it is forgotten.
const ASSUMED_REPORTS: u32 = 4;

pub(crate) struct Neighbours {
    membership: Membership,
    /// The token of each node's tenure, and what is cancelled when that is over.
    tenures: Mutex<BTreeMap<NodeId, (u64, CancellationToken)>>,
    /// Nodes that calls were sent to, and since when.
    assumed: Mutex<BTreeMap<NodeId, Instant>>,
    /// The roster's turnover when it was last looked at.
    turnover: Mutex<u64>,
}

impl Neighbours {
    pub fn new(membership: Membership) -> Self {
        Self {
            membership,
            tenures: Mutex::default(),
            assumed: Mutex::default(),
            turnover: Mutex::default(),
        }
    }

    /// Is cancelled once the node's present tenure is over; none if it has none.
    pub fn gone(&self, node: &NodeId) -> Option<CancellationToken> {
        self.tenures.lock().get(node).map(|(_, gone)| gone.clone())
    }

    /// Counts a call that is sent to a node in what is known of it.
    pub fn assume(&self, node: &NodeId, needs: Resources) {
        let assume = |roster: &mut Roster| roster.view_mut().assume(node, needs);
        if self.membership.look_mut(assume) {
            let mut assumed = self.assumed.lock();
            assumed.entry(node.clone()).or_insert_with(Instant::now);
        }
    }

    /// Follows the roster, for ever.
    pub async fn follow(&self, report_every: Duration) {
        let mut changes = self.membership.changes();
        let age = report_every * ASSUMED_REPORTS;
        let mut ticks = tokio::time::interval(age);
        loop {
            changes.borrow_and_update();
            self.look();
            tokio::select! {
                biased;
                _ = ticks.tick() => self.forget_assumed(age),
                // The membership that is held here keeps the sender alive.
                _ = changes.changed() => (),
            }
        }
    }

    fn look(&self) {
        let mut tenures = self.tenures.lock();
        let mut turnover = self.turnover.lock();
        self.membership.look(|roster| {
            // Most changes are reports.
            if std::mem::replace(&mut *turnover, roster.turnover()) == roster.turnover() {
                return;
            }
            let peers = roster.peers();
            tenures.retain(|node, (token, gone)| {
                let is_there = peers.get(node).is_some_and(|peer| peer.token == *token);
                if !is_there {
                    gone.cancel();
                }
                is_there
            });
            if tenures.len() == peers.len() {
                return;
            }
            for (node, peer) in peers {
                let fresh = || (peer.token, CancellationToken::new());
                tenures.entry(node.clone()).or_insert_with(fresh);
            }
        });
    }

    /// Goes back to a node's own words where what was assumed is old: one that is as it was says
    /// nothing.
    fn forget_assumed(&self, age: Duration) {
        let now = Instant::now();
        let mut old = Vec::new();
        self.assumed.lock().retain(|node, since| {
            let keep = now.duration_since(*since) < age;
            if !keep {
                old.push(node.clone());
            }
            keep
        });
        for node in old {
            self.membership.look_mut(|roster| {
                let load = roster.report(&node).map(|report| report.load.clone());
                let standing = roster.standing(&node);
                if let Some(load) = load.filter(|_| standing != Standing::Lost) {
                    roster.view_mut().put(&node, standing, &load);
                }
            });
        }
    }
}
