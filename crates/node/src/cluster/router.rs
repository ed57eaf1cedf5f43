//! What other nodes may ask of this one: services, by the high byte of a call's method.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use transport::{Handler, Incoming, Status};

/// A service of a node. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Service {
    /// Invocations that are run for other nodes.
    Call = 1,
    /// State that this node owns.
    State = 2,
    /// What guests print here.
    Logs = 3,
    /// Blobs that this node has, or can bring from the bucket.
    Blob = 4,
}

/// The number once more: whoever changes one changes it here too, and on purpose.
const _: () = assert!(
    Service::Call.method(1) == 0x0101
        && Service::State.method(0) == 0x0200
        && Service::Logs.method(1) == 0x0301
        && Service::Blob.method(1) == 0x0401
);

impl Service {
    /// The number of one of its methods.
    pub const fn method(self, method: u8) -> u16 {
        ((self as u16) << 8) | method as u16
    }
}

/// The answer of a node that does not have the service, as one of an earlier release.
pub(crate) const NO_SERVICE: Status = Status(u16::MAX);

/// Hands calls to the service that they are for. The listener is there before the services, which
/// need to know where it is.
#[derive(Default)]
pub(crate) struct Router {
    services: OnceLock<Vec<(Service, Arc<dyn Handler>)>>,
}

impl Router {
    /// Has these services answer, from now on. Before, none is there; later, these stay.
    pub fn serve(&self, services: Vec<(Service, Arc<dyn Handler>)>) {
        let _are_there = self.services.set(services);
    }
}

#[async_trait]
impl Handler for Router {
    async fn handle(&self, call: Incoming) {
        let wanted = (call.method >> 8) as u8;
        let mut services = self.services.get().into_iter().flatten();
        match services.find(|(service, _)| *service as u8 == wanted) {
            Some((_, handler)) => handler.handle(call).await,
            None => {
                // Who asks may have gone: then nobody is to be told.
                let _ = call.responder.reply(NO_SERVICE, "there is no such service");
            }
        }
    }
}
