//! Who reads from the bucket, who is asked, what is believed; without and over the network.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use transport::{Handler, Incoming, Peers, Resolve, Security, Server, Status};

use super::others::{AskError, exchange};
use super::sink::Memory;
use super::*;

/// A cluster in one process: asking a node is a call of its carrier.
pub(super) struct World {
    pub carriers: Mutex<HashMap<NodeId, Carrier>>,
    /// What was asked: of whom, how.
    asked: Mutex<Vec<(NodeId, Ask)>>,
    /// Parts of images that were asked for.
    pub parts: Mutex<Vec<Span>>,
    /// A permit for each part that is given without somebody waiting for it.
    pub ahead: Semaphore,
    /// Nodes that do not answer.
    pub gone: Mutex<Vec<NodeId>>,
}

struct Seen {
    here: NodeId,
    world: Arc<World>,
}

#[async_trait]
impl Others for Seen {
    fn here(&self) -> NodeId {
        self.here.clone()
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.world.carriers.lock().keys().cloned().collect()
    }

    async fn ask(&self, node: &NodeId, ask: Ask, name: Name) -> Result<Option<Bytes>, AskError> {
        self.world.asked.lock().push((node.clone(), ask));
        if self.world.gone.lock().contains(node) {
            return Err(AskError::Left);
        }
        let carrier = self.world.carriers.lock().get(node).cloned();
        let carrier = carrier.ok_or(AskError::Left)?;
        match ask {
            Ask::Held => Ok(carrier.0.held(name).await),
            Ask::Bring => carrier.brought(name).await.map_err(|_| AskError::Status(2)),
        }
    }

    async fn stage(
        &self,
        node: &NodeId,
        name: Name,
        cache: &Arc<Cache>,
    ) -> Result<Option<Staged>, AskError> {
        let found = self.ask(node, Ask::Held, name).await?;
        let stage = |bytes: Bytes| cache.stage(&bytes, name.digest);
        let staged = found.map(stage).transpose();
        staged.map_err(|error| AskError::Kept(error.into()))
    }

    async fn part(&self, node: &NodeId, span: &Span) -> Result<Option<Bytes>, AskError> {
        self.world.parts.lock().push(span.clone());
        if !span.prompt {
            self.world.ahead.acquire().await.unwrap().forget();
        }
        if self.world.gone.lock().contains(node) {
            return Err(AskError::Left);
        }
        let carrier = self.world.carriers.lock().get(node).cloned();
        Ok(carrier.ok_or(AskError::Left)?.0.part(span.clone()).await)
    }
}

pub(super) struct Cluster {
    pub folder: tempfile::TempDir,
    pub world: Arc<World>,
    bucket: Blobs,
    caches: HashMap<NodeId, Blobs>,
}

impl Cluster {
    pub fn of(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bucket = Blobs::open_shared(&folder.path().join("bucket")).unwrap();
        let images = Blobs::open_shared(&folder.path().join("images")).unwrap();
        let world = World {
            carriers: Mutex::default(),
            asked: Mutex::default(),
            parts: Mutex::default(),
            ahead: Semaphore::new(0),
            gone: Mutex::default(),
        };
        let (world, mut caches) = (Arc::new(world), HashMap::new());
        for number in 0..count {
            let here: NodeId = format!("n{number}").parse().unwrap();
            let cache = folder.path().join(here.as_str());
            let cache = Blobs::open_cache(&cache, bucket.clone(), 1 << 30).unwrap();
            let world = world.clone();
            let seen = Arc::new(Seen {
                here: here.clone(),
                world: world.clone(),
            });
            let patience = Duration::from_secs(60);
            let carrier = Carrier::new(seen, cache.clone(), images.clone(), patience);
            cache.fetch_by(carrier.fetcher());
            world.carriers.lock().insert(here.clone(), carrier);
            caches.insert(here, cache);
        }
        Self {
            folder,
            world,
            bucket,
            caches,
        }
    }

    fn readers(&self, digest: Digest) -> Vec<NodeId> {
        let carrier = self.world.carriers.lock().values().next().cloned();
        let carrier = carrier.unwrap();
        let space = Space::Artifacts;
        carrier.0.readers(&Name { space, digest })
    }

