//! State that many nodes have together: who owns which part of it, by the membership, and how its
//! owners are asked.
//!
//! ```text
//!  request and reply:  length (8) │ head │ data     the length is that of head and data
//! ```
//!
//! What is long goes without a copy of its own from where it is to the socket, and from the socket
//! to where it is read: only a request's data is copied once, a piece at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use invoker::{Members, Nodes as _};
use membership::Membership;
use memory::Part;
use model::NodeId;
use state::{Came, Claim, Claims, ClusterError, Member, Room, Serve, Slot};
use tokio::sync::watch;
use transport::{CallError, Connection, Handler, Incoming, PeerError, Peers, Request, Status};

use super::messages::{
    Buffer, Buffers, LENGTH_BYTES, MessageError, STRAIGHT_HEAD_BYTES, Straight, message, replied,
};
use super::neighbours::Neighbours;
use super::router::{NO_SERVICE, Service};

/// The one method of the service.
const ASK: u8 = 0;
/// Bytes that go with the first frame: less than every node takes.
const FIRST_BYTES_MAX: usize = 60 << 10;
/// Bytes of a request's data that are copied, and sent, at a time: few enough to be in the
/// processor's cache when they are sent.
const PIECE_BYTES: usize = 64 << 10;
/// The most bytes of a reply: a piece of a value, or a listing, with room.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// The cluster, as state asks for it.
pub(super) struct Owners {
    claims: Claims,
    neighbours: Arc<Neighbours>,
    queues: Arc<Members>,
    peers: Peers,
    buffers: Arc<Buffers>,
}

impl Owners {
    pub fn new(
        membership: Membership,
        neighbours: Arc<Neighbours>,
        queues: Arc<Members>,
        peers: Peers,
    ) -> Self {
        Self {
            claims: Claims::new(membership),
            neighbours,
            queues,
            peers,
            buffers: Arc::default(),
        }
    }

    /// Sends a request, and reads all of its reply to where there is room for it.
    async fn exchange(
        &self,
        connection: Connection,
        request: Request,
        room: Room,
        rest: &[u8],
    ) -> Result<Came, MessageError> {
        match room.part {
            Some(part) if rest.is_empty() => self.exchange_into(connection, request, part).await,
            _ => {
                let asked = self.exchange_whole(connection, request, room.bytes, rest);
                let bytes = asked.await?;
                Ok(Came { bytes, rest: None })
            }
        }
    }

