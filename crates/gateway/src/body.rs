//! Request bodies: collected up to a limit or streamed, and never waited for without end.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use api::Code;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use sandbox::{Body, BodyError};
use tokio::time::{Instant, Sleep};

use crate::ListenerConfig;
use crate::failure::Failure;

/// Bytes of a body that nobody wants which are read all the same.
const UNWANTED_BYTES_MAX: usize = 64 << 10;
/// How long they are waited for.
const UNWANTED_WAIT_MAX: Duration = Duration::from_secs(1);

/// Answers a request without its body. Clients send one in a piece of its own, and the next request
/// over the same connection, which would be closed if the body came after the answer: so a little
/// of it is waited for, and if that is not all, the answer says that the connection is closed. Who
/// waits to be told to send it is told nothing else.
pub(crate) async fn answer_without<R>(
    parts: &Parts,
    mut body: Incoming,
    mut response: Response<R>,
) -> Response<R> {
    if parts.version >= Version::HTTP_2 {
        return response;
    }
    let rest = async {
        let mut left = UNWANTED_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.checked_sub(bytes)?;
        }
        Some(())
    };
    let waits = parts.headers.contains_key(EXPECT);
    let has_come = !waits
        && matches!(
            tokio::time::timeout(UNWANTED_WAIT_MAX, rest).await,
            Ok(Some(()))
        );
    if !has_come {
        closes(&mut response);
    }
    response
}

/// Says that the connection is closed after this answer.
pub(crate) fn closes<R>(response: &mut Response<R>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

/// Collects a body of at most `bytes_max` bytes. One that announces more is not read at all.
pub(crate) async fn collect<B>(
    mut body: B,
    bytes_max: u64,
    config: &ListenerConfig,
) -> Result<Bytes, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > bytes_max {
        return Err(too_large(bytes_max));
    }
    let whole = collect_frames(&mut body, bytes_max, config.body_idle_timeout);
    match tokio::time::timeout(config.body_timeout, whole).await {
        Ok(done) => done,
        Err(_) => Err(too_slow(config.body_timeout)),
    }
}

async fn collect_frames<B>(body: &mut B, bytes_max: u64, idle: Duration) -> Result<Bytes, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    // Most bodies are one frame: those are handed on without a copy.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = next_frame(body, idle).await? {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if (first.len() + rest.len() + data.len()) as u64 > bytes_max {
            return Err(too_large(bytes_max));
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

pub(crate) async fn next_frame<B>(
    body: &mut B,
    idle: Duration,
) -> Result<Option<Frame<Bytes>>, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    match tokio::time::timeout(idle, body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(error))) => Err(Failure::new(
            Code::BadRequest,
            format!("the body broke off: {error}"),
        )),
        Err(_) => Err(too_slow(idle)),
    }
}

pub(crate) fn too_large(bytes_max: u64) -> Failure {
    Failure::new(
        Code::BodyTooLarge,
        format!("at most {bytes_max} bytes are accepted"),
    )
}

pub(crate) fn too_slow(limit: Duration) -> Failure {
    let seconds = limit.as_secs_f64();
    Failure::new(
        Code::RequestTimeout,
        format!("the body did not come within {seconds} s"),
    )
}

/// A body that is handed on as it comes, and that fails when the client pauses for too long.
pub(crate) fn streamed<B>(body: B, config: &ListenerConfig) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    if body.is_end_stream() {
        return sandbox::empty_body();
    }
    let idle = config.body_idle_timeout;
    Timed {
        body,
        idle,
        sleep: None,
        waits: false,
    }
    .boxed_unsync()
}

struct Timed<B> {
    body: B,
    idle: Duration,
    /// Made when the client first pauses, so that a body that is there already costs no timer.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the guest has found nothing to read since the last frame. The time that it takes
    /// itself before it asks is not the client's.
    waits: bool,
}

/// The client paused for too long in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the request body paused for longer than {0:?}")]
struct Paused(Duration);

impl<B> HttpBody for Timed<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waits = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let idle = self.idle;
        let begins = !std::mem::replace(&mut self.waits, true);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if begins {
            sleep.as_mut().reset(Instant::now() + idle);
        }
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Box::new(Paused(idle))))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::{Full, StreamBody};

    fn frames(parts: &[&'static str]) -> impl HttpBody<Data = Bytes, Error = BodyError> + Unpin {
        let frames: Vec<_> = parts
            .iter()
            .map(|p| Ok(Frame::data(Bytes::from(*p))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn frames_are_put_together() {
        let config = ListenerConfig::default();
        for parts in [&[][..], &["a"], &["a", "b"], &["", "a", "", "bc"]] {
            let bytes = collect(frames(parts), 10, &config)
                .await
                .expect("collected");
            assert_eq!(bytes, parts.concat());
        }
    }

    #[tokio::test]
    async fn bodies_over_the_limit_are_refused() {
        let config = ListenerConfig::default();
        let refused = collect(frames(&["abc", "def"]), 5, &config).await;
        assert_eq!(
            refused.expect_err("too large").problem.code,
            Code::BodyTooLarge
        );
        let announced = collect(Full::new(Bytes::from_static(b"abcdef")), 5, &config).await;
        assert_eq!(
            announced.expect_err("too large").problem.code,
            Code::BodyTooLarge
        );
        assert!(collect(frames(&["abc", "de"]), 5, &config).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_pauses_is_given_up() {
        let config = ListenerConfig {
            body_idle_timeout: Duration::from_millis(5),
            ..ListenerConfig::default()
        };
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BodyError>>());
        let slow = collect(never, 5, &config).await.expect_err("too slow");
        assert_eq!(slow.problem.code, Code::RequestTimeout);
    }

    #[tokio::test]
    async fn a_streamed_body_that_pauses_fails() {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BodyError>>());
        let mut timed = Timed {
            body,
            idle: Duration::from_millis(5),
            sleep: None,
            waits: false,
        };
        let frame = timed.frame().await.expect("an item");
        assert!(frame.expect_err("it failed").is::<Paused>());
    }
}
