//! The runtime on which guests compute that do not yield.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{NodeError, confined};

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
            .on_thread_start(confined::begin)
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;

    use super::*;

    /// How a program could not be started.
    fn start() -> ErrorKind {
        let started = Command::new("/bin/true").status();
        started.expect_err("it must not start").kind()
    }

    #[tokio::test]
    async fn no_thread_of_guests_starts_a_program() {
        let mut guests = Guests::start(2).expect("threads");
        let worker = guests.handle().spawn(async {
            let blocking = tokio::task::spawn_blocking(start).await;
            (start(), blocking.expect("no panic"))
        });
        let refused = worker.await.expect("no panic");
        let denied = ErrorKind::PermissionDenied;
        assert_eq!(refused, (denied, denied));
        guests.stop(Duration::from_secs(10)).await;
    }
}