    fn lose_the_bucket(&self) {
        std::fs::remove_dir_all(self.folder.path().join("bucket")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_the_reader_ask_it_and_nobody_asks_twice() {
    let cluster = Cluster::of(5);
    let digest = cluster
        .bucket
        .put(Bytes::from_static(b"wasm"))
        .await
        .unwrap();
    let reader = cluster.readers(digest).remove(0);
    // Whoever reads takes the blob along: only one can.
    let gets = cluster.caches.values().map(|cache| cache.get(&digest));
    for got in futures::future::join_all(gets).await {
        assert_eq!(got.unwrap().unwrap(), "wasm");
    }
    let mut asked = cluster.world.asked.lock().clone();
    assert_eq!(asked.len(), 4);
    asked.retain(|(node, ask)| (node, *ask) != (&reader, Ask::Bring));
    assert!(asked.is_empty(), "{asked:?}");
    // It is on all of them now, and nobody needs anybody.
    cluster.lose_the_bucket();
    cluster.world.carriers.lock().clear();
    for cache in cluster.caches.values() {
        assert_eq!(cache.get(&digest).await.unwrap().unwrap(), "wasm");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_reader_is_asked_when_the_first_is_gone() {
    let cluster = Cluster::of(5);
    let digest = cluster
        .bucket
        .put(Bytes::from_static(b"wasm"))
        .await
        .unwrap();
    let readers = cluster.readers(digest);
    cluster.world.gone.lock().push(readers[0].clone());
    let other = cluster
        .caches
        .keys()
        .find(|node| !readers.contains(node))
        .unwrap();
    assert!(cluster.caches[other].get(&digest).await.unwrap().is_some());
    let asked = std::mem::take(&mut *cluster.world.asked.lock());
    let all = [
        (readers[0].clone(), Ask::Bring),
        (readers[1].clone(), Ask::Bring),
    ];
    assert_eq!(asked, all);
    // With both gone, a node reads for itself.
    let another = cluster
        .bucket
        .put(Bytes::from_static(b"more"))
        .await
        .unwrap();
    let readers = cluster.readers(another);
    *cluster.world.gone.lock() = readers.clone();
    let other = cluster
        .caches
        .keys()
        .find(|node| !readers.contains(node))
        .unwrap();
    assert!(cluster.caches[other].get(&another).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bucket_lost_comes_from_whoever_has_it() {
    let cluster = Cluster::of(5);
    let digest = cluster
        .bucket
        .put(Bytes::from_static(b"wasm"))
        .await
        .unwrap();
    let readers = cluster.readers(digest);
    let others: Vec<_> = cluster
        .caches
        .keys()
        .filter(|n| !readers.contains(n))
        .collect();
    cluster.caches[others[0]]
        .put_here(Bytes::from_static(b"wasm"))
        .await
        .unwrap();
    cluster.lose_the_bucket();
    let got = cluster.caches[others[1]].get(&digest).await.unwrap();
    assert_eq!(got.unwrap(), "wasm");
    assert_eq!(
        cluster.caches[others[1]]
            .get(&Digest::of(b"none"))
            .await
            .unwrap(),
        None
    );
}

/// Sends these pieces, and then what the test says: the end, or nothing more.
struct Liar {
    status: Status,
    pieces: Vec<Bytes>,
    stays: Mutex<Option<oneshot::Sender<()>>>,
}

#[async_trait]
impl Handler for Liar {
    async fn handle(&self, call: Incoming) {
        let mut sender = call.responder.stream(self.status).unwrap();
        for piece in self.pieces.clone() {
            // Whoever has heard enough hangs up.
            let _heard = sender.send(piece).await;
        }
        let stays = self.stays.lock().take();
        match stays {
            None => drop(sender.finish()),
            Some(begun) => {
                begun.send(()).unwrap();
                std::future::pending().await
            }
        }
    }
}

struct At(SocketAddr);

#[async_trait]
impl Resolve for At {
    async fn resolve(
        &self,
        _: &NodeId,
    ) -> Result<SocketAddr, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0)
    }
}

/// What comes of asking a node for `wasm` that answers so; `during` may stop it meanwhile.
async fn asked_of(
    liar: Liar,
    during: impl AsyncFnOnce(CancellationToken),
) -> Result<Option<Bytes>, AskError> {
    let (here, there): (NodeId, NodeId) = ("n1".parse().unwrap(), "n2".parse().unwrap());
    let plain = |node: &NodeId| Security::DangerousPlaintext(node.clone());
    let (config, any) = (
        transport::Config::default(),
        SocketAddr::from(([127, 0, 0, 1], 0)),
    );
    let server = Server::bind(any, config.clone(), plain(&there), Arc::new(liar));
    let server = server.await.unwrap();
    let peers = Peers::new(
        config,
        plain(&here),
        Arc::new(At(server.address().unwrap())),
    );
    let killed = CancellationToken::new();
    let run = killed
        .clone()
        .run_until_cancelled_owned(server.run(std::future::pending()));
    let serving = tokio::spawn(run);
    let (space, digest) = (Space::Artifacts, Digest::of(b"wasm"));
    let (terms, places) = (CarryConfig::default(), Semaphore::new(1));
    let name = Name { space, digest };
    let asked = exchange(
        &peers,
        &there,
        Ask::Held,
        name,
        (&terms, &places),
        Memory::default(),
    );
    let (asked, ()) = tokio::join!(asked, during(killed.clone()));
    killed.cancel();
    serving.await.unwrap();
    asked
}

fn blob(said: u64, pieces: &[&'static [u8]]) -> Liar {
    let length = Bytes::copy_from_slice(&said.to_le_bytes());
    let pieces = pieces.iter().map(|piece| Bytes::from_static(piece));
    Liar {
        status: Status::OK,
        pieces: std::iter::once(length).chain(pieces).collect(),
        stays: Mutex::default(),
    }
}

#[tokio::test]
async fn only_the_bytes_of_the_name_are_believed() {
    let ask = async |liar: Liar| asked_of(liar, async |_| ()).await;
    let whole = ask(blob(4, &[b"wa", b"sm"])).await.unwrap();
    assert_eq!(whole.unwrap(), "wasm");
    let missing = Liar {
        status: others::MISSING,
        ..blob(0, &[])
    };
    assert_eq!(ask(missing).await.unwrap(), None);
    let check = async |liar: Liar, expected: &str| {
        let why = ask(liar).await.unwrap_err();
        assert_eq!(why.to_string(), expected);
    };
    let other = format!(
        "it sent other bytes, with the digest {}",
        Digest::of(b"wasn")
    );
    check(blob(4, &[b"wasn"]), &other).await;
    check(blob(4, &[b"wa"]), "it sent 2 of 4 bytes").await;
    check(blob(4, &[b"wa", b"sm", b"!"]), "it sent 5 of 4 bytes").await;
    check(
        blob(u64::MAX, &[]),
        "its blob of 18446744073709551615 bytes is longer than 4294967296",
    )
    .await;
    let short = Liar {
        pieces: vec![Bytes::from_static(b"123")],
        ..blob(0, &[])
    };
    check(short, "it sent 3 of 8 bytes").await;
    let unknown = Liar {
        status: Status(77),
        ..blob(0, &[])
    };
    check(unknown, "it answered 77").await;
}

#[tokio::test]
async fn a_node_that_dies_in_the_middle_ends_the_wait() {
    let (begun, has_begun) = oneshot::channel();
    let liar = Liar {
        stays: Mutex::new(Some(begun)),
        ..blob(4, &[b"wa"])
    };
    let asked = asked_of(liar, async |killed: CancellationToken| {
        has_begun.await.unwrap();
        killed.cancel();
    });
    assert!(matches!(asked.await, Err(AskError::Call(_))));
}

#[test]
fn a_name_reads_back_and_nothing_else_does() {
    let digest = Digest::of(b"wasm");
    for space in [Space::Artifacts, Space::Images] {
        let mut bytes = vec![space as u8];
        bytes.extend_from_slice(digest.as_bytes());
        assert_eq!(Name::read(&bytes), Some(Name { space, digest }));
        bytes.push(0);
        assert_eq!(Name::read(&bytes), None);
        assert_eq!(Name::read(&bytes[..20]), None);
    }
    assert_eq!(Name::read(&[9; 33]), None);
    assert_eq!(Name::read(&[]), None);
}
