//! State on many nodes: which node owns which keys, and asking it.
//!
//! ```text
//!  AppState::run ──mine──▶ run_here ──▶ Value                       Keeper: one task
//!       │                     ▲                                       claims, opens, hands over
//!       └─another's─▶ Cluster::ask ─ ─ ─▶ Serve::answer                      │
//!                                             └─▶ run_here ◀── Slots ◀───────┘
//! ```
//!
//! Each key is in one of [`SLOTS`] slots, and a slot is owned by the node that rendezvous hashing
//! prefers, once that has claimed it. The owner acts only while its claim holds by its own clock;
//! what it writes to the store is compared with the claim there. A request names the claim that it
//! is meant for, and is refused by every other.
//!
//! ```text
//!  slot:  away ──claimed──▶ opening ──read marks, clear up──▶ open ◀──┐ values in memory only
//!           ▲                                                  │      │ stay, unless the node
//!           │                                             should leave┘ drains
//!           │◀──released── closed ◀──flushed── closing ◀───────┘
//!           └────────────── closed ◀──── the claim ended ──── open
//! ```

mod bell;
mod bytes;
mod claims;
mod cluster;
mod copies;
mod holding;
mod keeper;
mod list;
pub(crate) mod marks;
mod mirror;
mod op;
mod relay;
mod reply;
mod route;
mod run;
mod serve;
mod slot;
mod slots;
pub(crate) mod wire;

use std::sync::Arc;

use storage::Store;

use crate::Config;
use crate::clock::{Clock, micros};

pub use claims::Claims;
pub use cluster::{ANSWER_HEAD_BYTES, Came, Claim, Cluster, ClusterError, Member, Room};
pub(crate) use copies::Copies;
pub(crate) use holding::{Holding, Phase};
pub use keeper::Keeper;
pub use mirror::Mirror;
pub(crate) use op::Ask;
pub use op::{Data, Done, Op};
pub(crate) use relay::Relays;
pub use serve::{Answer, Serve};
pub use slot::{SLOTS, Slot};
pub(crate) use slots::Slots;

/// Bytes of a value that one reply carries at most.
pub const PIECE_BYTES: usize = 4 << 20;

/// What a node knows of its part in the cluster.
#[derive(Debug)]
pub(crate) struct Tier {
    pub cluster: Arc<dyn Cluster>,
    pub slots: Arc<Slots>,
    pub store: Arc<dyn Store>,
    pub watches: serve::Watches,
    pub lockers: serve::Lockers,
    pub abroad: route::Abroad,
    /// The copies that this node keeps for others.
    pub kept: copies::Kept,
}

impl Tier {
    pub fn new(
        cluster: Arc<dyn Cluster>,
        slots: Arc<Slots>,
        store: Arc<dyn Store>,
        config: &Config,
        clock: &dyn Clock,
    ) -> Self {
        // Numbers of a node's earlier life are not used again.
        let first = micros(clock.now());
        Self {
            cluster,
            slots,
            store,
            watches: serve::Watches::new(first, config.asks_max),
            lockers: serve::Lockers::default(),
            abroad: route::Abroad::default(),
            kept: copies::Kept::default(),
        }
    }
}
