//! Both listeners, from their start to their graceful end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::v1::NodeInfo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::Config;
use crate::admin::Admin;
use crate::data::Data;
use crate::listen::{Stop, serve};
use crate::metrics::{self, Connections};
use crate::shared::{Services, Shared};
use crate::span::unix_ms;

/// A gateway that answers; dropping it leaves it running until the process ends.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    data: Listening,
    admin: Listening,
}

#[derive(Debug)]
struct Listening {
    addr: SocketAddr,
    stop: Stop,
    task: JoinHandle<()>,
}

impl Gateway {
    /// Answers on both listeners from now on. Must be called in a tokio runtime.
    pub fn start(
        config: Config,
        services: Services,
        data: TcpListener,
        admin: TcpListener,
    ) -> std::io::Result<Self> {
        metrics::describe();
        let (data_addr, admin_addr) = (data.local_addr()?, admin.local_addr()?);
        let info = NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_addr: data_addr.to_string(),
            admin_addr: admin_addr.to_string(),
            host: config.host.clone(),
            started_unix_ms: unix_ms(),
            token_required: config.require_token,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let limits = (
            Arc::new(config.data.clone()),
            Arc::new(config.admin.clone()),
        );
        let shared = Arc::new(Shared::new(config, services, info));
        let (data_stop, admin_stop) = (Stop::default(), Stop::default());
        let connections = (Connections::of("data"), Connections::of("admin"));
        let data_task = tokio::spawn(serve(
            data,
            Data(shared.clone()),
            limits.0,
            connections.0,
            data_stop.clone(),
        ));
        let admin_task = tokio::spawn(serve(
            admin,
            Admin::new(shared.clone()),
            limits.1,
            connections.1,
            admin_stop.clone(),
        ));
        Ok(Self {
            shared,
            data: Listening {
                addr: data_addr,
                stop: data_stop,
                task: data_task,
            },
            admin: Listening {
                addr: admin_addr,
                stop: admin_stop,
                task: admin_task,
            },
        })
    }

    /// Where functions are called.
    pub fn data_addr(&self) -> SocketAddr {
        self.data.addr
    }

    /// Where the admin API is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr
    }

    /// Begins the end: `/readyz` says so, streams of events end, asynchronous calls are refused,
    /// and the data listener takes no connection more. The admin listener goes on, so that the
    /// end can be watched.
    pub fn begin_drain(&self) {
        self.shared.drain();
        self.data.stop.graceful.cancel();
    }

    /// Waits until the last request of both listeners is answered, for at most `patience`; then
    /// ends what is left. Whether all was answered.
    pub async fn end(mut self, patience: Duration) -> bool {
        self.begin_drain();
        let deadline = Instant::now() + patience;
        let data = timeout_at(deadline, &mut self.data.task).await.is_ok();
        self.data.stop.now.cancel();
        self.admin.stop.graceful.cancel();
        let deadline = deadline.max(Instant::now() + ADMIN_PATIENCE_MIN);
        let admin = timeout_at(deadline, &mut self.admin.task).await.is_ok();
        self.admin.stop.now.cancel();
        data && admin
    }
}

/// How long requests of the admin API may take at least after all else has ended.
const ADMIN_PATIENCE_MIN: Duration = Duration::from_secs(1);
