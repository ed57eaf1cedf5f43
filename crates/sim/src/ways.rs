//! The state of a node, and how it asks the other nodes for theirs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use invoker::{Members, Nodes as _};
use model::NodeId;
use state::{Came, Claim, Claims, Cluster, ClusterError, Member, Room, Serve, Slot, State};
use storage::{Store, Txn};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use crate::Fault;
use crate::host::{Host, index_of, node_id};
use crate::weather::Way;
use crate::world::{BEGAN_MS, World};

/// How long an owner has for one request.
const ASK: Duration = Duration::from_secs(2);
/// How long a request looks for its key's owner.
const OWNER: Duration = Duration::from_secs(3);

/// The state that a node has a part of.
pub(crate) struct Share {
    pub state: State,
    serve: Serve,
}

/// The other nodes, as a node's state asks for them.
struct Ways {
    claims: Claims,
    queues: Arc<Members>,
    host: Weak<Host>,
    ignores_claims: bool,
}

/// An owner that goes on when its claim is over.
#[derive(Debug)]
struct Stubborn(Arc<dyn Claim>);

/// A node's wall clock, right for once: versions are of it.
struct Wall(Arc<World>);

#[derive(Debug, thiserror::Error)]
#[error("nothing was heard")]
struct Silence;

/// Keeps a node's part of the state until the node stops, and hands it over then.
pub(crate) async fn keep(
    host: Arc<Host>,
    store: Arc<dyn Store>,
    queues: Arc<Members>,
    stop: CancellationToken,
) {
    let world = host.world.clone();
    let ways = Arc::new(Ways {
        claims: Claims::new(host.membership.clone()),
        queues,
        host: Arc::downgrade(&host),
        ignores_claims: world.plan.fault == Some(Fault::ClaimsIgnored),
    });
    let config = state::Config {
        owner_wait_max: OWNER,
        ask_timeout: ASK,
        ..state::Config::default()
    };
    let (blobs, clock) = (world.blobs.clone(), Arc::new(Wall(world)));
    let (state, keeper) = State::clustered(store, blobs, ways, config, clock);
    if let Some(serve) = state.serve() {
        host.shares(Share { state, serve });
    }
    // What runs belongs to the process: nothing here keeps that.
    drop(host);
    keeper.run(stop.cancelled()).await;
}

#[async_trait]
impl Cluster for Ways {
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
        let claimed = self.claims.claim(slot).await?;
        Ok(match claimed {
            Some(claim) if self.ignores_claims => Some(Arc::new(Stubborn(claim))),
            claimed => claimed,
        })
    }

    async fn ask(
        &self,
        node: &NodeId,
        head: Bytes,
        data: &[u8],
        _room: Room,
        timeout: Duration,
    ) -> Result<Came, ClusterError> {
        let (unreached, unanswered) = (
            || ClusterError::Unreached {
                node: node.clone(),
                source: Silence.into(),
            },
            || ClusterError::Unanswered {
                node: node.clone(),
                source: Silence.into(),
            },
        );
        let host = self.host.upgrade().ok_or_else(unreached)?;
        let gone = host.neighbours.gone(node).ok_or_else(unreached)?;
        let to = index_of(node).ok_or_else(unreached)?;
        let answer = host.asks(to, [&head[..], data].concat().into());
        tokio::select! {
            biased;
            answer = answer => match answer {
                Some(bytes) => Ok(Came { bytes, rest: None }),
                None => Err(unreached()),
            },
            () = gone.cancelled() => Err(unanswered()),
            () = tokio::time::sleep(timeout) => Err(unanswered()),
        }
    }
}

impl Host {
    /// Asks another node's state; none where nobody listens.
    async fn asks(&self, to: usize, request: Bytes) -> Option<Bytes> {
        let (world, from) = (self.world.clone(), self.node);
        let now = world.post.now();
        let of = [from as u64, self.life, to as u64, now.as_micros() as u64];
        let of = [&of[..], &[xxh3_64(&request)]].concat();
        let number = world.dice.throw("ask", &of).word();
        let (reply, answer) = oneshot::channel();
        if let Way::Arrives(at) = world.weather.connected(now, number, from, to) {
            let there = world.clone();
            world.post.at(at, number, move || match there.host(to) {
                Some(host) => host.answers(from, number, request, reply),
                None => drop(reply.send(None)),
            });
        } else {
            drop(reply);
        }
        match answer.await {
            Ok(answer) => answer,
            // It was lost on its way, which nobody tells.
            Err(_) => std::future::pending().await,
        }
    }

    fn answers(
        self: Arc<Self>,
        from: usize,
        number: u64,
        request: Bytes,
        reply: oneshot::Sender<Option<Bytes>>,
    ) {
        let host = self.clone();
        self.spawn(async move {
            let answer = match host.share() {
                Some(share) => {
                    let answer = share.serve.answer(&node_id(from), &request).await;
                    Some(Bytes::from([answer.head, answer.data].concat()))
                }
                None => None,
            };
            let world = &host.world;
            let now = world.post.now();
            let number = world.dice.throw("told", &[number]).word();
            let way = world.weather.connected(now, number, host.node, from);
            if let Way::Arrives(at) = way {
                // One that nobody waits for any more is no answer.
                world.post.at(at, number, move || drop(reply.send(answer)));
            }
        });
    }
}

#[async_trait]
impl Claim for Stubborn {
    fn token(&self) -> u64 {
        self.0.token()
    }

    fn holds(&self) -> bool {
        true
    }

    fn guard(&self, txn: Txn) -> Txn {
        txn
    }

    async fn release(&self) -> Result<(), ClusterError> {
        self.0.release().await
    }
}

impl state::Clock for Wall {
    fn now(&self) -> Duration {
        Duration::from_millis(BEGAN_MS) + self.0.post.now()
    }
}

impl std::fmt::Debug for Ways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ways").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Wall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wall").finish_non_exhaustive()
    }
}
