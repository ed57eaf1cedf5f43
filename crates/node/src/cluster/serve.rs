//! Runs calls of other nodes. What came from another node is run here or refused: it goes nowhere
//! else, so that no call makes a second hop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use executor::{Admitted, Executor, Finished, HttpReply, Job, Leftover, Rejected};
use futures::{FutureExt as _, stream};
use gateway::InvocationSpan;
use http_body::Frame;
use http_body_util::BodyExt as _;
use http_body_util::StreamBody;
use invoker::{Registry, Select, Target};
use metering::LogBook;
use model::{InvocationId, NodeId, Outcome, StartKind, Status, TraceParent};
use sandbox::{Body, BodyError, Branch, Graft};
use scheduler::Brief;
use tracing::Instrument as _;
use transport::{CallError, Handler, Incoming, Peers};

use super::answers::{Answers, Creditor};
use super::metrics;
use super::neighbours::Neighbours;
use super::out::{Cut, Out};
use super::router::Service;
use super::wire::{self, Head, Input, Piece, PieceError, Pieces, Refusal, ReplyHead, Stem, Why};

/// The longest that a call of a tree goes on, whatever its sender says: days.
const LEFT_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// The service that runs calls of other nodes.
pub(super) struct Calls {
    pub executor: Executor,
    pub registry: Registry,
    pub logs: LogBook,
    pub neighbours: Arc<Neighbours>,
    pub peers: Peers,
    pub answers: Answers,
}

/// A call that is admitted.
struct Running {
    admitted: Admitted,
    executor: Executor,
    target: Target,
    input: Input,
    streams: bool,
    span: InvocationSpan,
    /// Of a call that a function made.
    debt: Option<Debt>,
}

/// What a part of a tree has borrowed.
struct Debt {
    branch: Arc<Branch>,
    creditor: Arc<Creditor>,
}

impl Debt {
    /// Gives back what is left of it.
    async fn settle(&self) {
        match self.branch.unused() {
            0 => (),
            unused => self.creditor.give_back(unused).await,
        }
    }
}

/// How a call that was not replied to ended.
enum Unsaid {
    /// It was not started, and that can still be said.
    Refused(Refusal, Out),
    /// Whoever asked is gone, or sent what is no call.
    Cut,
}

impl From<CallError> for Unsaid {
    fn from(_: CallError) -> Self {
        Self::Cut
    }
}

impl From<PieceError> for Unsaid {
    fn from(_: PieceError) -> Self {
        Self::Cut
    }
}

#[async_trait]
impl Handler for Calls {
    async fn handle(&self, call: Incoming) {
        if call.method != Service::Call.method(wire::RUN) {
            return self.answers.answer(call).await;
        }
        let mut pieces = Pieces::new(call.body);
        let out = Out::reply(call.responder);
        let ran = match self.admit(&call.peer, &mut pieces).await {
            Ok(running) => running.run(pieces, out).await,
            Err(refusal) => Err(Unsaid::Refused(refusal, out)),
        };
        let outcome = match ran {
            Ok(()) => "ran",
            Err(Unsaid::Cut) => "cut",
            Err(Unsaid::Refused(..)) if self.neighbours.is_silent() => "cut",
            Err(Unsaid::Refused(mut refusal, out)) => {
                refusal.brief = Some(brief(&self.executor));
                if let Some(responder) = out.into_responder() {
                    // Nobody is told who has gone.
                    let _ = responder.reply(wire::REFUSED, refusal.to_bytes());
                }
                refusal.why.as_str()
            }
        };
        ::metrics::counter!(metrics::SERVED_TOTAL, "outcome" => outcome).increment(1);
    }
}

