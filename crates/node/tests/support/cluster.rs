//! Three nodes of one cluster in this process, over a real etcd and a folder that they share.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use node::{ClusterConfig, Config, NodeError};
use serde_json::Value;
use testkit::EtcdCluster;

use super::{World, config, world_of};

pub struct Cluster {
    pub etcd: EtcdCluster,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// etcd, a folder for blobs, and certificates for nodes `n1`, `n2`, `n3`.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certificates = folder.path().join("certificates");
        node::init_cluster(&certificates).expect("an authority");
        for name in ["n1", "n2", "n3"] {
            let name = name.parse().expect("a name");
            let day = Duration::from_secs(86_400);
            node::issue_certificate(&certificates, &name, day).expect("a certificate");
        }
        Self {
            etcd: EtcdCluster::start(1),
            folder,
        }
    }

    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    pub fn address(&self) -> String {
        self.etcd.address("nodes")
    }

    pub fn blobs(&self) -> String {
        format!("file://{}", self.shared().display())
    }

    /// The data folder of node `number`.
    pub fn data(&self, number: u16) -> PathBuf {
        self.folder.path().join(format!("n{number}"))
    }

    /// The folder that is the nodes' bucket.
    pub fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    /// The configuration of node `number`, with short leases.
    pub fn config(&self, number: u16) -> Config {
        let name = format!("n{number}");
        let mut config = config(&self.folder.path().join(&name));
        let mut cluster = ClusterConfig::new(
            name.parse().expect("a name"),
            self.address(),
            self.blobs(),
            "127.0.0.1:0".parse().expect("an address"),
            self.certificates(),
        );
        cluster.set_lease(Duration::from_secs(3));
        cluster.membership.report_every_min = Duration::from_millis(50);
        cluster.reload_every = Duration::from_millis(50);
        config.cluster = Some(cluster);
        config
    }

    pub async fn start(&self, number: u16) -> Result<World, NodeError> {
        world_of(self.config(number)).await
    }

    /// The nodes `n1`, `n2` and `n3`, each of which knows the others.
    pub async fn three(&self) -> [World; 3] {
        let (one, two, three) = tokio::join!(self.start(1), self.start(2), self.start(3));
        let worlds = [one, two, three].map(|world| world.expect("a node"));
        for world in &worlds {
            world
                .sees(|nodes| nodes.len() == 3 && nodes.iter().all(is_known))
                .await;
        }
        worlds
    }
}

/// Whether a node has said what it has.
fn is_known(node: &Value) -> bool {
    node["running_max"].as_u64() > Some(0)
}

impl World {
    /// Waits until this node's view of the nodes is so. It is followed by the node; a look costs a
    /// request, and the test's own time limit bounds how many.
    pub async fn sees(&self, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        loop {
            let nodes = self.get(self.admin("/v1/nodes")).await;
            assert_eq!(nodes.status, 200, "{}", nodes.text());
            let nodes = nodes.json()["nodes"].as_array().cloned().expect("nodes");
            if is_so(&nodes) {
                return nodes;
            }
            tokio::task::yield_now().await;
        }
    }

    /// A reply as it comes.
    pub async fn begin(&self, uri: String) -> Incoming {
        let request = http::Request::get(uri).body(Full::default());
        let answer = self.client.request(request.expect("a request")).await;
        answer.expect("an answer").into_body()
    }

    /// Waits until this node knows a function that another one deployed.
    pub async fn knows(&self, path: &str) {
        let (app, function) = path.split_once('/').expect("APP/FUNCTION");
        let uri = self.admin(&format!("/v1/apps/{app}/functions/{function}"));
        while self.get(uri.clone()).await.status != 200 {
            tokio::task::yield_now().await;
        }
    }

    /// Asks for a standing of a node.
    pub async fn wants(&self, node: &str, standing: &str) -> u16 {
        let uri = self.admin(&format!("/v1/nodes/{node}/standing"));
        let body = format!(r#"{{"standing":"{standing}"}}"#);
        let request = http::Request::put(uri)
            .header("content-type", "application/json")
            .body(Full::from(body));
        self.send(request.expect("a request")).await.status
    }
}

/// A node's standing, by name.
pub fn standing<'a>(nodes: &'a [Value], name: &str) -> Option<&'a str> {
    let node = nodes.iter().find(|node| node["name"] == name)?;
    node["standing"].as_str()
}
