//! Invokers that share a store, as members that a test lets join, die and come back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use invoker::{Attempt, Config, Invoker, InvokerError, Nodes, Peer, Registry, Runner, Tenure};
use model::{InvocationId, NodeId};
use storage::{Blobs, Range, RedbStore, Store, Txn, TxnOutcome};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{LONG, Scripted, fn_path, ok, spec, submission};

/// Which nodes are members. All of them see a change at once.
#[derive(Debug)]
pub struct Cluster {
    pub store: Arc<dyn Store>,
    pub blobs: Blobs,
    members: Mutex<BTreeMap<NodeId, Peer>>,
    changes: watch::Sender<u64>,
}

/// A node's view, which is its own only as to whether it is a member.
#[derive(Debug)]
pub struct View {
    node: NodeId,
    cluster: Arc<Cluster>,
    own: Mutex<Option<Tenure>>,
}

impl Nodes for View {
    fn own(&self) -> Option<Tenure> {
        self.own.lock().unwrap().clone()
    }

    fn peers(&self) -> Vec<Peer> {
        self.cluster
            .members
            .lock()
            .unwrap()
            .values()
            .cloned()
            .collect()
    }

    fn record_key(&self, node: &NodeId) -> Option<String> {
        Some(key(node))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.cluster.changes.subscribe()
    }
}

fn key(node: &NodeId) -> String {
    format!("test/node/{node}")
}

impl Cluster {
    pub fn new(store: Arc<dyn Store>, blobs: Blobs) -> Arc<Self> {
        Arc::new(Self {
            store,
            blobs,
            members: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// One node of a cluster.
pub struct Host {
    pub view: Arc<View>,
    pub invoker: Invoker,
    service: Option<invoker::Service>,
    running: Option<tokio::task::JoinHandle<()>>,
}

impl Host {
    /// A node that is up, and no member yet.
    pub async fn up(cluster: &Arc<Cluster>, name: &str, config: Config) -> Self {
        let view = Arc::new(View {
            node: name.parse().unwrap(),
            cluster: cluster.clone(),
            own: Mutex::default(),
        });
        let store = cluster.store.clone();
        let registry = Registry::open(store.clone()).await.unwrap();
        let blobs = cluster.blobs.clone();
        let opened = Invoker::open_among(store, blobs, registry, config, view.clone()).await;
        let (invoker, service) = opened.unwrap();
        Self {
            view,
            invoker,
            service: Some(service),
            running: None,
        }
    }

    /// A member that runs what is due.
    pub async fn start(
        cluster: &Arc<Cluster>,
        name: &str,
        config: Config,
        runner: impl Runner,
    ) -> Self {
        let mut host = Self::up(cluster, name, config).await;
        host.join().await;
        host.run(runner);
        host
    }

    pub fn run(&mut self, runner: impl Runner) {
        let service = self.service.take().unwrap();
        let run = service.run(Arc::new(runner), std::future::pending());
        self.running = Some(tokio::spawn(run));
    }

    pub async fn join(&self) {
        let cluster = &self.view.cluster;
        let put = Txn::new().put(key(&self.view.node), "here");
        let TxnOutcome::Committed { revision } = cluster.store.transact(put).await.unwrap() else {
            unreachable!("nothing is compared");
        };
        let tenure = Tenure {
            node: self.view.node.clone(),
            token: revision.0,
        };
        let peer = Peer {
            tenure: tenure.clone(),
            takes_over: true,
        };
        *self.view.own.lock().unwrap() = Some(tenure);
        let mut members = cluster.members.lock().unwrap();
        members.insert(self.view.node.clone(), peer);
        drop(members);
        cluster.changed();
    }

    /// The node leaves what others left to them.
    pub fn drains(&self) {
        let cluster = &self.view.cluster;
        let mut members = cluster.members.lock().unwrap();
        // One that is no member takes over nothing anyway.
        if let Some(peer) = members.get_mut(&self.view.node) {
            peer.takes_over = false;
        }
        drop(members);
        cluster.changed();
    }

    /// The node finds that its time is over.
    pub fn notices(&self) {
        *self.view.own.lock().unwrap() = None;
        self.view.cluster.changed();
    }

    /// The store, and with it all others, find that the node's time is over; it does not.
    pub async fn expires(&self) {
        let cluster = &self.view.cluster;
        let gone = Txn::new().delete(key(&self.view.node));
        assert!(cluster.store.transact(gone).await.unwrap().is_committed());
        cluster.members.lock().unwrap().remove(&self.view.node);
        cluster.changed();
    }

    /// What a kill does at once.
    pub async fn stops_dead(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            assert!(running.await.unwrap_err().is_cancelled());
        }
        *self.view.own.lock().unwrap() = None;
    }

    /// `kill -9`, up to where the others find out.
    pub async fn dies(mut self) {
        self.stops_dead().await;
        self.expires().await;
    }

    pub async fn submit(&self, body: impl Into<bytes::Bytes>) -> InvocationId {
        self.invoker.submit(submission(body)).await.unwrap().id
    }

    pub async fn wait(&self, id: InvocationId) -> invoker::Invocation {
        let invocation = self.invoker.wait(id, LONG).await.unwrap();
        assert!(invocation.state.is_final(), "{invocation:?}");
        invocation
    }

    pub async fn is_refused(&self) -> bool {
        let refused = self.invoker.submit(submission("")).await;
        matches!(refused, Err(InvokerError::NotMember))
    }
}

/// A cluster on a store in memory, with `app/f` deployed.
pub async fn in_memory() -> (Arc<Cluster>, tempfile::TempDir) {
    let store = RedbStore::in_memory(storage::Config::default()).unwrap();
    cluster_on(Arc::new(store)).await
}

pub async fn cluster_on(store: Arc<dyn Store>) -> (Arc<Cluster>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(folder.path()).unwrap();
    let registry = Registry::open(store.clone()).await.unwrap();
    registry.deploy(&fn_path("app/f"), spec(1)).await.unwrap();
    (Cluster::new(store, blobs), folder)
}

/// Never ends by itself; says when it began.
pub fn stuck(began: mpsc::UnboundedSender<InvocationId>) -> impl Runner {
    stuck_seen(began, Arc::new(Semaphore::new(0)))
}

/// The same; gives a permit when it was dropped.
pub fn stuck_seen(
    began: mpsc::UnboundedSender<InvocationId>,
    dropped: Arc<Semaphore>,
) -> impl Runner {
    Scripted(move |attempt: Attempt| {
        let (began, dropped) = (began.clone(), dropped.clone());
        async move {
            let _says_so = Dropped(dropped);
            began.send(attempt.id).unwrap();
            std::future::pending().await
        }
    })
}

struct Dropped(Arc<Semaphore>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// Counts, by node, what ran to its end.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<InvocationId, Vec<&'static str>>>>);

impl Tally {
    pub fn runner(&self, node: &'static str) -> impl Runner + use<> {
        let tally = self.0.clone();
        Scripted(move |attempt: Attempt| {
            tally
                .lock()
                .unwrap()
                .entry(attempt.id)
                .or_default()
                .push(node);
            async move { ok(format!("{node} {}", attempt.number)) }
        })
    }

    pub fn of(&self, node: &str) -> usize {
        let tally = self.0.lock().unwrap();
        tally.values().flatten().filter(|by| **by == node).count()
    }
}

pub async fn left_in(store: &dyn Store, prefix: &str) -> Vec<String> {
    let page = store.range(Range::prefix(prefix)).await.unwrap();
    let text = |entry: storage::Entry| String::from_utf8(entry.key.to_vec()).unwrap();
    page.entries.into_iter().map(text).collect()
}
