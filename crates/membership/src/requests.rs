//! What a session asks, asked of the store: each within its time, and none a second time.

use std::sync::Arc;

use storage::{StorageError, TxnOutcome};

use crate::handle::Shared;
use crate::session::{Action, Event};
use crate::{Report, Tenure};

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Something for the session.
    Session(Event),
    /// Whether a report was put.
    Reported(bool),
    /// Nothing that anybody waits for.
    Nothing,
}

/// Does what a session wants done.
pub(crate) async fn perform(shared: Arc<Shared>, action: Action) -> Heard {
    let within = shared.config.request_timeout;
    let done = tokio::time::timeout(within, ask(&shared, action)).await;
    match (done, action) {
        (Ok(heard), _) => heard,
        (Err(_), Action::Grant(n) | Action::Join(n, _) | Action::Keep(n, _)) => {
            tracing::warn!(?action, ?within, "the store did not answer");
            Heard::Session(Event::Failed(n))
        }
        (Err(_), Action::Revoke(lease)) => {
            tracing::warn!(%lease, ?within, "the store did not answer; the lease ends by itself");
            Heard::Nothing
        }
    }
}

async fn ask(shared: &Shared, action: Action) -> Heard {
    let failed = |n: u64, error: StorageError| {
        tracing::warn!(?action, %error, "membership was not kept up");
        match error {
            StorageError::LeaseNotFound(_) => Event::Gone(n),
            _ => Event::Failed(n),
        }
    };
    let event = match action {
        Action::Grant(n) => match shared.store.lease(shared.config.lease_ttl).await {
            Ok(lease) => Event::Granted(n, lease),
            Err(error) => failed(n, error),
        },
        Action::Join(n, lease) => {
            let txn = shared.record.join(&shared.id, lease);
            match shared.store.transact(txn).await {
                Ok(TxnOutcome::Committed { revision }) => Event::Joined(n, revision.0),
                Ok(TxnOutcome::Conflict) => Event::Taken(n),
                Err(error) => failed(n, error),
            }
        }
        Action::Keep(n, lease) => match shared.store.keep_alive(lease).await {
            Ok(()) => Event::Kept(n),
            Err(error) => failed(n, error),
        },
        Action::Revoke(lease) => {
            match shared.store.revoke(lease).await {
                Ok(()) | Err(StorageError::LeaseNotFound(_)) => (),
                Err(error) => tracing::warn!(%lease, %error, "a lease was left to end by itself"),
            }
            return Heard::Nothing;
        }
    };
    Heard::Session(event)
}

/// Puts a report under the tenure's lease.
pub(crate) async fn say(shared: Arc<Shared>, tenure: Tenure, report: Report) -> Heard {
    let within = shared.config.request_timeout;
    let txn = report.put(&shared.id, tenure.lease);
    let put = tokio::time::timeout(within, shared.store.transact(txn)).await;
    match put {
        Ok(Ok(_)) => Heard::Reported(true),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a report was not put");
            Heard::Reported(false)
        }
        Err(_) => {
            tracing::warn!(?within, "the store did not answer a report");
            Heard::Reported(false)
        }
    }
}
