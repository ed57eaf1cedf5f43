//! A node's way to the store: requests that travel, and may be late or lost, as may be answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use storage::{
    Compare, LeaseId, Op, Page, Range, Revision, StorageError, Store, Txn, TxnOutcome, Versioned,
    Watch,
};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::Xxh3;

use crate::Plan;
use crate::weather::Way;
use crate::world::World;

/// After which a request counts as one that was not answered.
const PATIENCE: Duration = Duration::from_millis(2500);

/// The store of a simulation in which nothing goes wrong, for the conformance suite. It lives as
/// long as the runtime that this is called in.
pub fn conforming() -> Arc<dyn Store> {
    let world = World::fair(Plan::of(0));
    let post = world.clone();
    tokio::spawn(async move { post.post.run().await });
    Arc::new(Link::new(&world, 0, 0))
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Get(Bytes),
    Range(Range),
    Transact(Txn),
    Watch(Bytes, Option<Revision>),
    Lease(Duration),
    Keep(LeaseId),
    Revoke(LeaseId),
}

/// What it answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Got(Option<Versioned>),
    Page(Page),
    Outcome(TxnOutcome),
    Watch(Watch),
    Lease(LeaseId),
    Done,
}

pub(crate) type Answered = Result<Answer, StorageError>;

/// The store as one node sees it in one of its lives.
#[derive(Clone)]
pub(crate) struct Link {
    world: Arc<World>,
    node: usize,
    life: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer came")]
struct Silence;

impl Link {
    pub fn new(world: &Arc<World>, node: usize, life: u64) -> Self {
        let world = world.clone();
        Self { world, node, life }
    }

    async fn ask(&self, doing: &'static str, ask: Ask) -> Answered {
        let (reply, answer) = oneshot::channel();
        self.send(ask, reply);
        let answer = async {
            match answer.await {
                Ok(answered) => answered,
                // It was lost on its way, which nobody tells.
                Err(_) => std::future::pending().await,
            }
        };
        let answered = tokio::time::timeout(PATIENCE, answer).await;
        answered.unwrap_or_else(|_| {
            let source = Arc::new(Silence);
            Err(StorageError::Unanswered { doing, source })
        })
    }

    /// Once it is sent nothing takes it back, also where the one who sent it is gone.
    fn send(&self, ask: Ask, reply: oneshot::Sender<Answered>) {
        let (world, node) = (self.world.clone(), self.node);
        let now = world.post.now();
        let number = ask.number(&[node as u64, self.life, now.as_micros() as u64]);
        if let Way::Arrives(at) = world.weather.asks(now, number, node) {
            let post = world.clone();
            post.post
                .at(at, number, move || world.asked(node, number, ask, reply));
        }
    }
}

impl Ask {
    /// A number that other requests hardly have.
    fn number(&self, of: &[u64]) -> u64 {
        let mut hash = Xxh3::new();
        of.iter().for_each(|part| hash.update(&part.to_le_bytes()));
        let mut add = |kind: u8, bytes: &[u8]| {
            hash.update(&[kind]);
            hash.update(bytes);
        };
        match self {
            Ask::Get(key) => add(0, key),
            Ask::Range(range) => add(1, &range.start),
            Ask::Watch(prefix, _) => add(2, prefix),
            Ask::Lease(_) => add(3, &[]),
            Ask::Keep(lease) => add(4, &lease.0.to_le_bytes()),
            Ask::Revoke(lease) => add(5, &lease.0.to_le_bytes()),
            Ask::Transact(txn) => {
                for compare in &txn.compares {
                    add(6, compare.key());
                    if let Compare::Revision(_, revision) = compare {
                        add(7, &revision.0.to_le_bytes());
                    }
                }
                for op in &txn.ops {
                    add(8, op.key());
                    // A function's record has the time of the machine.
                    if let Op::Put { key, value, .. } = op
                        && !key.starts_with(b"fn/")
                    {
                        add(9, value);
                    }
                }
            }
        }
        hash.digest()
    }
}

/// An answer of another kind than what was asked is a fault of the simulation.
fn other<T>(answer: &Answer) -> T {
    unreachable!("the store answers what it is asked, not {answer:?}")
}

#[async_trait]
impl Store for Link {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StorageError> {
        let ask = Ask::Get(Bytes::copy_from_slice(key));
        match self.ask("reading a key", ask).await? {
            Answer::Got(found) => Ok(found),
            answer => other(&answer),
        }
    }

    async fn range(&self, range: Range) -> Result<Page, StorageError> {
        match self.ask("reading a range", Ask::Range(range)).await? {
            Answer::Page(page) => Ok(page),
            answer => other(&answer),
        }
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StorageError> {
        txn.check()?;
        match self.ask("committing", Ask::Transact(txn)).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            answer => other(&answer),
        }
    }

    async fn watch(&self, prefix: &[u8], from: Option<Revision>) -> Result<Watch, StorageError> {
        let ask = Ask::Watch(Bytes::copy_from_slice(prefix), from);
        match self.ask("watching", ask).await? {
            Answer::Watch(watch) => Ok(watch),
            answer => other(&answer),
        }
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StorageError> {
        match self.ask("granting a lease", Ask::Lease(ttl)).await? {
            Answer::Lease(lease) => Ok(lease),
            answer => other(&answer),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StorageError> {
        match self.ask("keeping a lease", Ask::Keep(lease)).await? {
            Answer::Done => Ok(()),
            answer => other(&answer),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StorageError> {
        match self.ask("revoking a lease", Ask::Revoke(lease)).await? {
            Answer::Done => Ok(()),
            answer => other(&answer),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({}, {})", self.node, self.life)
    }
}
