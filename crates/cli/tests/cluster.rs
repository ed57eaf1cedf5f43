//! Three nodes as processes of their own, over a real etcd and a real bucket: from the first
//! certificate to the loss of a node.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::guests::ECHO;
use support::{Node, dunlin};
use testkit::{EtcdCluster, S3Server};

const CREDENTIALS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID),
    ("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY),
    ("AWS_REGION", "us-east-1"),
];

struct World {
    etcd: EtcdCluster,
    bucket: S3Server,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            etcd: EtcdCluster::start(1),
            bucket: S3Server::start(),
            folder: tempfile::tempdir().unwrap(),
        };
        let made = dunlin(&["cluster", "init", "--dir", &world.path("ca")]).ok();
        assert!(made.stderr.contains("ca.key"), "{}", made.stderr);
        world
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Gives a node its two files, as an operator does.
    fn admit(&self, name: &str) {
        let ca = self.path("ca");
        let issued = dunlin(&[
            "--output",
            "json",
            "cluster",
            "certificate",
            name,
            "--dir",
            &ca,
        ]);
        let file = issued.json()["file"].as_str().unwrap().to_owned();
        let own = self.path(&format!("{name}-certificates"));
        std::fs::create_dir_all(&own).unwrap();
        std::fs::copy(file, Path::new(&own).join(format!("{name}.pem"))).unwrap();
        let authority = Path::new(&ca).join("ca.pem");
        std::fs::copy(authority, Path::new(&own).join("ca.pem")).unwrap();
    }

    fn start(&self, name: &str) -> Node {
        let data = self.folder.path().join(name);
        let (etcd, bucket) = (self.etcd.address("cli"), self.bucket.address("a"));
        let certificates = self.path(&format!("{name}-certificates"));
        let flags = [
            "--cluster",
            &etcd,
            "--blobs",
            &bucket,
            "--node",
            name,
            "--peer-addr",
            "127.0.0.1:0",
            "--cluster-dir",
            &certificates,
            "--lease-ms",
            "3000",
        ];
        Node::start_with(&data, &flags, &CREDENTIALS)
    }
}

/// The names of the nodes that one knows, once they are so.
fn nodes(node: &Node, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    loop {
        let found = node.dunlin(&["--output", "json", "nodes"]).json();
        let nodes = found["nodes"].as_array().cloned().unwrap();
        if is_so(&nodes) {
            return nodes;
        }
    }
}

fn says(node: &Node, text: &str) {
    // What another node deployed is known a moment later.
    loop {
        let said = node.dunlin(&["invoke", "e2e/echo", "--data", text]);
        if said.code != 3 {
            assert_eq!(said.ok().text(), text);
            return;
        }
    }
}

#[test]
fn three_processes_are_one_cluster_and_outlive_one_of_them() {
    let world = World::new();
    for name in ["n1", "n2", "n3"] {
        world.admit(name);
    }
    let (one, mut two, mut three) = (world.start("n1"), world.start("n2"), world.start("n3"));
    let all = nodes(&one, |nodes| nodes.len() == 3);
    let table = one.dunlin(&["nodes"]).ok();
    assert!(table.text().contains("n1*"), "{}", table.text());
    one.deploy("echo", ECHO, &[]).ok();
    for node in [&one, &two, &three] {
        says(node, "hello");
    }
    // The node that is gone took nothing of the others with it.
    three.kill();
    says(&one, "one");
    says(&two, "two");
    nodes(&one, |nodes| nodes.len() == 2);
    // It comes back by its old name, in a new tenure.
    three = world.start("n3");
    let back = nodes(&two, |nodes| nodes.len() == 3);
    let token = |nodes: &[Value]| {
        let three = nodes.iter().find(|node| node["name"] == "n3").unwrap();
        three["token"].as_u64().unwrap()
    };
    assert!(token(&back) > token(&all));
    says(&three, "three");
    two.dunlin(&["node", "cordon", "n3"]).ok();
    let is_cordoned = |nodes: &[Value]| nodes.iter().any(|node| node["standing"] == "cordoned");
    nodes(&three, is_cordoned);
    says(&three, "from elsewhere");
    two.dunlin(&["node", "uncordon", "n3"]).ok();
    // A node that is told to stop says so: nobody waits for its lease.
    assert!(two.stop().success());
    let left = one.dunlin(&["--output", "json", "nodes"]).json();
    let left = left["nodes"].as_array().unwrap();
    assert!(left.iter().all(|node| node["name"] != "n2"), "{left:?}");
    says(&three, "at the end");
    assert_eq!(one.dunlin(&["node", "cordon", "n9"]).code, 3);
}

#[test]
fn what_a_node_lacks_to_join_is_named() {
    let up = |flags: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let words = [&["up", "--data", data.to_str().unwrap()], flags].concat();
        dunlin(&words)
    };
    let check = |flags: &[&str], code: i32, words: &[&str]| {
        let refused = up(flags);
        assert_eq!(refused.code, code, "{flags:?}: {}", refused.stderr);
        for word in words {
            assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
        }
    };
    check(&["--cluster", "etcd://127.0.0.1:1"], 2, &["--blobs"]);
    check(&["--blobs", "s3://bucket"], 2, &["--cluster"]);
    let etcd = EtcdCluster::start(1);
    let folder = tempfile::tempdir().unwrap();
    let shared = format!("file://{}", folder.path().display());
    let address = etcd.address("lacks");
    let dir = folder.path().join("none");
    let with = |blobs| {
        [
            "--cluster",
            &address,
            "--blobs",
            blobs,
            "--node",
            "n1",
            "--cluster-dir",
            dir.to_str().unwrap(),
        ]
    };
    check(&with(&shared), 4, &["ca.pem", "dunlin cluster init"]);
    check(&with("ftp://bucket"), 2, &["s3://", "file:///"]);
}
