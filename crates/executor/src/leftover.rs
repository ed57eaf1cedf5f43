//! A sandbox that a call leaves to whoever replies.
//!
//! A reset that is spawned while the reply is still to be handed to another task makes the runtime
//! wake a second thread for one of the two, before the reply is on its way. Who hands a reply on
//! resets after it, on the same thread.

use std::sync::Arc;

use parking_lot::Mutex;
use sandbox::Sandbox;

use crate::pool::Pool;

/// Where a call leaves its sandbox. Dropped, it has it reset elsewhere.
#[derive(Default)]
pub struct Leftover(Mutex<Option<Left>>);

struct Left {
    pool: Arc<Pool>,
    sandbox: Box<dyn Sandbox>,
}

impl Leftover {
    pub(crate) fn leave(&self, pool: Arc<Pool>, sandbox: Box<dyn Sandbox>) {
        let before = self.0.lock().replace(Left { pool, sandbox });
        give_back(before, false);
    }

    /// Resets what was left, if anything, on this thread.
    pub fn reset(&self) {
        let left = self.0.lock().take();
        give_back(left, true);
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        give_back(self.0.get_mut().take(), false);
    }
}

impl std::fmt::Debug for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leftover").finish_non_exhaustive()
    }
}

fn give_back(left: Option<Left>, here: bool) {
    if let Some(Left { pool, sandbox }) = left {
        pool.give_back(sandbox, here);
    }
}
