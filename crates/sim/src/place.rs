//! Where a call runs: here while there is a place, else on the node that the scheduler chooses,
//! else in the queue here, else in one elsewhere; and the places that it runs in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use invoker::{Attempt, Ran, Reply, Runner};
use membership::Roster;
use model::{InvocationId, NodeId, Outcome, StartKind, Status, Usage};
use parking_lot::Mutex;
use scheduler::{Brief, Demand, Load, Placement, Policy, Resources, Tag, Via, Weights, decide};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::host::{Host, index_of};
use crate::neighbours::Sent;
use crate::weather::Way;

/// Bytes of memory of one place.
pub(crate) const PLACE_BYTES: u64 = 64 << 20;
/// Calls that may wait at one node.
const WAITING_MAX: u32 = 64;
/// Nodes that a call is sent to before it stays where it came in.
const SENT_MAX: usize = 3;
/// After which a call that was sent on counts as lost.
const PATIENCE: Duration = Duration::from_secs(4);
/// The longest that a connection takes to fail.
const CONNECT: Duration = Duration::from_millis(300);
/// Time that a sandbox takes to start, where none is warm.
const START: Duration = Duration::from_millis(20);

/// A call that is to run somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub id: InvocationId,
    pub number: u32,
    pub version: Tag,
    /// What the function does: see [`Job::status`].
    pub kind: u8,
    /// How long it runs in a warm sandbox.
    pub takes: Duration,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub status: Status,
    pub body: Bytes,
}

/// Why a call that was sent on did not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It did not begin, for certain.
    NotTaken,
    /// Nobody knows.
    Lost,
}

impl Job {
    pub fn status(&self) -> Status {
        let fails = match self.kind % 16 {
            0 => true,
            1 | 2 => self.number == 1,
            _ => false,
        };
        if fails {
            Status::Exit { code: 1 }
        } else {
            Status::Ok
        }
    }

    fn needs() -> Resources {
        Resources {
            places: 1,
            memory_bytes: PLACE_BYTES,
        }
    }
}

/// What a node runs calls in.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    count: u32,
    waiting: AtomicU32,
    /// The versions of idle sandboxes, the oldest first.
    warm: Mutex<VecDeque<Tag>>,
    /// All the time that calls ran here, in microseconds, and how many did.
    busy: Mutex<(u64, u64)>,
}

