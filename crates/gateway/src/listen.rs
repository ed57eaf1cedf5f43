//! The accept loop that both listeners share: limits, protocol detection, graceful end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use sandbox::BodyError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ListenerConfig;
use crate::metrics::Connections;
use crate::watch::{Watch, WatchedBody, WatchedIo, until_expired};

/// Answers the requests of one listener.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The reply's body.
    type Reply: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static;

    /// Answers one request. Dropping the future cancels what it does.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Reply>> + Send;
}

/// Ends a listener: stop accepting, then wait for its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// No connection is accepted, and each ends after its present requests.
    pub(crate) graceful: CancellationToken,
    /// Connections are cut.
    pub(crate) now: CancellationToken,
}

/// How long the accept loop pauses after the kernel refused (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts and serves until stopped; returns when the last connection has ended.
pub(crate) async fn serve<A: Answer>(
    listener: TcpListener,
    answer: A,
    config: Arc<ListenerConfig>,
    connections: Connections,
    stop: Stop,
) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let tracker = TaskTracker::new();
    let builder = Arc::new(builder(&config));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.graceful.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (builder, answer, config) = (builder.clone(), answer.clone(), config.clone());
        let (stop, open) = (stop.clone(), connections.opened());
        tracker.spawn(async move {
            connection(stream, peer, &builder, answer, &config, &stop).await;
            drop((place, open));
        });
    }
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

fn builder(config: &ListenerConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .header_read_timeout(None)
        .max_headers(config.headers_max)
        .max_buf_size(config.head_bytes_max.max(HTTP1_BUFFER_MIN))
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(HTTP2_PING_INTERVAL))
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .max_concurrent_streams(config.streams_max)
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX));
    builder
}

/// The least buffer that hyper accepts.
const HTTP1_BUFFER_MIN: usize = 8192;
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

async fn connection<A: Answer>(
    stream: TcpStream,
    peer: SocketAddr,
    builder: &auto::Builder<TokioExecutor>,
    answer: A,
    config: &ListenerConfig,
    stop: &Stop,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
    }
    let watch = Watch::new();
    let io = WatchedIo::new(TokioIo::new(stream), watch.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let in_flight = watch.begin(request.version());
        let answer = answer.clone();
        async move {
            let response = answer.answer(request).await;
            Ok::<_, Infallible>(response.map(|body| WatchedBody::new(body, in_flight)))
        }
    });
    let serving = builder.serve_connection(io, service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        biased;
        ended = until_expired(serving.as_mut(), &watch, config) => Some(ended),
        () = stop.graceful.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = until_expired(serving, &watch, config) => ended,
                () = stop.now.cancelled() => return,
            }
        }
    };
    match ended {
        Ok(Ok(())) => (),
        Ok(Err(error)) => tracing::debug!(%peer, error, "a connection broke off"),
        Err(expired) => tracing::debug!(%peer, ?expired, "a slow connection was closed"),
    }
}
