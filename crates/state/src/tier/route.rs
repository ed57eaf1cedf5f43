//! Finding who owns a key, and asking it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use memory::{Out, Part};
use metrics::counter;
use model::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::bell::Ear;
use super::reply::Reply;
use super::wire::{Request, What};
use super::{ClusterError, Done, Holding, Member, Op, Phase, Room, Slot, Tier};
use crate::metrics::ASKED_TOTAL;
use crate::{AppState, Config, GlobalError, Info, Key, Open, StateError};

/// How long to wait before asking anew, when nothing is heard of another owner.
const PAUSE: Duration = Duration::from_millis(100);
/// A network that is slower than this is too slow for long values.
const BYTES_PER_MS_MIN: usize = 4 << 10;
/// Bytes of a long value that are asked for at a time.
pub(super) const ASKED_BYTES: usize = 1 << 20;
/// Requests for parts of a long value that are under way at a time: some are on their way while
/// the owner copies the next.
pub(super) const AHEAD: usize = 4;
/// The least bytes that go straight to where they are to be.
const LENT_BYTES_MIN: usize = 64 << 10;
/// How often a value is read anew that changes while it is read.
const READ_TRIES_MAX: usize = 16;

/// Owners of locks that other nodes keep, and releases that are owed to these.
#[derive(Debug, Default)]
pub(crate) struct Abroad {
    locks: Mutex<HashMap<u128, Vec<NodeId>>>,
    owed: Mutex<Vec<(NodeId, u128)>>,
    owes: Notify,
}

/// What one try came to.
enum Tried {
    Done(Result<Done, StateError>),
    /// Nothing was done.
    Not(Option<ClusterError>),
}

impl AppState {
    /// Does it, wherever the key is. On a node without others, at once.
    pub async fn run(&self, key: &Key, op: &Op<'_>) -> Result<Done, StateError> {
        self.run_into(key, op, None).await
    }

    /// The same. Bytes that another node gives may go to `part`.
    async fn run_into(
        &self,
        key: &Key,
        op: &Op<'_>,
        part: Option<Part>,
    ) -> Result<Done, StateError> {
        match &self.0.core.node.tier {
            None => self.run_here(key, None, op).await,
            Some(tier) => tier.route(self, key, op, part).await,
        }
    }

    /// The node that owns the key, as far as is known here; none on a node without others.
    pub fn owner(&self, key: &Key) -> Option<NodeId> {
        let tier = self.0.core.node.tier.as_ref()?;
        let owner = tier.cluster.owner(Slot::of(&self.name_of(key)));
        owner.map(|owner| owner.node)
    }

    /// What is known of a value, wherever it is.
    pub async fn info(&self, key: &Key) -> Result<Info, StateError> {
        match self.run(key, &Op::Info).await? {
            Done::Info(info) => Ok(info),
            other => Err(odd(&other)),
        }
    }

    /// Copies what there is from `offset` on into `out`, of `version` if it is not 0; what the
    /// value is, and how many bytes that were.
    pub async fn read(
        &self,
        key: &Key,
        offset: u64,
        out: &mut Out<'_>,
        version: u64,
    ) -> Result<(Info, usize), StateError> {
        if self.0.core.node.tier.is_none() && version == 0 {
            let value = self.value_of(key, Open::default(), None).await?;
            let count = value.read(offset, out.bytes()).await?;
            return Ok((value.info().ok_or(StateError::NotFound)?, count));
        }
        self.pieces(key, offset, out, Whole::Pieces(version)).await
    }

