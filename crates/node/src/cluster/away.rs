//! Calls that functions make, on other nodes. A call that waits for a place here is offered to
//! others meanwhile; whoever has a place first runs it.
//!
//! ```text
//!  spawned ─▶ place here? ─yes─────────────────────────────────▶ run
//!               │ no: queues here ─────────────a place is free──▶ run   the offer is dropped
//!               └─ in line ─turn─▶ offer ─accepted─▶ leave the queue ─▶ send the body, run there
//!                            ▲       │ refused by all
//!                            └───────┘ a call that was sent has ended there, or some time is over
//! ```
//!
//! An offer is the head of the call without its body: a node that accepts has a place for it, and
//! begins when the body comes. So a call is never run twice, and keeps its place in the queue here
//! until it has another one.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use executor::Job;
use futures::future::{Either, select};
use gateway::NotRun;
use model::{Digest, InvocationId, NodeId, Outcome, StartKind, Status, Usage};
use parking_lot::Mutex;
use sandbox::Branch;
use tokio::sync::{Notify, Semaphore};
use transport::Sender;

use super::forward::{Failed, describe, send};
use super::neighbours::Sent;
use super::place::{Placing, REPORT_BYTES};
use super::search::There;
use super::wire::{self, Input, Loan, Piece, PieceError, Pieces, ReplyHead};

/// Calls of one version that are offered at once; the others wait in line.
const OFFERED_AT_ONCE: usize = 8;
/// How long it takes until a call is offered anew to nodes that refused, if nothing is heard.
const OFFERED_AGAIN: Duration = Duration::from_secs(1);

/// The versions whose calls wait for a place.
#[derive(Default)]
pub(super) struct Offers(Mutex<HashMap<Digest, Arc<Line>>>);

/// Calls of one version that wait for a place, in their order.
struct Line {
    turns: Semaphore,
    /// Nodes where a call of this version has just ended.
    open: Mutex<VecDeque<NodeId>>,
    news: Notify,
    /// Calls that are in line.
    waiting: AtomicU32,
}

/// A call in line.
struct InLine<'a>(&'a Line);

/// A call that runs elsewhere: its end makes room there for the next one in line.
struct Opening {
    line: Arc<Line>,
    node: NodeId,
}

impl Offers {
    fn of(&self, version: &Digest) -> Arc<Line> {
        let mut lines = self.0.lock();
        if let Some(line) = lines.get(version) {
            return line.clone();
        }
        // Those that nobody is in or counts on are made anew when they are needed.
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        let line = Arc::new(Line {
            turns: Semaphore::new(OFFERED_AT_ONCE),
            open: Mutex::default(),
            news: Notify::new(),
            waiting: AtomicU32::new(0),
        });
        lines.insert(*version, line.clone());
        line
    }
}

impl Line {
    fn join(&self) -> InLine<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        InLine(self)
    }

    fn opening(&self) -> Option<NodeId> {
        self.open.lock().pop_front()
    }

    async fn news(&self) {
        // Without any, it is time to look again.
        let _heard = tokio::time::timeout(OFFERED_AGAIN, self.news.notified()).await;
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Nobody is left to use them.
            self.0.open.lock().clear();
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.line.waiting.load(Ordering::Relaxed) > 0 {
            self.line.open.lock().push_back(self.node.clone());
            self.line.news.notify_one();
        }
    }
}

/// Calls of functions that run elsewhere: whose trees have calls to lend.
#[derive(Default)]
pub(super) struct Away(Mutex<HashMap<InvocationId, Arc<Lent>>>);

/// What a node has of the tree of a call that it runs.
struct Lent {
    node: NodeId,
    branch: Arc<Branch>,
    calls: AtomicU32,
}

struct Listed {
    away: Arc<Away>,
    id: InvocationId,
}

impl Away {
    fn list(self: &Arc<Self>, id: InvocationId, node: &NodeId, branch: Arc<Branch>) -> Listed {
        let lent = Lent {
            node: node.clone(),
            branch,
            calls: AtomicU32::new(0),
        };
        self.0.lock().insert(id, Arc::new(lent));
        Listed {
            away: self.clone(),
            id,
        }
    }

    /// Lends calls to the node that runs a call of this one's, or takes them back.
    pub async fn lend(&self, peer: &NodeId, loan: &Loan) -> u32 {
        let lent = self.0.lock().get(&loan.id).cloned();
        let Some(lent) = lent.filter(|lent| lent.node == *peer) else {
            return 0;
        };
        let less = |calls: u32| calls.checked_sub(loan.unused.min(calls));
        let had = lent
            .calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        lent.branch.give_back(loan.unused.min(had.unwrap_or(0)));
        if loan.calls == 0 {
            return 0;
        }
        let calls = lent.branch.lend(loan.calls).await;
        lent.calls.fetch_add(calls, Ordering::Relaxed);
        calls
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.away.0.lock().remove(&self.id);
    }
}

/// A call that another node has accepted. It begins there when it is run, and is cancelled when
/// this is dropped.
pub(crate) struct Accepted {
    pub node: NodeId,
    sender: Sender,
    pieces: Pieces<transport::Body>,
    sent: Arc<Sent>,
    bytes_max: u64,
    _opening: Opening,
    _listed: Option<Listed>,
}

/// What came of a call that ran elsewhere.
pub(crate) struct Replied {
    pub outcome: Outcome,
    /// Of an http component that answered.
    pub status: Option<u16>,
    pub reply: Bytes,
}

