//! What both listeners share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::v1::NodeInfo;
use bytes::Bytes;
use executor::Executor;
use http::HeaderValue;
use invoker::{Invoker, Registry};
use metering::{GraphBook, Ledger, LogBook, PriceList};
use state::State;
use storage::Blobs;
use tokio_util::sync::CancellationToken;

use crate::admin::Uploads;
use crate::call::Caller;
use crate::cluster::Cluster;
use crate::metrics::Requests;
use crate::tokens::Tokens;
use crate::{Config, admin};

/// What the gateway passes requests on to.
#[derive(Clone)]
pub struct Services {
    /// Runs functions.
    pub executor: Executor,
    /// Knows functions.
    pub registry: Registry,
    /// Keeps asynchronous invocations.
    pub invoker: Invoker,
    /// Artifacts.
    pub blobs: Blobs,
    /// What guests print.
    pub logs: LogBook,
    /// What functions used.
    pub ledger: Ledger,
    /// Which invocation called which.
    pub graphs: GraphBook,
    /// What functions share.
    pub state: State,
    /// What usage costs.
    pub prices: PriceList,
    /// Who may ask.
    pub tokens: Tokens,
    /// The cluster that the node is part of, if it is.
    pub cluster: Option<Arc<dyn Cluster>>,
    /// Renders the process's metrics.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) executor: Executor,
    pub(crate) registry: Registry,
    pub(crate) invoker: Invoker,
    pub(crate) blobs: Blobs,
    pub(crate) logs: LogBook,
    pub(crate) ledger: Ledger,
    pub(crate) graphs: GraphBook,
    pub(crate) state: State,
    pub(crate) uploads: Uploads,
    pub(crate) prices: PriceList,
    pub(crate) tokens: Tokens,
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    pub(crate) caller: Caller,
    pub(crate) info: NodeInfo,
    pub(crate) openapi: Bytes,
    /// Ends streams that would never end by themselves.
    pub(crate) stop: CancellationToken,
    draining: AtomicBool,
}

impl Shared {
    pub(crate) fn new(config: Config, services: Services, info: NodeInfo) -> Self {
        let caller = Caller {
            executor: services.executor.clone(),
            cluster: services.cluster,
            logs: services.logs.clone(),
            limits: Arc::new(config.data.clone()),
            requests: Requests::of("data"),
        };
        Self {
            caller,
            info,
            openapi: Bytes::from(admin::openapi_json()),
            stop: CancellationToken::new(),
            draining: AtomicBool::new(false),
            executor: services.executor,
            registry: services.registry,
            invoker: services.invoker,
            blobs: services.blobs,
            logs: services.logs,
            ledger: services.ledger,
            graphs: services.graphs,
            state: services.state,
            uploads: Uploads::new(config.state_upload_bytes_max),
            prices: services.prices,
            tokens: services.tokens,
            metrics: services.metrics,
            config,
        }
    }

    pub(crate) fn admits(&self, authorization: Option<&HeaderValue>) -> bool {
        !self.config.require_token || self.tokens.admits(authorization)
    }

    /// Whether a client of Lambda's may ask: its session token, or its bearer, is a token.
    pub(crate) fn admits_session(
        &self,
        session: Option<&HeaderValue>,
        authorization: Option<&HeaderValue>,
    ) -> bool {
        let session = session.is_some_and(|value| self.tokens.knows(value.as_bytes()));
        session || self.admits(authorization)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