impl Calls {
    async fn admit(
        &self,
        peer: &NodeId,
        pieces: &mut Pieces<transport::Body>,
    ) -> Result<Running, Refusal> {
        let malformed = |error: PieceError| Refusal::new(Why::Malformed, error.to_string());
        let head = pieces.head().await.map_err(malformed)?;
        let head = Head::read(head).map_err(malformed)?;
        if !self.neighbours.is_open() {
            return Err(Refusal::new(Why::Closed, "it takes no new calls"));
        }
        let trace = head.trace;
        let select = Select::Version(head.version);
        // What was deployed an instant ago may be known to the other node, and not here yet.
        let target = self.registry.find(&head.path, &select).await;
        let target = target.map_err(|error| Refusal::new(Why::Unknown, error.to_string()))?;
        let debt = head.stem.map(|stem| self.debt(peer, head.id, &stem, trace));
        let job = Job {
            id: head.id,
            path: target.path.clone(),
            version: target.version,
            spec: target.spec.clone(),
            log: self.logs.function(&target.path),
            trace,
            branch: debt.as_ref().map(|debt| debt.branch.clone()),
        };
        let admitted = match head.may_wait {
            true => self.executor.admit(job).await,
            false => self
                .executor
                .admit_at_once(job)
                .map_err(|refused| refused.1),
        };
        Ok(Running {
            admitted: admitted.map_err(|rejected| refusal(&rejected))?,
            executor: self.executor.clone(),
            span: InvocationSpan::of_call(head.id, &target, &trace),
            streams: head.streams,
            input: head.input,
            target,
            debt,
        })
    }

    /// The place of a call in a tree that began on another node.
    fn debt(&self, peer: &NodeId, id: InvocationId, stem: &Stem, trace: TraceParent) -> Debt {
        let creditor = Arc::new(Creditor {
            peers: self.peers.clone(),
            node: peer.clone(),
            id,
        });
        let graft = Graft {
            root: stem.root,
            parent: stem.parent,
            depth: stem.depth,
            deadline: Instant::now() + Duration::from_millis(stem.left_ms.min(LEFT_MS_MAX)),
            trace,
        };
        Debt {
            branch: Arc::new(Branch::grafted(graft, creditor.clone())),
            creditor,
        }
    }
}

fn brief(executor: &Executor) -> Brief {
    let (used, waiting) = executor.occupied();
    Brief { used, waiting }
}

fn refusal(rejected: &Rejected) -> Refusal {
    let why = match rejected {
        Rejected::QueueFull { .. } => Why::Full,
        Rejected::Draining => Why::Closed,
        Rejected::Sandbox(sandbox::SandboxError::Full { .. }) => Why::Full,
        _ => Why::Failed,
    };
    let error: &dyn std::error::Error = rejected;
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text: Vec<_> = causes.map(ToString::to_string).collect();
    Refusal::new(why, text.join(": "))
}

impl Running {
    async fn run(self, pieces: Pieces<transport::Body>, out: Out) -> Result<(), Unsaid> {
        match self.input.clone() {
            Input::Plain { args, env } => self.plain(pieces, out, args, env).await,
            Input::Http {
                method,
                uri,
                headers,
            } => match request(&method, &uri, &headers) {
                Some(request) => self.http(pieces, out, request).await,
                None => {
                    let refusal = Refusal::new(Why::Malformed, "the request is none");
                    Err(Unsaid::Refused(refusal, out))
                }
            },
        }
    }