    /// Brings pieces into `out`, several of which are under way at a time, the first ones before it
    /// is known how many there are; what the value is, and how many bytes that were.
    async fn pieces(
        &self,
        key: &Key,
        offset: u64,
        out: &mut Out<'_>,
        whole: Whole,
    ) -> Result<(Info, usize), StateError> {
        let (mut asked, mut filled, mut seen) = (0, 0, None::<Info>);
        let mut ahead = FuturesOrdered::new();
        loop {
            let end = seen.map_or(out.len(), |info| {
                let left = info.size.saturating_sub(offset);
                usize::try_from(left).unwrap_or(usize::MAX).min(out.len())
            });
            while ahead.len() < AHEAD && (asked < end || asked == 0 && seen.is_none()) {
                let length = (end - asked).min(ASKED_BYTES);
                let at = offset.saturating_add(asked as u64);
                let version = whole.version(seen);
                let part = match length >= LENT_BYTES_MIN {
                    true => out.lend(asked..asked + length),
                    false => None,
                };
                ahead.push_back(async move {
                    let piece = self.piece_into(key, at, length, version, part).await;
                    piece.map(|(info, piece)| (info, piece, length))
                });
                asked += length;
                if length == 0 {
                    break;
                }
            }
            let next = ahead.next().await.transpose()?;
            let (info, piece, length) = match (next, seen) {
                (Some(piece), _) => piece,
                (None, Some(info)) => return Ok((info, filled)),
                (None, None) => return Err(StateError::NotFound),
            };
            whole.check(seen, &info)?;
            let count = match piece {
                Piece::Landed(count) => count,
                Piece::Bytes(bytes) => {
                    out.write(filled, &bytes);
                    bytes.len().min(length)
                }
            };
            filled += count;
            if count < length {
                // The value ends here; what was asked for behind that is nothing.
                return Ok((info, filled));
            }
            seen = Some(info);
        }
    }

    /// Bytes as of one moment, at most [`super::PIECE_BYTES`], of `version` if it is not 0; and
    /// what the value is.
    pub async fn piece(
        &self,
        key: &Key,
        offset: u64,
        length: usize,
        version: u64,
    ) -> Result<(Info, Bytes), StateError> {
        match self.piece_into(key, offset, length, version, None).await? {
            (info, Piece::Bytes(bytes)) => Ok((info, bytes)),
            (info, Piece::Landed(_)) => Err(odd(&Done::Info(info))),
        }
    }

    /// The same. The bytes may go to `part`.
    async fn piece_into(
        &self,
        key: &Key,
        offset: u64,
        length: usize,
        version: u64,
        part: Option<Part>,
    ) -> Result<(Info, Piece), StateError> {
        let op = Op::Read {
            offset,
            length: length as u64,
            version,
        };
        match self.run_into(key, &op, part).await? {
            Done::Bytes(info, bytes) => Ok((info, Piece::Bytes(bytes))),
            Done::Landed(info, count) => Ok((info, Piece::Landed(count))),
            other => Err(odd(&other)),
        }
    }

