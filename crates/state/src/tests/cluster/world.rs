//! The nodes, what they own, and the network between them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::NodeId;
use parking_lot::Mutex;
use storage::{Blobs, Revision, Store, Txn, TxnOutcome};
use tokio::sync::{oneshot, watch};

use crate::tests::{key, shop, store};
use crate::{
    ANSWER_HEAD_BYTES, AppState, Came, Claim, Cluster, ClusterError, Config, Keeper, Key, Member,
    Name, Room, Serve, Slot, State, SystemClock,
};

type Owners = HashMap<Slot, (Member, Arc<AtomicBool>)>;

/// What all nodes see.
#[derive(Debug)]
pub struct Net {
    pub store: Arc<dyn Store>,
    bucket: Blobs,
    members: Mutex<BTreeMap<NodeId, u64>>,
    draining: Mutex<HashSet<NodeId>>,
    owners: Mutex<Owners>,
    serves: Mutex<HashMap<NodeId, Serve>>,
    /// Ways that requests do not get through.
    pub cut: Mutex<HashSet<(NodeId, NodeId)>>,
    /// Ways that answers do not come back.
    pub deaf: Mutex<HashSet<(NodeId, NodeId)>>,
    /// Whether nobody hears what is given up.
    pub is_deaf_to_releases: AtomicBool,
    changes: watch::Sender<u64>,
}

/// A node's view of it.
#[derive(Debug)]
pub struct View {
    net: Arc<Net>,
    node: NodeId,
    token: u64,
    /// Whether the node thinks that it is a member.
    alive: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Owned {
    net: Arc<Net>,
    slot: Slot,
    token: u64,
    alive: Arc<AtomicBool>,
    mine: Arc<AtomicBool>,
}

pub struct Node {
    pub state: State,
    pub keeper: Option<Keeper>,
    alive: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
}

pub struct World {
    pub net: Arc<Net>,
    nodes: BTreeMap<NodeId, Node>,
    config: Config,
    joined: u64,
}

pub fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn own_key(slot: Slot) -> String {
    format!("own/{slot}")
}

impl Net {
    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn preferred(&self, slot: Slot) -> Option<NodeId> {
        self.order(slot).into_iter().next()
    }

    /// The nodes that stay, those first that should own the slot first.
    pub fn order(&self, slot: Slot) -> Vec<NodeId> {
        let draining = self.draining.lock();
        let members = self.members.lock();
        let stay = members.keys().filter(|node| !draining.contains(*node));
        let score = |node: &NodeId| {
            let text = format!("{node} {slot}");
            std::cmp::Reverse(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
        };
        let mut stay: Vec<_> = stay.cloned().collect();
        stay.sort_by_key(score);
        stay
    }

    /// The token of the claim to a key.
    pub fn token(&self, key: &Key) -> u64 {
        self.owners.lock()[&slot(key)].0.token
    }

    /// Takes what a node owns from it, as the end of its lease does.
    async fn take_away(&self, node: &NodeId) {
        let taken: Vec<_> = {
            let owners = self.owners.lock();
            let owned = owners.iter().filter(|(_, (owner, _))| owner.node == *node);
            owned.map(|(slot, _)| *slot).collect()
        };
        for slot in taken {
            let txn = Txn::new().delete(own_key(slot));
            assert!(self.store.transact(txn).await.unwrap().is_committed());
            self.owners.lock().remove(&slot);
        }
    }
}

impl View {
    /// What this node has claimed before.
    fn owned(&self, slot: Slot) -> Option<Arc<dyn Claim>> {
        let owners = self.net.owners.lock();
        let (owner, mine) = owners
            .get(&slot)
            .filter(|(owner, _)| owner.node == self.node)?;
        Some(Arc::new(Owned {
            net: self.net.clone(),
            slot,
            token: owner.token,
            alive: self.alive.clone(),
            mine: mine.clone(),
        }))
    }
}

#[async_trait]
impl Cluster for View {
    fn me(&self) -> Option<Member> {
        let alive = self.alive.load(Ordering::Relaxed);
        alive.then(|| Member {
            node: self.node.clone(),
            token: self.token,
        })
    }

    fn members(&self) -> Vec<Member> {
        let members = self.net.members.lock();
        let members = members.iter();
        let member = |(node, token): (&NodeId, &u64)| Member {
            node: node.clone(),
            token: *token,
        };
        members.map(member).collect()
    }

