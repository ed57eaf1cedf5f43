//! State that functions of an app share: named bytes in two tiers.
//!
//! ```text
//!  guest ─map─▶ Region ◀─┐ one per value, mapped into every sandbox that asks
//!  guest ─call─▶ Value ──┴─ Content: version, size, time to live │ Locks │ Watch
//!                  │ pull: chunks when they are touched
//!                  │ push: chunks that differ
//!                  ▼
//!               Global ── EmbeddedGlobal over the node's store
//! ```
//!
//! With other nodes beside, each key is owned by one of them, which the others ask: see `tier.rs`.
//!
//! - [`State`] is the node's, [`AppState`] an app's, [`Value`] a key's; a value may come and go
//!   while its key is held.
//! - Each value has a version, which its changes move on and which none ever has again.
//!
//! Invariants, as absences:
//! - No acknowledged change of a durable value is lost by a crash, and none is half there after it.
//! - Nothing of a durable value but its head is read before it is touched.
//! - No value, app or node holds more than its bound, and no lock longer than its time.
//! - No key has two owners that act at one time, and none answers with bytes of an earlier owner's
//!   memory. No loss of these passes for that there never was a value.
//! - No lock of the process is held over a wait, but for one conversation with the global tier a
//!   key.

mod app;
mod body;
mod budget;
mod chunks;
mod clock;
mod config;
mod content;
mod durable;
mod embedded;
mod error;
mod evict;
mod global;
mod held;
mod key;
mod lock;
pub mod metrics;
mod record;
mod state;
mod sweep;
mod tier;
mod turns;
mod value;
mod watch;

pub use app::{AppState, LIST_KEYS_MAX, Listed, Open};
pub use clock::{Clock, SystemClock};
pub use config::{Config, VALUE_BYTES_MOST};
pub use content::Durability;
pub use embedded::EmbeddedGlobal;
pub use error::{GlobalError, Quota, StateError};
pub use global::{CHUNK_BYTES, Content, Found, Global, Head, Push};
pub use key::{KEY_BYTES_MAX, Key, KeyError, Name};
pub use state::State;
pub use sweep::Service;
pub use tier::{
    ANSWER_HEAD_BYTES, Answer, Came, Claim, Claims, Cluster, ClusterError, Data, Done, Keeper,
    Member, Mirror, Op, PIECE_BYTES, Room, SLOTS, Serve, Slot,
};
pub use turns::Mode;
pub use value::{Info, Put, Span, Value};
pub use watch::{Watch, WatchItem};

#[cfg(test)]
mod tests;
