//! What becomes of guests over an image whose rest did not come from the node that made it: in the
//! place of what is missing they find zeros, so that nothing which they make may get out.

use std::sync::Arc;

use memory::Image;
use model::Status;
use sandbox::{Presence, SandboxError};
use wasmtime::Store;

const LOST: &str = "the rest of its image did not come from the node that made it";

pub(crate) fn is_lost(image: &Image) -> bool {
    image.presence() == Presence::Lost
}

/// How a call ends that ran over it.
pub(crate) fn status() -> Status {
    Status::Platform {
        message: LOST.to_owned(),
    }
}

/// Refuses to do anything with sandboxes over it.
pub(crate) fn check(doing: &'static str, image: &Image) -> Result<(), SandboxError> {
    match is_lost(image) {
        false => Ok(()),
        true => Err(SandboxError::Failed {
            doing,
            reason: LOST.to_owned(),
        }),
    }
}

/// Ends a guest at its next call of the host once its image is lost, if that can still happen.
pub(crate) fn guard<T>(store: &mut Store<T>, image: &Arc<Image>) {
    if image.presence() == Presence::Whole {
        return;
    }
    let image = image.clone();
    store.call_hook(move |_, _| match is_lost(&image) {
        false => Ok(()),
        true => Err(wasmtime::Error::msg(LOST)),
    });
}
