//! One request and its response, over a connection of their own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, WasiBody};

use super::dial::Stream;

/// A response, and what must run until its body is read.
pub(super) type Sent = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

/// How long each part may keep the guest waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) first_byte: Duration,
    pub(super) between_bytes: Duration,
}

/// Sends `request` over `stream`, which takes up `place` until it is closed.
pub(super) async fn exchange(
    stream: Box<dyn Stream>,
    mut request: Request<WasiBody>,
    times: Times,
    place: OwnedSemaphorePermit,
) -> Result<Sent, Error> {
    // Only proxies are told scheme and host here.
    *request.uri_mut() = origin_form(request.uri());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let ended = connection.await;
        drop(place);
        if let Err(error) = ended {
            // Whoever reads the body learns of it.
            tracing::debug!(%error, "an outgoing connection failed");
        }
    }));
    let response = match timeout(times.first_byte, sender.send_request(request)).await {
        Ok(response) => response.map_err(failed)?,
        Err(_) => return Err(Error::ConnectionReadTimeout),
    };
    let response = response.map(|incoming| {
        let body = Timed {
            incoming,
            between_bytes: times.between_bytes,
            timer: None,
        };
        body.boxed_unsync()
    });
    let driven = async move {
        // A driver that was aborted has nobody to tell.
        let _ = driver.await;
        Ok(())
    };
    Ok((response, Box::new(driven)))
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
}

fn failed(error: hyper::Error) -> Error {
    tracing::debug!(%error, "an outgoing request failed");
    if error.is_user() {
        of_the_guest(&error)
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Error::ConnectionTerminated
    } else {
        Error::HttpProtocolError
    }
}

/// Why a guest's own body ended the request.
fn of_the_guest(error: &hyper::Error) -> Error {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    match cause {
        Some(Error::HttpRequestBodySize(bytes)) => Error::HttpRequestBodySize(*bytes),
        _ => Error::HttpProtocolError,
    }
}

/// A response's body that fails when it stands still too long.
struct Timed {
    incoming: Incoming,
    between_bytes: Duration,
    /// Set while the reader waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(unread)));
        }
        let between_bytes = self.between_bytes;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep(between_bytes)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

fn unread(error: hyper::Error) -> Error {
    match failed(error) {
        Error::ConnectionTerminated => Error::HttpResponseIncomplete,
        error => error,
    }
}