    async fn exchange_whole(
        &self,
        connection: Connection,
        request: Request,
        reply_bytes: usize,
        rest: &[u8],
    ) -> Result<Bytes, MessageError> {
        if rest.is_empty() && reply_bytes > FIRST_BYTES_MAX {
            let buffer = self.buffers.take(LENGTH_BYTES + reply_bytes);
            let mut body = replied(connection.ask_into(request, buffer).await?).await?;
            let (buffer, filled) = body.landed::<Buffer>().await?;
            let first = Bytes::from_owner(buffer).slice(..filled);
            return message(first, body, REPLY_BYTES_MAX, &self.buffers).await;
        }
        let answer = if rest.is_empty() {
            connection.ask(request).await?
        } else {
            let (mut sender, answer) = connection.stream(request).await?;
            for piece in rest.chunks(PIECE_BYTES) {
                match sender.send(Bytes::copy_from_slice(piece)).await {
                    Ok(()) => {}
                    // It wants no more of it, and says why in its reply.
                    Err(CallError::Over) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            // The same: the reply says it.
            let _over = sender.finish();
            answer
        };
        message(
            Bytes::new(),
            replied(answer).await?,
            REPLY_BYTES_MAX,
            &self.buffers,
        )
        .await
    }

    /// Sends a request whose reply goes to `part`, but for its head.
    async fn exchange_into(
        &self,
        connection: Connection,
        request: Request,
        part: Part,
    ) -> Result<Came, MessageError> {
        let straight = Straight::new(part);
        let mut body = replied(connection.ask_into(request, straight).await?).await?;
        let (Straight { head, part }, filled) = body.landed().await?;
        let (here, landed) = (
            &head[..filled.min(STRAIGHT_HEAD_BYTES)],
            filled.saturating_sub(STRAIGHT_HEAD_BYTES),
        );
        let (length, begin) = here.split_first_chunk().ok_or(MessageError::Short)?;
        let left = body.chunk().await?;
        if left.is_none() && u64::from_le_bytes(*length) == (begin.len() + landed) as u64 {
            let (bytes, rest) = (Bytes::copy_from_slice(begin), Some((part, landed)));
            return Ok(Came { bytes, rest });
        }
        // It is longer than what was asked for could be, or ends early.
        let first = [here, &part.as_ref()[..landed], &left.unwrap_or_default()].concat();
        let bytes = message(first.into(), body, REPLY_BYTES_MAX, &self.buffers).await?;
        Ok(Came { bytes, rest: None })
    }

    fn failed(node: &NodeId, error: MessageError) -> ClusterError {
        let unbegun = matches!(
            error,
            MessageError::Status(status) if status == NO_SERVICE.0
        ) || matches!(
            error,
            MessageError::Call(CallError::Busy { .. } | CallError::Draining | CallError::Refused)
        );
        let (node, source) = (node.clone(), error.into());
        match unbegun {
            true => ClusterError::Unreached { node, source },
            false => ClusterError::Unanswered { node, source },
        }
    }

    fn unreached(error: PeerError, node: &NodeId) -> ClusterError {
        let (node, source) = (node.clone(), error.into());
        ClusterError::Unreached { node, source }
    }
}

#[async_trait]
impl state::Cluster for Owners {
    fn me(&self) -> Option<Member> {
        self.claims.me()
    }

    fn members(&self) -> Vec<Member> {
        self.claims.members()
    }

    fn owner(&self, slot: Slot) -> Option<Member> {
        self.claims.owner(slot)
    }

    fn should_own(&self, slot: Slot) -> bool {
        self.claims.should_own(slot)
    }

    fn keepers(&self, slot: Slot, count: usize) -> Vec<Member> {
        self.claims.keepers(slot, count)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.queues.changes()
    }

    async fn claim(&self, slot: Slot) -> Result<Option<Arc<dyn Claim>>, ClusterError> {
        self.claims.claim(slot).await
    }

    async fn ask(
        &self,
        node: &NodeId,
        head: Bytes,
        data: &[u8],
        room: Room,
        timeout: Duration,
    ) -> Result<Came, ClusterError> {
        let unreached = |error| Self::unreached(error, node);
        let mut first = BytesMut::with_capacity(FIRST_BYTES_MAX.min(head.len() + data.len() + 8));
        first.put_u64_le((head.len() + data.len()) as u64);
        first.put_slice(&head);
        let fits = FIRST_BYTES_MAX.saturating_sub(first.len()).min(data.len());
        first.put_slice(&data[..fits]);
        let (first, rest) = (first.freeze(), &data[fits..]);
        let asked = async {
            let connection = self.peers.connection(node).await.map_err(unreached)?;
            let request = || {
                let request = Request::new(Service::State.method(ASK), first.clone());
                request.timeout(timeout)
            };
            let bytes = room.bytes;
            let asked = match self.exchange(connection, request(), room, rest).await {
                // The connection ended while it was asked; another one is there, or is made.
                Err(MessageError::Call(CallError::Draining)) => {
                    let again = self.peers.connection(node).await.map_err(unreached)?;
                    let room = Room { bytes, part: None };
                    self.exchange(again, request(), room, rest).await
                }
                asked => asked,
            };
            asked.map_err(|error| Self::failed(node, error))
        };
        let Some(gone) = self.neighbours.gone(node) else {
            let (node, source) = (node.clone(), MessageError::Left.into());
            return Err(ClusterError::Unreached { node, source });
        };
        match gone.run_until_cancelled(asked).await {
            Some(asked) => asked,
            None => Err(Self::failed(node, MessageError::Left)),
        }
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

/// The service that answers other nodes.
pub(super) struct Keys {
    serve: Serve,
    buffers: Arc<Buffers>,
}

impl Keys {
    pub fn new(serve: Serve) -> Self {
        let buffers = Arc::default();
        Self { serve, buffers }
    }
}

#[async_trait]
impl Handler for Keys {
    async fn handle(&self, call: Incoming) {
        if call.method != Service::State.method(ASK) {
            // Who asks may have gone: then nobody is to be told.
            let _ = call.responder.reply(NO_SERVICE, "there is no such method");
            return;
        }
        let request = match message(
            Bytes::new(),
            call.body,
            self.serve.request_bytes_max(),
            &self.buffers,
        )
        .await
        {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%error, peer = %call.peer, "a request about state is none");
                return;
            }
        };
        let answer = self.serve.answer(&call.peer, &request).await;
        drop(request);
        let mut first = BytesMut::with_capacity(LENGTH_BYTES + answer.head.len());
        first.put_u64_le((answer.head.len() + answer.data.len()) as u64);
        first.put_slice(&answer.head);
        // Whoever does not wait for the rest has ended the call, and nobody is to be told.
        let _ended = match first.len() + answer.data.len() <= FIRST_BYTES_MAX {
            true => {
                first.put_slice(&answer.data);
                call.responder.reply(Status::OK, first.freeze())
            }
            false => match call.responder.stream(Status::OK) {
                Ok(sender) => send(sender, first.freeze(), answer.data).await,
                Err(error) => Err(error),
            },
        };
    }
}

async fn send(mut sender: transport::Sender, head: Bytes, data: Bytes) -> Result<(), CallError> {
    sender.send(head).await?;
    if !data.is_empty() {
        sender.send(data).await?;
    }
    sender.finish()
}
