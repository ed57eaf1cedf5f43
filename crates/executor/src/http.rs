//! Http components: the reply begins when the guest has set its head, and streams after it.
//!
//! ```text
//!   poll guest ─┬─ guest ends first ──▶ all is inline: head and outcome together
//!               └─ head comes first ──▶ the rest of the guest is spawned; its body streams
//! ```
//!
//! Invariant: a guest whose reply body is dropped before its end is cancelled; one whose body is
//! complete may go on to its deadline.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::header::CONTENT_LENGTH;
use ::http::{Method, Request, Response};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use model::{Outcome, StartKind, Status};
use sandbox::{Body, BodyError, HttpCall, Payload};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::executor::admit;
use crate::pool::Way;
use crate::running::Running;
use crate::{Executor, Finished, Job, Rejected};

/// The reply of an http component.
#[derive(Debug)]
pub struct HttpReply {
    /// The response, or how the guest ended without one.
    pub head: Result<Response<Body>, Outcome>,
    /// The one outcome, once the guest has ended. Dropping it cancels nothing.
    pub done: Done,
}

/// The outcome to come of an invocation.
#[derive(Debug)]
pub struct Done(Either);

#[derive(Debug)]
enum Either {
    Ended(Option<Outcome>),
    Runs(oneshot::Receiver<Outcome>, StartKind),
}

impl Done {
    /// The outcome of an invocation that has ended.
    pub fn ended(outcome: Outcome) -> Self {
        Self(Either::Ended(Some(outcome)))
    }

    /// The outcome that will be told of an invocation that began so; one that is never told is
    /// that of a cancelled call.
    pub fn to_come(outcome: oneshot::Receiver<Outcome>, start: StartKind) -> Self {
        Self(Either::Runs(outcome, start))
    }

    /// The outcome, if the guest has ended already.
    pub fn now(&self) -> Option<&Outcome> {
        match &self.0 {
            Either::Ended(outcome) => outcome.as_ref(),
            Either::Runs(..) => None,
        }
    }
}

impl Done {
    /// How the sandbox came to be; none once the outcome was taken.
    pub fn start(&self) -> Option<StartKind> {
        match &self.0 {
            Either::Ended(outcome) => outcome.as_ref().map(|outcome| outcome.start),
            Either::Runs(_, start) => Some(*start),
        }
    }
}

impl Future for Done {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match &mut self.0 {
            Either::Ended(outcome) => match outcome.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => Poll::Pending,
            },
            Either::Runs(outcome, start) => {
                let start = *start;
                let lost = || Finished::without_reply(start, Status::Cancelled).outcome;
                Pin::new(outcome)
                    .poll(cx)
                    .map(|told| told.unwrap_or_else(|_| lost()))
            }
        }
    }
}

type Run = Pin<Box<dyn Future<Output = Outcome> + Send>>;

enum First {
    Head(Response<Body>),
    End(Outcome),
}

/// Polls the guest and the head of its response together.
struct Race {
    run: Run,
    head: oneshot::Receiver<Response<Body>>,
    headless: bool,
}

impl Race {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<First> {
        if let Poll::Ready(outcome) = self.run.as_mut().poll(cx) {
            return Poll::Ready(First::End(outcome));
        }
        if self.headless {
            return Poll::Pending;
        }
        match Pin::new(&mut self.head).poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(First::Head(response)),
            Poll::Ready(Err(_)) => {
                // The guest will set none: its end says why.
                self.headless = true;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Executor {
    /// Runs an http component until its response begins, or until it ends without one. Dropping
    /// the future cancels the invocation; so does dropping the response's body before its end.
    pub async fn invoke_http(
        &self,
        job: Job,
        request: Request<Body>,
    ) -> Result<HttpReply, Rejected> {
        let pool = self.inner.pool(&job);
        let place = admit(&pool).await?;
        let (running, way) = self.begin(pool, job, place, 0).await?;
        Ok(running.serve(way, request, false).await)
    }
}

impl Running {
    /// Runs an http component until its response begins. `here` says that the guest may hold this
    /// thread.
    pub(crate) async fn serve(mut self, way: Way, request: Request<Body>, here: bool) -> HttpReply {
        let bodyless = request.method() == Method::HEAD;
        let start = self.start;
        let (respond, head) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        self.done = Some(done);
        let payload = Payload::Http(Box::new(HttpCall { request, respond }));
        let run: Run = if way.cooperative || here {
            Box::pin(async move { self.run(payload).await.outcome })
        } else {
            Box::pin(async move { self.run_on_guest_runtime(payload, way.waits).await.outcome })
        };
        let mut race = Race {
            run,
            head,
            headless: false,
        };
        match poll_fn(|cx| race.poll(cx)).await {
            First::End(outcome) => HttpReply {
                head: race.head.try_recv().map_err(|_| outcome.clone()),
                done: Done::ended(outcome),
            },
            First::Head(response) => {
                let guest = tokio::spawn(race.run).abort_handle();
                HttpReply {
                    head: Ok(GuestBody::wrap(response, bodyless, guest)),
                    done: Done(Either::Runs(outcome, start)),
                }
            }
        }
    }
}

/// A reply body that takes its guest with it when it is dropped before its end.
struct GuestBody {
    body: Body,
    guest: Option<AbortHandle>,
    /// Bytes to come, where the head says it: a server need not ask for the end then.
    left: Option<u64>,
}

impl GuestBody {
    fn wrap(response: Response<Body>, bodyless: bool, guest: AbortHandle) -> Response<Body> {
        let length = response.headers().get(CONTENT_LENGTH);
        let stated = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let status = response.status();
        let bodyless = bodyless || status == 204 || status == 304 || status.is_informational();
        response.map(|body| {
            let left = stated.or_else(|| body.size_hint().exact());
            // What nobody will read says nothing by being dropped.
            let guest = (!bodyless && left != Some(0)).then_some(guest);
            GuestBody { body, guest, left }.boxed_unsync()
        })
    }
}

impl http_body::Body for GuestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.left = this.left.map(|left| left.saturating_sub(length));
                if this.left == Some(0) {
                    this.guest = None;
                }
            }
            Poll::Ready(Some(Err(_)) | None) => this.guest = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        if let Some(guest) = self.guest.take()
            && !self.body.is_end_stream()
        {
            guest.abort();
        }
    }
}
