//! Runs a call on another node: one hop, and its reply as it comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use executor::{Done, Finished, HttpReply};
use futures::{FutureExt as _, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use model::{NodeId, Outcome};
use sandbox::{Body, BodyError};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use transport::{CallError, Connection, PeerError, Peers, Request, Sender};

use super::neighbours::Sent;
use super::out::{Out, TOGETHER_BYTES};
use super::router::{NO_SERVICE, Service};
use super::wire::{
    self, Head, Input, InputRef, Piece, PieceError, Pieces, Refusal, ReplyHead, Why,
};

/// Bytes that go with the first frame: less than every node takes.
const FIRST_BYTES_MAX: usize = 60 << 10;
/// Bytes of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// The way to a node, for one call.
pub(super) struct Way<'a> {
    pub peers: &'a Peers,
    pub node: &'a NodeId,
    pub sent: Arc<Sent>,
    /// Time until the call is cut, on both sides.
    pub timeout: Duration,
}

/// Why a call that was sent to another node has no reply.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was not started.
    NotBegun(String),
    /// The node did not want it: it was not started.
    Refused(Refusal),
    /// It may have been.
    Lost(String),
}

/// A request body that is kept until a node takes it.
pub(super) enum Held {
    /// All of it.
    Whole(Bytes),
    /// As the client sends it.
    Streams(Body),
    /// A node had it, and was lost.
    Spent,
}

impl Held {
    /// Looks whether all of it is there already, and is small.
    pub fn of(mut body: Body) -> Self {
        use http_body::Body as _;
        if body.is_end_stream() {
            return Self::Whole(Bytes::new());
        }
        let frame = match body.frame().now_or_never() {
            None => return Self::Streams(body),
            Some(None) => return Self::Whole(Bytes::new()),
            Some(Some(frame)) => frame,
        };
        match frame {
            Ok(frame) if body.is_end_stream() && frame.is_data() && is_small(&frame) => {
                Self::Whole(frame.into_data().unwrap_or_default())
            }
            frame => {
                let rest = BodyStream::new(body);
                let all = stream::iter([frame]).chain(rest);
                Self::Streams(StreamBody::new(all).boxed_unsync())
            }
        }
    }

    /// The body, for a run here; none if it is spent.
    pub fn into_body(self) -> Option<Body> {
        match self {
            Held::Whole(bytes) => Some(sandbox::body_of(bytes)),
            Held::Streams(body) => Some(body),
            Held::Spent => None,
        }
    }
}

fn is_small(frame: &Frame<Bytes>) -> bool {
    let length = frame.data_ref().map_or(0, Bytes::len);
    length <= TOGETHER_BYTES
}

