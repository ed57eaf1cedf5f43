//! The runtime on which guests compute that do not yield.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::NodeError;

/// Dropped, it ends without waiting: a guest may hold a thread until its deadline, and whoever
/// drops it, as a start that fails does, may be a task itself.
pub(crate) struct Guests {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Guests {
    pub fn start(threads: usize) -> Result<Self, NodeError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("guest")
            .enable_time()
            .enable_io()
            .build();
        let runtime = runtime.map_err(|source| NodeError::Runtime {
            runtime: "guest",
            source,
        })?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// What starts tasks there.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends it; a thread that a guest holds is waited for so long.
    pub async fn stop(&mut self, patience: Duration) {
        if let Some(runtime) = self.runtime.take() {
            let ended = move || runtime.shutdown_timeout(patience);
            let _ended = tokio::task::spawn_blocking(ended).await;
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