impl Placing {
    /// Offers the call to the node that has its data, if that is another one.
    pub async fn offer_to_data(&self, job: &Job, input: &Input, bytes: u64) -> Option<Accepted> {
        let mut search = self.search(job, bytes, false);
        let there = search.to_data()?;
        let mut head = search.head(input.to_send());
        let offered = search.way(&there).offer(&mut head).await;
        let (node, sent) = (there.node.clone(), there.sent.clone());
        let taken = search.sent(there, offered, true).ok().flatten()?;
        let line = self.offers.of(&job.version);
        Some(self.accepted(job, line, (node, sent), taken.reply))
    }

    /// Offers the call to other nodes that have room, to a few of them.
    pub async fn offer_once(&self, job: &Job, input: &Input, bytes: u64) -> Option<Accepted> {
        let line = self.offers.of(&job.version);
        self.offer_round(job, input, bytes, &line).await
    }

    /// Whether another node seems to have room.
    pub fn has_room_elsewhere(&self, job: &Job, bytes: u64) -> bool {
        let mut search = self.search(job, bytes, false);
        search.leave_here();
        search.to_room().is_some()
    }

    /// Offers the call to other nodes until one accepts.
    pub async fn offer(&self, job: &Job, input: &Input, bytes: u64) -> Accepted {
        let line = self.offers.of(&job.version);
        let _in_line = line.join();
        // The line is never closed.
        let _turn = line.turns.acquire().await;
        loop {
            if let Some(accepted) = self.offer_round(job, input, bytes, &line).await {
                return accepted;
            }
            line.news().await;
        }
    }

    async fn offer_round(
        &self,
        job: &Job,
        input: &Input,
        bytes: u64,
        line: &Arc<Line>,
    ) -> Option<Accepted> {
        let mut search = self.search(job, bytes, false);
        search.leave_here();
        let mut head = search.head(input.to_send());
        loop {
            let open = line.opening().and_then(|node| search.to(&node));
            let there: There = open.or_else(|| search.to_room())?;
            let offered = search.way(&there).offer(&mut head).await;
            let (node, sent) = (there.node.clone(), there.sent.clone());
            // What is lost with its node has not begun, as it had no body yet.
            let offered = offered.map_err(|failed| match failed {
                Failed::Lost(why) => Failed::NotBegun(why),
                other => other,
            });
            if let Some(taken) = search.sent(there, offered, true).ok()? {
                return Some(self.accepted(job, line.clone(), (node, sent), taken.reply));
            }
        }
    }

    fn accepted(
        &self,
        job: &Job,
        line: Arc<Line>,
        (node, sent): (NodeId, Arc<Sent>),
        (sender, pieces): (Sender, Pieces<transport::Body>),
    ) -> Accepted {
        let branch = job.branch.clone();
        let listed = branch.map(|branch| self.away.list(job.id, &node, branch));
        Accepted {
            sender,
            pieces,
            sent,
            bytes_max: job.spec.settings.limits.output_bytes_max + REPORT_BYTES,
            _opening: Opening {
                line,
                node: node.clone(),
            },
            _listed: listed,
            node,
        }
    }
}

impl Accepted {
    /// Runs it there to its end.
    pub async fn run(self, body: Bytes) -> Result<Replied, NotRun> {
        let Self {
            node,
            sender,
            mut pieces,
            sent,
            bytes_max,
            _opening,
            _listed,
        } = self;
        let replied = async {
            let sending = pin!(send(sender, body));
            let reading = pin!(replied(&mut pieces, &sent, bytes_max));
            match select(sending, reading).await {
                // A node that wants no more of the body says why in its reply.
                Either::Left((_cut, reading)) => reading.await,
                Either::Right((replied, _)) => replied,
            }
        };
        let lost = |why: String| NotRun::Lost { node, why };
        match sent.gone.run_until_cancelled(replied).await {
            Some(replied) => replied.map_err(|error| lost(describe(&error))),
            None => Err(lost("it left the cluster".to_owned())),
        }
    }
}

/// All of a reply. One that breaks off there, or is too long, has an outcome that says so; an
/// error is that of the node, or of the way to it.
async fn replied(
    pieces: &mut Pieces<transport::Body>,
    sent: &Sent,
    bytes_max: u64,
) -> Result<Replied, PieceError> {
    let mut start = StartKind::Cold;
    let status = match read(pieces, sent, bytes_max, &mut start).await {
        Err(PieceError::Broken(message)) => Status::NoResponse { message },
        Err(PieceError::TooLarge(_)) => Status::OutputLimit,
        replied => return replied,
    };
    Ok(Replied {
        outcome: Outcome {
            status,
            start,
            usage: Usage::default(),
        },
        status: None,
        reply: Bytes::new(),
    })
}

async fn read(
    pieces: &mut Pieces<transport::Body>,
    sent: &Sent,
    bytes_max: u64,
    start: &mut StartKind,
) -> Result<Replied, PieceError> {
    let head = ReplyHead::read(pieces.head().await?)?;
    sent.hear(head.brief);
    *start = head.start;
    let (reply, mut piece) = pieces.whole(bytes_max).await?;
    loop {
        match piece {
            Piece::Done(bytes) => {
                return Ok(Replied {
                    outcome: wire::read_outcome(bytes)?,
                    status: head.response.map(|(status, _)| status),
                    reply,
                });
            }
            Piece::Trailers(_) | Piece::End => {
                piece = pieces.next().await?.ok_or(PieceError::Short)?;
            }
            Piece::Broken(why) => return Err(PieceError::Broken(why)),
            Piece::Head(_) | Piece::Data(_) => return Err(PieceError::Unexpected),
        }
    }
}
