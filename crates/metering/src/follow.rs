//! Reading logs as they come.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{Stream, stream};
use model::{AppName, FunctionName, FunctionPath, InvocationId};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::LogRecord;

/// Which records to read; what is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFilter {
    /// Of this app.
    pub app: Option<AppName>,
    /// Of functions of this name.
    pub function: Option<FunctionName>,
    /// Of this invocation.
    pub invocation: Option<InvocationId>,
}

impl LogFilter {
    pub(crate) fn takes_function(&self, path: &FunctionPath) -> bool {
        self.app.as_ref().is_none_or(|app| *app == path.app)
            && self
                .function
                .as_ref()
                .is_none_or(|name| *name == path.function)
    }

    pub(crate) fn takes(&self, record: &LogRecord) -> bool {
        self.takes_function(&record.path)
            && self.invocation.is_none_or(|id| id == record.invocation)
    }
}

/// What a follower reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// A record.
    Record(Arc<LogRecord>),
    /// The reader was too slow: so many records, of all functions, are lost to it.
    Lagged(u64),
}

pub(crate) fn follow(
    old: &[Arc<LogRecord>],
    new: broadcast::Receiver<Arc<LogRecord>>,
    filter: LogFilter,
) -> impl Stream<Item = LogItem> + Send + use<> {
    let given: HashSet<u64> = old.iter().map(|record| record.order).collect();
    stream::unfold(
        (new, filter, given),
        |(mut new, filter, given)| async move {
            loop {
                let item = match new.recv().await {
                    Ok(record) if !filter.takes(&record) || given.contains(&record.order) => {
                        continue;
                    }
                    Ok(record) => LogItem::Record(record),
                    Err(RecvError::Lagged(count)) => LogItem::Lagged(count),
                    Err(RecvError::Closed) => return None,
                };
                return Some((item, (new, filter, given)));
            }
        },
    )
}