    async fn plain(
        self,
        mut pieces: Pieces<transport::Body>,
        mut out: Out,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<(), Unsaid> {
        if self.streams {
            out.accept()?;
        }
        let bytes_max = self.target.spec.settings.limits.input_bytes_max;
        let body = collect(&mut pieces, bytes_max).await?;
        let leftover = Arc::<Leftover>::default();
        let invoked = self.admitted;
        let invoked = invoked.invoke_to(Some(leftover.clone()), body, args, env);
        let finished = invoked.instrument(self.span.span()).await;
        if let Some(debt) = &self.debt {
            debt.settle().await;
        }
        let Finished { outcome, reply } = match finished {
            Ok(finished) => finished,
            Err(rejected) => return reject(&rejected, out).await,
        };
        self.span.ended(&outcome);
        check_ended(&outcome)?;
        let head = ReplyHead {
            start: outcome.start,
            brief: Some(brief(&self.executor)),
            response: None,
        };
        head.put(&mut out.pending);
        out.data(reply).await?;
        wire::put_done(&outcome, &mut out.pending);
        if let Some(leaving) = out.finish_tracked().await? {
            leaving.gone().await;
            leftover.reset();
        }
        Ok(())
    }

    async fn http(
        self,
        mut pieces: Pieces<transport::Body>,
        mut out: Out,
        request: http::Request<()>,
    ) -> Result<(), Unsaid> {
        let body = match self.streams {
            true => {
                out.accept()?;
                streamed(pieces)
            }
            false => sandbox::body_of(collect(&mut pieces, u64::MAX).await?),
        };
        let invoked = self.admitted.invoke_http(request.map(|()| body));
        let HttpReply { head, mut done } = match invoked.instrument(self.span.span()).await {
            Ok(reply) => reply,
            Err(rejected) => return reject(&rejected, out).await,
        };
        let response = match head {
            Ok(response) => response,
            Err(outcome) => {
                self.span.ended(&outcome);
                if let Some(debt) = &self.debt {
                    debt.settle().await;
                }
                check_ended(&outcome)?;
                let head = ReplyHead {
                    start: outcome.start,
                    brief: Some(brief(&self.executor)),
                    response: None,
                };
                head.put(&mut out.pending);
                wire::put_done(&outcome, &mut out.pending);
                return Ok(out.finish().await?);
            }
        };
        let (parts, body) = response.into_parts();
        let head = ReplyHead {
            start: done.start().unwrap_or(StartKind::Cold),
            brief: Some(brief(&self.executor)),
            response: Some((parts.status.as_u16(), wire::to_headers(&parts.headers))),
        };
        head.put(&mut out.pending);
        match out.body(body).await {
            Ok(()) => (),
            Err(Cut::Call(error)) => return Err(error.into()),
            Err(Cut::Body(error)) => {
                wire::put_broken(&error.to_string(), &mut out.pending);
                return Ok(out.finish().await?);
            }
        }
        let outcome = match (&mut done).now_or_never() {
            Some(outcome) => outcome,
            None => {
                // The guest goes on after its reply, which its client need not wait for.
                wire::put_end(&mut out.pending);
                out.flush().await?;
                done.await
            }
        };
        self.span.ended(&outcome);
        if let Some(debt) = &self.debt {
            debt.settle().await;
        }
        wire::put_done(&outcome, &mut out.pending);
        Ok(out.finish().await?)
    }
}

/// Refuses the outcome of a call that this node's end cut off. Whoever cancels a call does not wait
/// for its reply; who does wait has lost it with the node.
fn check_ended(outcome: &Outcome) -> Result<(), Unsaid> {
    match outcome.status {
        Status::Cancelled => Err(Unsaid::Cut),
        _ => Ok(()),
    }
}

/// Says that a call which was admitted was not started after all.
async fn reject(rejected: &Rejected, mut out: Out) -> Result<(), Unsaid> {
    let refusal = refusal(rejected);
    if out.is_begun() {
        wire::put_broken(&refusal.message, &mut out.pending);
        return Ok(out.finish().await?);
    }
    Err(Unsaid::Refused(refusal, out))
}

/// All of a request's body, of at most so many bytes.
async fn collect(
    pieces: &mut Pieces<transport::Body>,
    bytes_max: u64,
) -> Result<Bytes, PieceError> {
    match pieces.whole(bytes_max).await? {
        (body, Piece::End) => Ok(body),
        _ => Err(PieceError::Unexpected),
    }
}

/// A request's body as it comes.
fn streamed(pieces: Pieces<transport::Body>) -> Body {
    let frames = stream::try_unfold(pieces, |mut pieces| async {
        let frame = match pieces.next().await? {
            Some(Piece::Data(bytes)) => Frame::data(bytes),
            Some(Piece::Trailers(bytes)) => Frame::trailers(wire::read_trailers(&bytes)?),
            Some(Piece::End) => return Ok(None),
            Some(_) => return Err(PieceError::Unexpected.into()),
            None => return Err(PieceError::Short.into()),
        };
        Ok::<_, BodyError>(Some((frame, pieces)))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn request(method: &str, uri: &str, headers: &wire::Headers) -> Option<http::Request<()>> {
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = uri.parse().ok()?;
    *request.headers_mut() = wire::from_headers(headers)?;
    Some(request)
}
