//! Asking another node for a blob, and reading its answer.
//!
//! ```text
//!  request:  space (1) │ digest (32)        the method says whether it may ask the bucket for it
//!  reply:    OK: length (8) │ bytes         MISSING: nothing
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes, BytesMut};
use membership::Membership;
use model::{Digest, NodeId};
use sandbox::{BodyError, Cache, Staged};
use scheduler::Standing;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use transport::{Body, CallError, PeerError, Peers, Request, Status};

use super::super::neighbours::Neighbours;
use super::super::router::Service;
use super::sink::{Memory, Sink, Stage};
use super::{CarryConfig, Name, Space, Span, part};

/// The answer of a node that does not have the blob.
pub(super) const MISSING: Status = Status(1);
/// The answer of a node that could not find out.
pub(super) const FAILED: Status = Status(2);
/// Bytes of a request.
const REQUEST_BYTES: usize = 1 + size_of::<Digest>();
/// Bytes of the length before a blob.
pub(super) const LENGTH_BYTES: usize = size_of::<u64>();

/// What is asked for. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::cluster) enum Ask {
    /// What the node has.
    Held = 0,
    /// What it has, or can have from the bucket.
    Bring = 1,
}

impl Ask {
    pub const fn method(self) -> u16 {
        Service::Blob.method(self as u8)
    }
}

impl Name {
    fn to_bytes(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(REQUEST_BYTES);
        bytes.extend_from_slice(&[self.space as u8]);
        bytes.extend_from_slice(self.digest.as_bytes());
        bytes.freeze()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (space, digest) = bytes.split_first()?;
        let space = [Space::Artifacts, Space::Images]
            .into_iter()
            .find(|known| *known as u8 == *space)?;
        let digest = Digest::from_bytes(digest.try_into().ok()?);
        Some(Self { space, digest })
    }
}

/// Why a node did not give a blob.
#[derive(Debug, thiserror::Error)]
pub(in crate::cluster) enum AskError {
    /// It is not, or no longer, a member.
    #[error("it left the cluster")]
    Left,
    /// It cannot be reached.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The call ended before its reply.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It took too long over a part of its answer.
    #[error("it was too slow with {0}")]
    Slow(&'static str),
    /// It could not find out, or does not know the question.
    #[error("it answered {0}")]
    Status(u16),
    /// It sent a blob of a length that is not accepted.
    #[error("its blob of {bytes} bytes is longer than {max}")]
    TooLong {
        /// The length.
        bytes: u64,
        /// The most that is accepted.
        max: u64,
    },
    /// It sent more or less than it said.
    #[error("it sent {sent} of {said} bytes")]
    Length {
        /// Bytes that came.
        sent: u64,
        /// Bytes that were announced.
        said: u64,
    },
    /// What it sent could not be written.
    #[error("what it sent cannot be kept")]
    Kept(#[source] BodyError),
    /// It sent other bytes than those of the name.
    #[error("it sent other bytes, with the digest {0}")]
    Damaged(Digest),
}

impl AskError {
    /// In a word, for metrics.
    pub const fn why(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Peer(_) => "unreached",
            Self::Call(_) => "cut",
            Self::Slow(_) => "slow",
            Self::Status(_) => "refused",
            Self::Kept(_) => "kept",
            Self::TooLong { .. } | Self::Length { .. } | Self::Damaged(_) => "damaged",
        }
    }
}

/// The other nodes, as a carrier needs them.
#[async_trait]
pub(in crate::cluster) trait Others: Send + Sync {
    /// This node.
    fn here(&self) -> NodeId;

    /// The nodes that are there and stay, this one among them.
    fn nodes(&self) -> Vec<NodeId>;

    /// Asks a node for a blob: its bytes, which are those of the name; none if it has it not.
    async fn ask(&self, node: &NodeId, ask: Ask, name: Name) -> Result<Option<Bytes>, AskError>;

    /// Asks a node for a blob that it has, and writes it in a cache while it comes.
    async fn stage(
        &self,
        node: &NodeId,
        name: Name,
        cache: &Arc<Cache>,
    ) -> Result<Option<Staged>, AskError>;

    /// Asks a node for a part of an image, which is to be compared; none if it has it not.
    async fn part(&self, node: &NodeId, span: &Span) -> Result<Option<Bytes>, AskError>;
}

/// The others over the network.
pub(in crate::cluster) struct Net {
    membership: Membership,
    neighbours: Arc<Neighbours>,
    peers: Peers,
    config: CarryConfig,
    receiving: Semaphore,
}

impl Net {
    pub fn new(
        membership: Membership,
        neighbours: Arc<Neighbours>,
        peers: Peers,
        config: CarryConfig,
    ) -> Self {
        Self {
            membership,
            neighbours,
            peers,
            config,
            receiving: Semaphore::new(config.receiving_max),
        }
    }
}

#[async_trait]
impl Others for Net {
    fn here(&self) -> NodeId {
        self.membership.id().clone()
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.membership.look(|roster| {
            let names = roster.peers().keys();
            let stays = names.filter(|node| roster.standing(node) < Standing::Draining);
            stays.cloned().collect()
        })
    }

