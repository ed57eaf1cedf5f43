//! The host of a node: what every session shares.

use std::sync::Arc;

use sandbox::host::{Guest, Host, HostCall, Session};
use state::State;

use crate::metrics::Counts;
use crate::session::GuestSession;
use crate::{Chain, Config, TABLE};

/// What every session shares.
pub(crate) struct Services {
    pub state: State,
    pub chain: Arc<dyn Chain>,
    pub config: Config,
    pub counts: Counts,
}

/// Answers the guests of a node. Cheap to clone.
#[derive(Clone)]
pub struct Hostcalls(Arc<Services>);

impl Hostcalls {
    /// Answers over this state and these functions.
    pub fn new(state: State, chain: Arc<dyn Chain>, config: Config) -> Self {
        Self(Arc::new(Services {
            state,
            chain,
            config,
            counts: Counts::new(),
        }))
    }
}

impl Host for Hostcalls {
    fn table(&self) -> &'static [HostCall] {
        TABLE
    }

    fn session(&self, guest: Guest) -> Box<dyn Session> {
        Box::new(GuestSession::new(self.0.clone(), guest))
    }
}
