//! A whole process that is a node: runtime, telemetry, signals.

use std::path::Path;

use gateway::{TokenInfo, Tokens};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::data_dir::DataDir;
use crate::telemetry::{LogConfig, Telemetry};
use crate::{Config, Node, NodeError, confined, start};

/// Runs a node until SIGTERM or SIGINT, then drains it. `ready` is told once it answers. Whether
/// all that ran was finished. Sets up the process's log: call it once, from `main`.
pub fn up(config: Config, log: &LogConfig, ready: impl FnOnce(&Node)) -> Result<bool, NodeError> {
    let runtime = main_runtime()?;
    runtime.block_on(async {
        let telemetry = Telemetry::install(log)?;
        let failed = |source| NodeError::Runtime {
            runtime: "signal",
            source,
        };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let node = start(config).await?;
        ready(&node);
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
        let mut shutdown = std::pin::pin!(node.shutdown());
        let finished = tokio::select! {
            finished = &mut shutdown => finished,
            // Asked a second time: whoever waits has no patience.
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        // The exporter sends its last batch over this runtime, so not from one of its threads.
        let _sent = tokio::task::spawn_blocking(move || drop(telemetry)).await;
        Ok(finished)
    })
}

/// Its threads run guests that yield, and deploys.
fn main_runtime() -> Result<Runtime, NodeError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("node")
        .on_thread_start(confined::begin)
        .build()
        .map_err(|source| NodeError::Runtime {
            runtime: "main",
            source,
        })
}

/// Tokens of a data directory that no node has open.
pub mod offline {
    use super::*;

    /// Makes a token; the text is given this once.
    pub fn create_token(data: &Path, name: &str) -> Result<(TokenInfo, String), NodeError> {
        let unix_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        with_tokens(data, async |tokens| {
            Ok(tokens.create(name, unix_ms).await?)
        })
    }

    /// Every token, the oldest first.
    pub fn list_tokens(data: &Path) -> Result<Vec<TokenInfo>, NodeError> {
        with_tokens(data, async |tokens| Ok(tokens.list()))
    }

    /// Ends a token.
    pub fn revoke_token(data: &Path, id: &str) -> Result<(), NodeError> {
        with_tokens(data, async |tokens| Ok(tokens.revoke(id).await?))
    }

    fn with_tokens<T>(
        data: &Path,
        work: impl AsyncFnOnce(Tokens) -> Result<T, NodeError>,
    ) -> Result<T, NodeError> {
        let data_dir = DataDir::open(data)?;
        main_runtime()?.block_on(async {
            let tokens = Tokens::open(data_dir.store.clone()).await?;
            work(tokens).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Command;

    use super::*;

    #[test]
    fn no_thread_of_the_node_starts_a_program() {
        let start = || {
            Command::new("/bin/true")
                .status()
                .map_err(|error| error.kind())
        };
        let runtime = main_runtime().expect("threads");
        let worker = runtime.spawn(async move { start() });
        let blocking = runtime.spawn_blocking(start);
        for refused in [worker, blocking] {
            let refused = runtime.block_on(refused).expect("no panic");
            assert_eq!(
                refused.expect_err("no program"),
                ErrorKind::PermissionDenied
            );
        }
    }
}