    async fn ask(&self, node: &NodeId, ask: Ask, name: Name) -> Result<Option<Bytes>, AskError> {
        let gone = self.neighbours.gone(node).ok_or(AskError::Left)?;
        let terms = (&self.config, &self.receiving);
        let asked = exchange(&self.peers, node, ask, name, terms, Memory::default());
        let asked = gone.run_until_cancelled(asked).await;
        asked.unwrap_or(Err(AskError::Left))
    }

    async fn stage(
        &self,
        node: &NodeId,
        name: Name,
        cache: &Arc<Cache>,
    ) -> Result<Option<Staged>, AskError> {
        let gone = self.neighbours.gone(node).ok_or(AskError::Left)?;
        let terms = (&self.config, &self.receiving);
        let sink = Stage::new(cache.clone());
        let asked = exchange(&self.peers, node, Ask::Held, name, terms, sink);
        let asked = gone.run_until_cancelled(asked).await;
        asked.unwrap_or(Err(AskError::Left))
    }

    async fn part(&self, node: &NodeId, span: &Span) -> Result<Option<Bytes>, AskError> {
        let gone = self.neighbours.gone(node).ok_or(AskError::Left)?;
        let asked = part::ask(&self.peers, node, span, &self.config);
        let asked = gone.run_until_cancelled(asked).await;
        asked.unwrap_or(Err(AskError::Left))
    }
}

/// Asks, and reads the answer.
pub(super) async fn exchange<S: Sink>(
    peers: &Peers,
    node: &NodeId,
    ask: Ask,
    name: Name,
    (config, receiving): (&CarryConfig, &Semaphore),
    sink: S,
) -> Result<Option<S::Kept>, AskError> {
    let request = || {
        let request = Request::new(ask.method(), name.to_bytes());
        request.bulk().timeout(config.fetch_max)
    };
    let replied = async {
        let connection = peers.connection(node).await?;
        let answer = match connection.ask(request()).await {
            // The connection was ending; another one is there, or is made.
            Err(CallError::Draining) => peers.connection(node).await?.ask(request()).await?,
            asked => asked?,
        };
        Ok::<_, AskError>(answer.reply().await?)
    };
    let reply = timeout(config.first_byte_max, replied).await;
    let reply = reply.map_err(|_| AskError::Slow("its answer"))??;
    match reply.status {
        Status::OK => {
            // It is never closed.
            let _place = receiving.acquire().await;
            let received = receive(reply.body, &name.digest, config, sink).await;
            received.map(Some)
        }
        MISSING => Ok(None),
        Status(other) => Err(AskError::Status(other)),
    }
}

/// The next bytes, within their time.
async fn piece(body: &mut Body, config: &CarryConfig) -> Result<Option<Bytes>, AskError> {
    let chunk = timeout(config.pause_max, body.chunk()).await;
    Ok(chunk.map_err(|_| AskError::Slow("a piece"))??)
}

/// Reads a blob, and compares it with its name while it comes.
async fn receive<S: Sink>(
    mut body: Body,
    digest: &Digest,
    config: &CarryConfig,
    mut sink: S,
) -> Result<S::Kept, AskError> {
    let mut first = BytesMut::new();
    while first.len() < LENGTH_BYTES {
        let Some(chunk) = piece(&mut body, config).await? else {
            let sent = first.len() as u64;
            return Err(AskError::Length {
                sent,
                said: LENGTH_BYTES as u64,
            });
        };
        first.extend_from_slice(&chunk);
    }
    let said = first.get_u64_le();
    let max = config.blob_bytes_max;
    if said > max {
        return Err(AskError::TooLong { bytes: said, max });
    }
    sink.expect(said);
    let mut sent = 0;
    let mut chunk = Some(first.freeze());
    while let Some(bytes) = chunk {
        sent += bytes.len() as u64;
        if sent > said {
            return Err(AskError::Length { sent, said });
        }
        sink.take(bytes).await?;
        chunk = piece(&mut body, config).await?;
    }
    if sent < said {
        return Err(AskError::Length { sent, said });
    }
    let (kept, found) = sink.end().await?;
    match found == *digest {
        true => Ok(kept),
        false => Err(AskError::Damaged(found)),
    }
}
