//! Settings: every key reaches the node, layers win over each other, mistakes are named.

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

const FULL: &str = r#"
data = "d"
listen = "127.0.0.1:1"
admin = "http://127.0.0.1:2/"
host = "example"
require_token = true
log_format = "json"
log_filter = "debug"
sandboxes_max = 3
guest_threads = 4
running_max = 5
queued_max = 6
artifact_bytes_max = 7
cache_bytes_max = 18
drain_s = 8
state_value_bytes_max = 9
state_app_bytes_max = 10
state_app_keys_max = 11
state_node_bytes_max = 12
state_regions_max = 13
cluster = "etcd://h"
blobs = "s3://bucket"
node = "n1"
peer_addr = "127.0.0.1:14"
advertise = "10.0.0.1:15"
cluster_dir = "c"
dangerous_plaintext_peers = false
lease_ms = 16000
blob_cache_bytes_max = 17
prices = { currency = "EUR", million_invocations = 0.2, gb_second = 0.00001 }
"#;

#[test]
fn a_file_may_say_every_key_and_each_reaches_the_node() {
    let settings = Settings::parse(FULL).unwrap();
    let config = settings.config().unwrap();
    assert_eq!(config.data_dir, Path::new("d"));
    assert_eq!(config.data_addr.port(), 1);
    assert_eq!(config.admin_addr.port(), 2);
    assert_eq!(config.gateway.host, "example");
    assert!(config.gateway.require_token);
    assert_eq!(config.sandboxes_max, 3);
    assert_eq!(config.guest_threads, 4);
    assert_eq!(config.executor.node_running_max, 5);
    assert_eq!(config.executor.node_queued_max, 6);
    assert_eq!(config.gateway.artifact_bytes_max, 7);
    assert_eq!(config.cache_bytes_max, 18);
    assert_eq!(config.drain_patience, Duration::from_secs(8));
    assert_eq!(config.state.value_bytes_max, 9);
    assert_eq!(config.state.app_bytes_max, 10);
    assert_eq!(config.state.app_keys_max, 11);
    assert_eq!(config.state.node_bytes_max, 12);
    assert_eq!(config.state.node_regions_max, 13);
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.store, "etcd://h");
    assert_eq!(cluster.blobs, "s3://bucket");
    assert_eq!(cluster.node.as_str(), "n1");
    assert_eq!(cluster.peer_addr.port(), 14);
    assert_eq!(cluster.advertise.map(|address| address.port()), Some(15));
    assert_eq!(cluster.folder, Path::new("c"));
    assert!(!cluster.dangerous_plaintext);
    assert_eq!(cluster.membership.lease_ttl, Duration::from_secs(16));
    assert_eq!(cluster.blob_cache_bytes_max, 17);
    assert_eq!(config.prices.currency, "EUR");
    let Shape::Table(known) = SHAPE else {
        panic!("the top is a table");
    };
    let keys = FULL.lines().filter(|line| !line.is_empty()).count();
    assert_eq!(keys, known.len(), "the test says every key");
}

#[test]
fn flags_win_over_files_and_files_over_each_other() {
    let line = Line::try_parse_from(["x", "--listen", "127.0.0.1:9"]).unwrap();
    let project = Settings::parse("listen = \"127.0.0.1:1\"\ndrain_s = 1").unwrap();
    let user = Settings::parse("drain_s = 2\nhost = \"h\"").unwrap();
    let merged = line.settings.or(project).or(user);
    assert_eq!(merged.listen.map(|address| address.0.port()), Some(9));
    assert_eq!(merged.drain_s, Some(1));
    assert_eq!(merged.host.as_deref(), Some("h"));
    assert_eq!(merged.data, None);
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    let problems = Settings::parse("data = \"d\"\nlisen = \"x\"").unwrap_err();
    assert_eq!(
        problems.to_string(),
        "line 2: unknown key `lisen`: did you mean `listen`?"
    );
    assert!(Settings::parse("listen = \"nowhere\"").is_err());
    assert!(Settings::parse("[prices]\ncurency = \"E\"").is_err());
}

#[test]
fn addresses_may_be_urls() {
    for text in [
        "127.0.0.1:8081",
        "http://127.0.0.1:8081",
        "http://127.0.0.1:8081/",
    ] {
        assert_eq!(text.parse::<Address>().unwrap().0.port(), 8081);
    }
    assert!("127.0.0.1".parse::<Address>().is_err());
    assert!("".parse::<Address>().is_err());
}

#[test]
fn require_token_needs_no_value() {
    let line = Line::try_parse_from(["x", "--require-token"]).unwrap();
    assert_eq!(line.settings.require_token, Some(true));
}