impl Way<'_> {
    /// Runs a command or reactor there.
    pub async fn plain(
        &self,
        head: &mut Head<InputRef<'_>>,
        body: &Bytes,
        reply_bytes_max: u64,
    ) -> Result<Finished, Failed> {
        let is_small = body.len() <= TOGETHER_BYTES;
        head.streams = !is_small;
        let gone = self.sent.gone.clone();
        let called = async {
            let whole = is_small.then_some(body);
            let (sender, mut pieces) = self.begin(head, whole).await?;
            if let Some(sender) = sender {
                // A node that wants no more of it says why in its reply.
                let _cut = send(sender, body.clone()).await;
            }
            let finished = finished(&mut pieces, &self.sent, reply_bytes_max);
            finished.await.map_err(lost)
        };
        gone.run_until_cancelled(called)
            .await
            .unwrap_or_else(|| Err(left()))
    }

    /// Runs an http component there until its response begins.
    pub async fn http(
        &self,
        head: &mut Head<InputRef<'_>>,
        held: &mut Held,
    ) -> Result<HttpReply, Failed> {
        head.streams = matches!(held, Held::Streams(_));
        let gone = self.sent.gone.clone();
        let called = async {
            let whole = match &*held {
                Held::Whole(bytes) => Some(bytes),
                _ => None,
            };
            let (sender, pieces) = self.begin(head, whole).await?;
            let pump = match (sender, std::mem::replace(held, Held::Spent)) {
                (Some(sender), Held::Streams(body)) => Some(Pump::start(sender, body)),
                (_, kept) => {
                    *held = kept;
                    None
                }
            };
            Reading::new(pieces, self.sent.clone(), pump).reply().await
        };
        gone.run_until_cancelled(called)
            .await
            .unwrap_or_else(|| Err(left()))
    }

    /// Offers a call: asks the node for a place. The call begins there when its body comes, and
    /// never if what is returned is dropped before.
    pub async fn offer(
        &self,
        head: &mut Head<InputRef<'_>>,
    ) -> Result<(Sender, Pieces<transport::Body>), Failed> {
        head.streams = true;
        let gone = self.sent.gone.clone();
        let begun = gone.run_until_cancelled(self.begin(head, None)).await;
        let (sender, pieces) = begun.unwrap_or_else(|| Err(left()))?;
        // The body of a call that streams has its sender.
        let sender = sender.ok_or_else(left)?;
        Ok((sender, pieces))
    }

    /// Sends the head, with the body if it is given; gives the reply's pieces once the node has
    /// accepted, and where the body goes if that is still to come.
    async fn begin(
        &self,
        head: &Head<InputRef<'_>>,
        whole: Option<&Bytes>,
    ) -> Result<(Option<Sender>, Pieces<transport::Body>), Failed> {
        let mut bytes = BytesMut::new();
        head.put(&mut bytes);
        if let Some(body) = whole {
            wire::put_data(body, &mut bytes);
            wire::put_end(&mut bytes);
        }
        let bytes = bytes.freeze();
        let connection = self.peers.connection(self.node).await;
        let connection = connection.map_err(|error| Failed::NotBegun(describe(&error)))?;
        let (sender, answer) = match self.open(&connection, &bytes, whole.is_none()).await {
            // The connection ended while it was asked; another one is there, or is made.
            Err(CallError::Draining) => {
                let again = self.peers.connection(self.node).await;
                let again = again.map_err(|error| Failed::NotBegun(describe(&error)))?;
                self.open(&again, &bytes, whole.is_none()).await
            }
            opened => opened,
        }
        .map_err(|error| self.failed(error))?;
        let reply = answer.reply().await.map_err(|error| self.failed(error))?;
        match reply.status {
            wire::ACCEPTED => Ok((sender, Pieces::new(reply.body))),
            wire::REFUSED => {
                let bytes = reply.body.collect(REFUSAL_BYTES_MAX).await;
                Err(Failed::Refused(Refusal::read(bytes.unwrap_or_default())))
            }
            NO_SERVICE => {
                let message = "it is of a release that runs no calls of others";
                Err(Failed::Refused(Refusal::new(Why::Other, message)))
            }
            other => Err(Failed::Lost(format!("it answered {}", other.0))),
        }
    }

    async fn open(
        &self,
        connection: &Connection,
        bytes: &Bytes,
        streams: bool,
    ) -> Result<(Option<Sender>, transport::Answer), CallError> {
        let request = |bytes: Bytes| {
            let method = Service::Call.method(wire::RUN);
            Request::new(method, bytes).timeout(self.timeout)
        };
        if !streams && bytes.len() <= FIRST_BYTES_MAX {
            let answer = connection.ask(request(bytes.clone())).await?;
            return Ok((None, answer));
        }
        let mut rest = bytes.clone();
        let first = rest.split_to(rest.len().min(FIRST_BYTES_MAX));
        let (mut sender, answer) = connection.stream(request(first)).await?;
        while !rest.is_empty() {
            sender
                .send(rest.split_to(rest.len().min(TOGETHER_BYTES)))
                .await?;
        }
        if streams {
            return Ok((Some(sender), answer));
        }
        sender.finish()?;
        Ok((None, answer))
    }

    fn failed(&self, source: CallError) -> Failed {
        let begun = !matches!(
            source,
            CallError::Busy { .. } | CallError::Draining | CallError::Refused
        );
        let node = self.node.clone();
        let text = describe(&PeerError::Call { node, source });
        match begun {
            true => Failed::Lost(text),
            false => Failed::NotBegun(text),
        }
    }
}

fn lost(error: PieceError) -> Failed {
    Failed::Lost(describe(&error))
}

fn left() -> Failed {
    Failed::Lost("it left the cluster".to_owned())
}

/// An error and its causes.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Sends all of a body.
pub(super) async fn send(sender: Sender, body: Bytes) -> Result<(), CallError> {
    let mut out = Out::begun(sender);
    for part in body.chunks(TOGETHER_BYTES) {
        out.data(body.slice_ref(part)).await?;
    }
    wire::put_end(&mut out.pending);
    out.finish().await
}

/// The whole reply of a command or reactor.
async fn finished(
    pieces: &mut Pieces<transport::Body>,
    sent: &Sent,
    bytes_max: u64,
) -> Result<Finished, PieceError> {
    let head = ReplyHead::read(pieces.head().await?)?;
    sent.hear(head.brief);
    match pieces.whole(bytes_max).await? {
        (reply, Piece::Done(bytes)) => {
            let outcome = wire::read_outcome(bytes)?;
            Ok(Finished { outcome, reply })
        }
        (_, Piece::Broken(why)) => Err(PieceError::Broken(why)),
        _ => Err(PieceError::Unexpected),
    }
}

/// Sends a request's body on; dropped, it stops.
struct Pump(AbortHandle);