    fn owner(&self, slot: Slot) -> Option<Member> {
        let owners = self.net.owners.lock();
        owners.get(&slot).map(|(owner, _)| owner.clone())
    }

    fn should_own(&self, slot: Slot) -> bool {
        self.net.preferred(slot).as_ref() == Some(&self.node)
    }

    fn keepers(&self, slot: Slot, count: usize) -> Vec<Member> {
        let order = self.net.order(slot);
        let others = order.into_iter().filter(|node| *node != self.node);
        let members = self.net.members.lock();
        let member = |node: NodeId| Member {
            token: members[&node],
            node,
        };
        others.take(count).map(member).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.net.changes.subscribe()
    }

    async fn claim(&self, slot: Slot) -> Result<Option<Arc<dyn Claim>>, ClusterError> {
        let txn = Txn::new().if_absent(own_key(slot));
        let txn = txn.put(own_key(slot), self.node.as_str().to_owned());
        let TxnOutcome::Committed { revision } = self.net.store.transact(txn).await.unwrap() else {
            return Ok(self.owned(slot));
        };
        let mine = Arc::new(AtomicBool::new(true));
        let owner = Member {
            node: self.node.clone(),
            token: revision.0,
        };
        self.net.owners.lock().insert(slot, (owner, mine.clone()));
        self.net.tell();
        Ok(Some(Arc::new(Owned {
            net: self.net.clone(),
            slot,
            token: revision.0,
            alive: self.alive.clone(),
            mine,
        })))
    }

    async fn ask(
        &self,
        node: &NodeId,
        head: Bytes,
        data: &[u8],
        room: Room,
        timeout: Duration,
    ) -> Result<Came, ClusterError> {
        let way = (self.node.clone(), node.clone());
        let unreached = || ClusterError::Unreached {
            node: node.clone(),
            source: "cut".into(),
        };
        if self.net.cut.lock().contains(&way) {
            return Err(unreached());
        }
        let serve = self.net.serves.lock().get(node).cloned();
        let serve = serve.ok_or_else(unreached)?;
        let request = [&head[..], data].concat().into();
        let answer = serve.answer(&self.node, &request);
        let answer = tokio::time::timeout(timeout, answer).await;
        match answer {
            Ok(answer) if !self.net.deaf.lock().contains(&way) => {
                let all: Bytes = [&answer.head[..], &answer.data].concat().into();
                Ok(landed(all, room))
            }
            _ => Err(ClusterError::Unanswered {
                node: node.clone(),
                source: "deaf".into(),
            }),
        }
    }
}

/// An answer, what there is room for where that is.
fn landed(mut all: Bytes, room: Room) -> Came {
    let (Some(mut part), true) = (room.part, all.len() > ANSWER_HEAD_BYTES) else {
        let (bytes, rest) = (all, None);
        return Came { bytes, rest };
    };
    let rest = all.split_off(ANSWER_HEAD_BYTES);
    part.as_mut()[..rest.len()].copy_from_slice(&rest);
    let rest = Some((part, rest.len()));
    Came { bytes: all, rest }
}

#[async_trait]
impl Claim for Owned {
    fn token(&self) -> u64 {
        self.token
    }

    fn holds(&self) -> bool {
        self.alive.load(Ordering::Relaxed) && self.mine.load(Ordering::Relaxed)
    }

    fn guard(&self, txn: Txn) -> Txn {
        txn.if_revision(own_key(self.slot), Revision(self.token))
    }

    async fn release(&self) -> Result<(), ClusterError> {
        if self.net.is_deaf_to_releases.load(Ordering::Relaxed) {
            return Err(ClusterError::Claim("nothing was heard".into()));
        }
        self.mine.store(false, Ordering::Relaxed);
        let txn = self.guard(Txn::new().delete(own_key(self.slot)));
        if self.net.store.transact(txn).await.unwrap().is_committed() {
            self.net.owners.lock().remove(&self.slot);
            self.net.tell();
        }
        Ok(())
    }
}

impl World {
    pub async fn of(count: usize) -> Self {
        let config = Config {
            owner_wait_max: Duration::from_secs(60),
            ..Config::default()
        };
        Self::with(count, config).await
    }