impl Places {
    pub fn new(count: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count as usize)),
            count,
            waiting: AtomicU32::new(0),
            warm: Mutex::default(),
            busy: Mutex::default(),
        }
    }

    pub fn load(&self) -> Load {
        let Brief { used, waiting } = self.brief();
        let of = |places: u32| Resources {
            places,
            memory_bytes: u64::from(places) * PLACE_BYTES,
        };
        let mut images: Vec<Tag> = self.warm.lock().iter().copied().collect();
        images.sort_unstable();
        let mut warm: Vec<(Tag, u32)> = Vec::new();
        for tag in &images {
            match warm.last_mut() {
                Some((last, count)) if last == tag => *count += 1,
                _ => warm.push((*tag, 1)),
            }
        }
        images.dedup();
        Load {
            capacity: of(self.count),
            used: of(used),
            waiting,
            waiting_max: WAITING_MAX,
            warm,
            images,
        }
    }

    pub fn brief(&self) -> Brief {
        Brief {
            // Not more than there are places, which are counted in 32 bits.
            used: self.count - self.free.available_permits() as u32,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Microseconds for which calls ran here, and how many did.
    pub fn busy(&self) -> (u64, u64) {
        *self.busy.lock()
    }

    fn at_once(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// A place, when there is one; none where too many wait.
    async fn in_turn(&self) -> Option<OwnedSemaphorePermit> {
        let more = |count: u32| (count < WAITING_MAX).then_some(count + 1);
        let entered = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.ok()?;
        let _turn = Turn(&self.waiting);
        self.free.clone().acquire_owned().await.ok()
    }

    /// Takes an idle sandbox of a version, if there is one.
    fn take_warm(&self, version: Tag) -> bool {
        let mut warm = self.warm.lock();
        let at = warm.iter().position(|tag| *tag == version);
        at.and_then(|at| warm.remove(at)).is_some()
    }

    fn leave_warm(&self, version: Tag) {
        let mut warm = self.warm.lock();
        warm.push_back(version);
        // As many sandboxes as there are places.
        while warm.len() > self.count as usize {
            warm.pop_front();
        }
    }
}

/// Counts one that waits, until it does not.
struct Turn<'a>(&'a AtomicU32);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a call could do next.
enum Next {
    There {
        node: NodeId,
        sent: Sent,
        may_wait: bool,
    },
    Here,
    Nowhere,
}

impl Host {
    /// Runs a call, here or elsewhere; none where no node takes it.
    pub async fn call(self: &Arc<Self>, job: &Job) -> Result<Option<Done>, Failed> {
        let at_once = self.is_open().then(|| self.places.at_once()).flatten();
        if let Some(place) = at_once {
            return Ok(Some(self.run(job, place).await));
        }
        let mut avoid = vec![self.membership.id().clone()];
        let (mut was_lost, mut is_full) = (false, false);
        loop {
            match self.next(job, &avoid, is_full) {
                Next::There {
                    node,
                    sent,
                    may_wait,
                } => {
                    match self.send(job, &node, sent, may_wait).await {
                        Ok(done) => return Ok(Some(done)),
                        Err(failed) => was_lost |= failed == Failed::Lost,
                    }
                    avoid.push(node);
                }
                Next::Here => match self.places.in_turn().await {
                    Some(place) => return Ok(Some(self.run(job, place).await)),
                    None => {
                        is_full = true;
                        // Who had no place may have room in its queue.
                        avoid.truncate(1);
                    }
                },
                Next::Nowhere if was_lost => return Err(Failed::Lost),
                Next::Nowhere => return Ok(None),
            }
        }
    }

    /// The next node to try, where the queue here is full or not.
    fn next(&self, job: &Job, avoid: &[NodeId], is_full: bool) -> Next {
        let tries_left = avoid.len() <= SENT_MAX;
        let there =
            |fits: fn(Via) -> bool| tries_left.then(|| self.there(job, avoid, fits)).flatten();
        if is_full {
            return match there(|_| true) {
                Some(Next::There { node, sent, .. }) => Next::There {
                    node,
                    sent,
                    may_wait: true,
                },
                _ => Next::Nowhere,
            };
        }
        if let Some(next) = there(|via| via != Via::Queue) {
            return next;
        }
        if self.is_open() {
            return Next::Here;
        }
        there(|_| true).unwrap_or(Next::Nowhere)
    }

    fn there(&self, job: &Job, avoid: &[NodeId], fits: fn(Via) -> bool) -> Option<Next> {
        let demand = Demand {
            here: self.membership.id().clone(),
            version: job.version,
            image_bytes: 0,
            needs: Job::needs(),
            input_bytes: 100,
            data: Vec::new(),
            run_us: 20_000,
            avoid: avoid.to_vec(),
            policy: Policy::Locality,
            seed: scheduler::habit(self.membership.id(), job.version),
        };
        let choose = |roster: &Roster| {
            (roster.view().len() > 1).then(|| decide(roster.view(), &demand, &Weights::default()))
        };
        let began = std::time::Instant::now();
        let decision = self.membership.look(choose)?;
        self.world.witness.lock().decided(began.elapsed());
        let Ok(Placement { node, via, .. }) = decision.outcome else {
            return None;
        };
        if !fits(via) {
            return None;
        }
        Some(Next::There {
            sent: self.neighbours.send(&node, demand.needs)?,
            node,
            may_wait: via == Via::Queue,
        })
    }

    /// Runs a call in a place of this node.
    async fn run(&self, job: &Job, place: OwnedSemaphorePermit) -> Done {
        let began = self.world.post.now();
        let start = match self.places.take_warm(job.version) {
            true => Duration::ZERO,
            false => START,
        };
        let slowness = self.world.weather.slowness(began, self.node);
        tokio::time::sleep((start + job.takes) * slowness).await;
        self.places.leave_warm(job.version);
        let took = self.world.post.now() - began;
        let mut busy = self.places.busy.lock();
        // A simulation lasts minutes.
        *busy = (busy.0 + took.as_micros() as u64, busy.1 + 1);
        drop(busy);
        drop(place);
        self.world.witness.lock().ran(job, self.node)
    }

    /// Sends a call to another node, and waits for what it gives.
    async fn send(
        self: &Arc<Self>,
        job: &Job,
        to: &NodeId,
        sent: Sent,
        may_wait: bool,
    ) -> Result<Done, Failed> {
        let (world, from) = (&self.world, self.node);
        let to = index_of(to).ok_or(Failed::NotTaken)?;
        let now = world.post.now();
        let id = job.id.as_u128() as u64;
        let number = world
            .dice
            .throw("call", &[id, job.number.into(), to as u64])
            .word();
        let Way::Arrives(at) = world.weather.between(now, number, from, to) else {
            tokio::time::sleep(CONNECT).await;
            return Err(Failed::NotTaken);
        };
        let (reply, answer) = oneshot::channel();
        let (job, there) = (job.clone(), world.clone());
        let arrives = move || match there.host(to) {
            Some(host) => host.serve(job, from, may_wait, reply),
            None => drop(reply.send((Err(Failed::NotTaken), None))),
        };
        world.post.at(at, number, arrives);
        let answer = async {
            match answer.await {
                Ok(answer) => answer,
                // It was lost on its way, which nobody tells.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (answer, brief) = answer => {
                brief.inspect(|brief| sent.hear(*brief));
                answer
            }
            () = sent.gone.cancelled() => Err(Failed::Lost),
            () = tokio::time::sleep(PATIENCE) => Err(Failed::Lost),
        }
    }

    /// Runs a call that another node has sent, if there is a place for it.
    fn serve(
        self: Arc<Self>,
        job: Job,
        from: usize,
        may_wait: bool,
        reply: oneshot::Sender<(Result<Done, Failed>, Option<Brief>)>,
    ) {
        let at_once = self.is_open().then(|| self.places.at_once()).flatten();
        let host = self.clone();
        self.spawn(async move {
            let place = match at_once {
                Some(place) => Some(place),
                None if may_wait && host.is_open() => host.places.in_turn().await,
                None => None,
            };
            let done = match place {
                Some(place) => {
                    host.world.witness.lock().forwarded();
                    Ok(host.run(&job, place).await)
                }
                None => Err(Failed::NotTaken),
            };
            let world = &host.world;
            let now = world.post.now();
            let of = [job.id.as_u128() as u64, job.number.into(), host.node as u64];
            let number = world.dice.throw("reply", &of).word();
            if let Way::Arrives(at) = world.weather.between(now, number, host.node, from) {
                // One that nobody waits for any more is no answer.
                let brief = Some(host.places.brief());
                world
                    .post
                    .at(at, number, move || drop(reply.send((done, brief))));
            }
        });
    }
}

/// Runs what is due in a node's queue.
pub(crate) struct Attempts(pub Arc<Host>);

#[async_trait]
impl Runner for Attempts {
    async fn run(&self, attempt: Attempt) -> Ran {
        let host = &self.0;
        let kind = attempt.request.body.first().copied().unwrap_or_default();
        let of = [attempt.id.as_u128() as u64, attempt.number.into()];
        let mut throw = host.world.dice.throw("takes", &of);
        let job = Job {
            id: attempt.id,
            number: attempt.number,
            version: Tag::from(&attempt.target.version),
            kind,
            takes: Duration::from_millis(5) + throw.time(Duration::from_millis(150)),
        };
        let _seen = host.begins(&job);
        match host.call(&job).await {
            Ok(Some(Done { status, body })) => ended(status, body),
            Ok(None) => Ran::Overloaded {
                retry_after: Duration::from_millis(200),
            },
            Err(_) => {
                let message = "lost with its node".to_owned();
                ended(Status::Platform { message }, Bytes::new())
            }
        }
    }
}

fn ended(status: Status, body: Bytes) -> Ran {
    let outcome = Outcome {
        status,
        start: StartKind::Restored,
        usage: Usage::default(),
    };
    Ran::Ended {
        outcome,
        reply: Reply::plain(body),
    }
}

/// An attempt that the witness knows of, until it ends.
struct Seen {
    host: Arc<Host>,
    number: u64,
}

impl Host {
    /// The witness hears that this node's queue runs an attempt.
    fn begins(self: &Arc<Self>, job: &Job) -> Seen {
        let now = self.world.post.now();
        let mut witness = self.world.witness.lock();
        Seen {
            number: witness.begins(now, job.id, &self.membership),
            host: self.clone(),
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.host.world.witness.lock().ends(self.number);
    }
}