impl Pump {
    fn start(sender: Sender, body: Body) -> Self {
        let pump = tokio::spawn(async move {
            let mut out = Out::begun(sender);
            // What breaks off is dropped here, which cuts the call: half a body is not a whole one.
            if out.body(body).await.is_ok() {
                wire::put_end(&mut out.pending);
                let _nobody_reads = out.finish().await;
            }
        });
        Self(pump.abort_handle())
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A reply that is being read.
struct Reading {
    pieces: Pieces<transport::Body>,
    sent: Arc<Sent>,
    outcome: Option<oneshot::Sender<Outcome>>,
    /// A piece that was looked at too early.
    peeked: Option<Piece>,
    _pump: Option<Pump>,
}

impl Reading {
    fn new(pieces: Pieces<transport::Body>, sent: Arc<Sent>, pump: Option<Pump>) -> Self {
        Self {
            pieces,
            sent,
            outcome: None,
            peeked: None,
            _pump: pump,
        }
    }

    /// The reply, once its head is there.
    async fn reply(mut self) -> Result<HttpReply, Failed> {
        let head = self.pieces.head().await.map_err(lost)?;
        let head = ReplyHead::read(head).map_err(lost)?;
        let ReplyHead {
            start,
            brief,
            response,
        } = head;
        self.sent.hear(brief);
        let Some((status, headers)) = response else {
            let outcome = self.outcome().await.map_err(lost)?;
            let done = Done::ended(outcome.clone());
            let head = Err(outcome);
            return Ok(HttpReply { head, done });
        };
        let mut response = http::Response::new(());
        let parsed = http::StatusCode::from_u16(status).ok();
        let parsed = parsed.zip(wire::from_headers(&headers));
        let (status, headers) = parsed.ok_or_else(|| lost(PieceError::Unexpected))?;
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        let (body, done) = match self.at_once().map_err(lost)? {
            AtOnce::Whole(bytes, outcome) => (sandbox::body_of(bytes), Done::ended(outcome)),
            AtOnce::Begun(frames) => {
                let (sender, outcome) = oneshot::channel();
                self.outcome = Some(sender);
                let frames = frames.into_iter().map(|bytes| Ok(Frame::data(bytes)));
                let rest = stream::try_unfold(self, Self::frame);
                let all = stream::iter(frames).chain(rest);
                let body = StreamBody::new(all).boxed_unsync();
                (body, Done::to_come(outcome, start))
            }
        };
        let head = Ok(response.map(|()| body));
        Ok(HttpReply { head, done })
    }

    /// Looks whether all of the reply is there already, so that its length can be said.
    fn at_once(&mut self) -> Result<AtOnce, PieceError> {
        let mut first = Vec::new();
        while first.len() < AT_ONCE_MAX {
            match self.pieces.next().now_or_never() {
                None => break,
                Some(Ok(Some(Piece::Data(bytes)))) => first.push(bytes),
                Some(Ok(Some(Piece::Done(outcome)))) if first.len() < 2 => {
                    let outcome = wire::read_outcome(outcome)?;
                    return Ok(AtOnce::Whole(first.pop().unwrap_or_default(), outcome));
                }
                Some(Ok(Some(other))) => {
                    self.peeked = Some(other);
                    break;
                }
                Some(Ok(None)) => return Err(PieceError::Short),
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(AtOnce::Begun(first))
    }

    async fn next(&mut self) -> Result<Piece, PieceError> {
        match self.peeked.take() {
            Some(piece) => Ok(piece),
            None => self.pieces.next().await?.ok_or(PieceError::Short),
        }
    }

    async fn frame(mut self) -> Result<Option<(Frame<Bytes>, Self)>, BodyError> {
        let gone = self.sent.gone.clone();
        let next = gone.run_until_cancelled(self.next()).await;
        match next.ok_or("the node that ran the call left the cluster")?? {
            Piece::Data(bytes) => Ok(Some((Frame::data(bytes), self))),
            Piece::Trailers(bytes) => {
                Ok(Some((Frame::trailers(wire::read_trailers(&bytes)?), self)))
            }
            Piece::Done(bytes) => {
                self.tell(wire::read_outcome(bytes)?);
                Ok(None)
            }
            Piece::End => {
                // The guest goes on after its reply: its outcome comes when it ends.
                tokio::spawn(async move {
                    if let Ok(outcome) = self.outcome().await {
                        self.tell(outcome);
                    }
                });
                Ok(None)
            }
            Piece::Broken(why) => Err(PieceError::Broken(why).into()),
            Piece::Head(_) => Err(PieceError::Unexpected.into()),
        }
    }

    async fn outcome(&mut self) -> Result<Outcome, PieceError> {
        match self.next().await? {
            Piece::Done(bytes) => wire::read_outcome(bytes),
            Piece::Broken(why) => Err(PieceError::Broken(why)),
            _ => Err(PieceError::Unexpected),
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        if let Some(sender) = self.outcome.take() {
            // Most callers do not wait for it.
            let _ = sender.send(outcome);
        }
    }
}

/// Pieces of a reply that are looked at before its head goes on.
const AT_ONCE_MAX: usize = 16;

/// What of a reply was there with its head.
enum AtOnce {
    Whole(Bytes, Outcome),
    /// The first bytes of the body; more is to come.
    Begun(Vec<Bytes>),
}

/// What an http component is sent.
pub(crate) fn http_input(request: &http::request::Parts) -> Input {
    Input::Http {
        method: request.method.to_string(),
        uri: request.uri.to_string(),
        headers: wire::to_headers(&request.headers),
    }
}
