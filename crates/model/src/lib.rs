//! The words of Dunlin: ids, names, limits, usage and outcomes. No I/O, no clock, no lock.
//!
//! Everything that crosses a crate's border is said in these types, so that one word means one
//! thing in code, records, metrics and the API. Records and wire types are built from them, which
//! is why they alone among the inner crates derive serde.

mod digest;
mod egress;
mod files;
mod function;
mod grants;
mod ids;
mod limits;
mod names;
mod near;
mod outcome;
mod trace;
mod usage;

pub use digest::{Digest, DigestError, Hasher};
pub use egress::{EgressGrant, EgressGrantError};
pub use files::{FILE_ENTRIES_MAX, FileEntry, FileList, FileListError};
pub use function::{
    Isolation, IsolationError, Kind, KindError, LAYERS_MAX, Reuse, Settings, Snapshot, VersionSpec,
};
pub use grants::{
    Access, CallGrant, CallGrantError, Durability, GRANTS_MAX, Grants, GrantsError, StateGrant,
};
pub use ids::{IdError, InvocationId};
pub use limits::{Limits, LimitsError};
pub use names::{AppName, FunctionName, FunctionPath, NameError, NodeId};
pub use near::{NEAR_BYTES_MAX, NEAR_MAX, NearError, NearKey};
pub use outcome::{Outcome, StartKind, Status, TrapKind};
pub use trace::TraceParent;
pub use usage::Usage;