    pub async fn with(count: usize, config: Config) -> Self {
        let net = Net {
            store: store(),
            bucket: Blobs::in_memory(),
            members: Mutex::default(),
            draining: Mutex::default(),
            owners: Mutex::default(),
            serves: Mutex::default(),
            cut: Mutex::default(),
            deaf: Mutex::default(),
            is_deaf_to_releases: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        };
        let mut world = Self {
            net: Arc::new(net),
            nodes: BTreeMap::new(),
            config,
            joined: 0,
        };
        for number in 0..count {
            let name = char::from(b'a' + number as u8).to_string();
            world.join(&name);
        }
        world.settle().await;
        world
    }

    pub fn join(&mut self, name: &str) {
        self.joined += 1;
        let alive = Arc::new(AtomicBool::new(true));
        let view = View {
            net: self.net.clone(),
            node: id(name),
            token: self.joined,
            alive: alive.clone(),
        };
        let (store, config) = (self.net.store.clone(), self.config.clone());
        let bucket = self.net.bucket.clone();
        let clock = Arc::new(SystemClock);
        let (state, keeper) = State::clustered(store, bucket, Arc::new(view), config, clock);
        let serve = state.serve().unwrap();
        self.net.serves.lock().insert(id(name), serve);
        self.net.members.lock().insert(id(name), self.joined);
        self.net.tell();
        let node = Node {
            state,
            keeper: Some(keeper),
            alive,
            stop: None,
        };
        self.nodes.insert(id(name), node);
    }

    /// Lets all keepers go on by themselves.
    pub fn keep(&mut self) {
        for node in self.nodes.values_mut() {
            let (stop, stopped) = oneshot::channel();
            node.stop = Some(stop);
            let keeper = node.keeper.take().unwrap();
            tokio::spawn(keeper.run(async move { drop(stopped.await) }));
        }
    }

    /// Has all keepers look, as often as it takes for slots to pass from one to the other.
    pub async fn settle(&self) {
        self.settle_but("none").await;
    }

    /// The same without one of them.
    pub async fn settle_but(&self, name: &str) {
        for _ in 0..2 {
            for (_, node) in self.nodes.iter().filter(|(node, _)| node.as_str() != name) {
                if let Some(keeper) = &node.keeper {
                    keeper.pass().await.unwrap();
                }
            }
        }
    }

    /// A node ends as in a crash.
    pub async fn kill(&mut self, name: &str) {
        let node = self.nodes.remove(&id(name)).unwrap();
        node.alive.store(false, Ordering::Relaxed);
        self.lose(name).await;
    }

    /// By its own clock a node's membership is over, and so is what it owned.
    pub fn end(&self, name: &str) {
        self.nodes[&id(name)].alive.store(false, Ordering::Relaxed);
    }

    /// The others take a node for dead, whatever it thinks.
    pub async fn lose(&self, name: &str) {
        self.net.serves.lock().remove(&id(name));
        self.net.members.lock().remove(&id(name));
        self.net.take_away(&id(name)).await;
        self.net.tell();
    }

    pub fn drain(&self, name: &str) {
        self.net.draining.lock().insert(id(name));
        self.net.tell();
    }

    pub fn states(&self) -> Vec<State> {
        self.nodes.values().map(|node| node.state.clone()).collect()
    }

    pub fn apps(&self) -> Vec<AppState> {
        self.nodes.values().map(|node| shop(&node.state)).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.nodes.keys().map(|node| node.to_string()).collect()
    }

    pub fn app(&self, name: &str) -> AppState {
        shop(&self.nodes[&id(name)].state)
    }

    pub fn owner(&self, key: &Key) -> Option<String> {
        let owners = self.net.owners.lock();
        let owner = owners.get(&slot(key));
        owner.map(|(owner, _)| owner.node.to_string())
    }

    /// A key that a node owns.
    pub fn key_of(&self, node: &str) -> Key {
        self.keys_of(node, 1).remove(0)
    }

    pub fn keys_of(&self, node: &str, count: usize) -> Vec<Key> {
        let keys = (0..).map(|number| key(&format!("of/{number}")));
        let keys = keys.filter(|key| self.owner(key).as_deref() == Some(node));
        keys.take(count).collect()
    }
}

pub fn slot(key: &Key) -> Slot {
    Slot::of(&Name {
        app: "shop".parse().unwrap(),
        key: key.clone(),
    })
}