    /// Brings the value's first bytes into `out`, all of one version, and says what it is.
    pub async fn get(&self, key: &Key, out: &mut Out<'_>) -> Result<Info, StateError> {
        if self.0.core.node.tier.is_none() {
            let value = self.value_of(key, Open::default(), None).await?;
            return value.get_into(out.bytes()).await;
        }
        for _ in 0..READ_TRIES_MAX {
            match self.pieces(key, 0, out, Whole::Value).await {
                Ok((info, _)) => return Ok(info),
                Err(StateError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(GlobalError::Busy.into())
    }
}

/// Bytes of a value: where they were to go, or as they came.
enum Piece {
    Landed(usize),
    Bytes(Bytes),
}

/// What pieces of a value have to do with each other.
#[derive(Clone, Copy)]
enum Whole {
    /// Each is of this version, or of any if it is 0.
    Pieces(u64),
    /// All are of the same one.
    Value,
}

impl Whole {
    /// The version to ask for, of the next piece after one was seen or not.
    fn version(self, seen: Option<Info>) -> u64 {
        match self {
            Self::Pieces(version) => version,
            Self::Value => seen.map_or(0, |info| info.version),
        }
    }

    /// Refuses a piece that does not go with the last one.
    fn check(self, seen: Option<Info>, info: &Info) -> Result<(), StateError> {
        match (self, seen) {
            (Self::Value, Some(seen)) if seen.version != info.version => {
                let version = info.version;
                Err(StateError::Conflict { version })
            }
            _ => Ok(()),
        }
    }
}

/// An answer to something else than was asked, which only a faulty node gives.
pub(super) fn odd(done: &Done) -> StateError {
    let kind = match done {
        Done::Nothing => "nothing",
        Done::Info(_) => "a value",
        Done::Bytes(..) | Done::Landed(..) => "bytes",
        Done::Number(..) => "a number",
        Done::Was(_) => "whether",
        Done::Made(..) => "a value that was made",
        Done::Heads(..) => "values",
        Done::Chunks(..) => "chunks",
        Done::Listed(..) => "keys",
        Done::Watched(..) => "changes",
    };
    StateError::Refused(format!("it answered with {kind}, which was not asked"))
}

impl Tier {
    async fn route(
        &self,
        app: &AppState,
        key: &Key,
        op: &Op<'_>,
        mut part: Option<Part>,
    ) -> Result<Done, StateError> {
        let name = app.name_of(key);
        let slot = Slot::of(&name);
        let config = &app.0.core.node.config;
        let until = Instant::now() + config.owner_wait_max;
        let (mut changes, mut last) = (self.slots.changes(), None);
        loop {
            let tried = match self.slots.open(slot) {
                Some(holding) => match app.run_here(key, Some(&holding), op).await {
                    Err(StateError::Elsewhere) => Tried::Not(None),
                    Err(StateError::Global(GlobalError::Fenced)) => {
                        self.fenced(&holding);
                        Tried::Not(None)
                    }
                    done => Tried::Done(done),
                },
                None => self.try_there(slot, (app, key, op), part.take()).await,
            };
            match tried {
                Tried::Done(done) => return done,
                Tried::Not(why) => last = why.or(last),
            }
            if Instant::now() >= until {
                return Err(StateError::Unreached(last));
            }
            await_change(&mut changes, until).await;
        }
    }

    /// The store does not take what this node writes as a slot's owner: whatever clocks say, that
    /// is another one. What was changed in memory only was not acknowledged, and is done nowhere.
    pub(super) fn fenced(&self, holding: &Holding) {
        holding.enter(Phase::Closed);
        self.slots.tell();
    }

    async fn try_there(
        &self,
        slot: Slot,
        (app, key, op): (&AppState, &Key, &Op<'_>),
        part: Option<Part>,
    ) -> Tried {
        let (Some(me), Some(owner)) = (self.cluster.me(), self.cluster.owner(slot)) else {
            return Tried::Not(None);
        };
        if owner.node == me.node {
            return Tried::Not(None);
        }
        if let Op::Lock { owner: locker, .. } = op {
            self.abroad.note(*locker, &owner.node);
        }
        let what = What::Key {
            claim: owner.token,
            name: app.name_of(key),
            op: op.clone(),
        };
        let from = me.token;
        let timeout = app.0.core.node.config.ask_timeout + op.waits();
        let request = Request { from, what };
        match self.ask_into(&owner, &request, part, timeout).await {
            Ok(Reply::Done(done)) => Tried::Done(Ok(done)),
            Ok(Reply::Refused(error)) => Tried::Done(Err(error)),
            Ok(Reply::Malformed(why)) => Tried::Done(Err(StateError::Refused(why))),
            Ok(Reply::Elsewhere | Reply::Unknown | Reply::Busy) => Tried::Not(None),
            Err(error @ ClusterError::Unanswered { .. }) if !is_repeatable(op) => {
                Tried::Done(Err(StateError::Unanswered(error)))
            }
            Err(error) => Tried::Not(Some(error)),
        }
    }

    /// Asks a node. What is no answer counts as none. A long request has more time.
    pub async fn ask(
        &self,
        member: &Member,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Reply, ClusterError> {
        self.ask_into(member, request, None, timeout).await
    }

    /// The same. Bytes of a value may go to `part`.
    async fn ask_into(
        &self,
        member: &Member,
        request: &Request<'_>,
        part: Option<Part>,
        timeout: Duration,
    ) -> Result<Reply, ClusterError> {
        let (head, data) = request.parts();
        let timeout =
            timeout + Duration::from_millis(((head.len() + data.len()) / BYTES_PER_MS_MIN) as u64);
        let bytes = request.reply_bytes();
        let room = Room { bytes, part };
        let asked = self.cluster.ask(&member.node, head, data, room, timeout);
        let asked = asked.await;
        let label = if asked.is_ok() { "answered" } else { "failed" };
        counter!(ASKED_TOTAL, "outcome" => label).increment(1);
        Reply::of(asked?).map_err(|source| ClusterError::Unanswered {
            node: member.node.clone(),
            source: source.into(),
        })
    }

    /// Has other nodes free the locks that they keep for an owner.
    pub fn release_there(&self, owner: u128) {
        self.abroad.owe(owner);
    }

    /// Has locks freed that other nodes keep, as it is owed; never ends.
    pub(super) async fn release_owed(self: Arc<Self>, config: Config) {
        let mut sent = JoinSet::new();
        loop {
            for (node, owner) in self.abroad.take().await {
                if sent.len() >= config.asks_max {
                    // A task that panicked has said so already.
                    let _ended = sent.join_next().await;
                }
                let (tier, config) = (self.clone(), config.clone());
                sent.spawn(async move { tier.release_one(node, owner, &config).await });
            }
            while sent.try_join_next().is_some() {}
        }
    }

    /// Asks until it is answered, or of no use any more.
    async fn release_one(&self, node: NodeId, owner: u128, config: &Config) {
        let until = Instant::now() + config.lock_hold_max;
        let mut changes = self.slots.changes();
        while Instant::now() < until {
            let Some(me) = self.cluster.me() else {
                // Who is no member holds no locks.
                return;
            };
            let members = self.cluster.members();
            let Some(member) = members.into_iter().find(|one| one.node == node) else {
                return;
            };
            let request = Request {
                from: me.token,
                what: What::Release { owner },
            };
            let asked = self.ask(&member, &request, config.ask_timeout);
            if let Ok(Reply::Done(_)) = asked.await {
                return;
            }
            await_change(&mut changes, until).await;
        }
    }
}

/// Until something is heard, or for long enough to ask anew.
async fn await_change(changes: &mut Ear<'_>, until: Instant) {
    let pause = until.min(Instant::now() + PAUSE);
    // Either is reason enough to look.
    let _heard = timeout_at(pause, changes.hear()).await;
}

/// Whether to do it twice is as good as once. An owner has its lock once, however often it asks.
fn is_repeatable(op: &Op<'_>) -> bool {
    matches!(
        op,
        Op::Info | Op::Read { .. } | Op::Compare { .. } | Op::Lock { .. }
    )
}

impl Abroad {
    fn note(&self, owner: u128, node: &NodeId) {
        let mut locks = self.locks.lock();
        let nodes = locks.entry(owner).or_default();
        if !nodes.contains(node) {
            nodes.push(node.clone());
        }
    }

    fn owe(&self, owner: u128) {
        if let Some(nodes) = self.locks.lock().remove(&owner) {
            let owed = nodes.into_iter().map(|node| (node, owner));
            self.owed.lock().extend(owed);
            self.owes.notify_one();
        }
    }

    /// What is owed; waits for something.
    async fn take(&self) -> Vec<(NodeId, u128)> {
        loop {
            let owed = std::mem::take(&mut *self.owed.lock());
            if !owed.is_empty() {
                return owed;
            }
            self.owes.notified().await;
        }
    }
}
