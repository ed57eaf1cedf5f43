//! The part of a node's configuration that is about its cluster.

use std::net::SocketAddr;
use std::time::Duration;

use model::NodeId;
use node::ClusterConfig;

use crate::exit::{Exit, Failure};
use crate::node_config::Settings;

/// The folder of certificates unless told.
pub const CLUSTER_DIR: &str = "dunlin-cluster";
/// The port for other nodes unless told.
const PEER_PORT: u16 = 8082;

impl Settings {
    /// The cluster that the node joins; none where no store is named.
    pub fn cluster_config(&self) -> Result<Option<ClusterConfig>, Failure> {
        let Some(store) = &self.cluster else {
            return self.alone().map(|()| None);
        };
        let blobs = self.blobs.as_ref().ok_or_else(|| {
            let message = "a cluster needs a place for artifacts that all of its nodes reach";
            Failure::new(Exit::Usage, message).next(
                "name one with --blobs s3://BUCKET, or --blobs file:///FOLDER of a shared folder",
            )
        })?;
        let folder = self.cluster_dir.clone();
        let folder = folder.unwrap_or_else(|| CLUSTER_DIR.into());
        let peer = self.peer_addr.map_or_else(|| self.default_peer(), |a| a.0);
        let mut config = ClusterConfig::new(self.node_name()?, store, blobs, peer, folder);
        config.dangerous_plaintext = self.plaintext()?;
        config.advertise = self.advertise.map(|address| address.0);
        if let Some(ms) = self.lease_ms {
            config.set_lease(Duration::from_millis(ms));
        }
        if let Some(bytes) = self.blob_cache_bytes_max {
            config.blob_cache_bytes_max = bytes;
        }
        Ok(Some(config))
    }

    /// What is only of use in a cluster is an error without one: it would be forgotten in silence.
    fn alone(&self) -> Result<(), Failure> {
        let set = [
            ("blobs", self.blobs.is_some()),
            ("peer-addr", self.peer_addr.is_some()),
            ("advertise", self.advertise.is_some()),
            (
                "dangerous-plaintext-peers",
                self.dangerous_plaintext_peers.is_some(),
            ),
            ("blob-cache-bytes-max", self.blob_cache_bytes_max.is_some()),
        ];
        match set.into_iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("--{name} is for nodes of a cluster, and none is named");
                let next = "name the cluster's store with --cluster etcd://HOST,HOST";
                Err(Failure::new(Exit::Usage, message).next(next))
            }
        }
    }

    /// Whether nodes talk without TLS. Who has certificates for them does not want that.
    fn plaintext(&self) -> Result<bool, Failure> {
        let plaintext = self.dangerous_plaintext_peers.unwrap_or(false);
        match &self.cluster_dir {
            Some(folder) if plaintext => {
                let message = format!(
                    "--dangerous-plaintext-peers makes no use of the certificates in {}",
                    folder.display()
                );
                let next =
                    "leave it out, so that nodes talk by TLS; or else leave --cluster-dir out";
                Err(Failure::new(Exit::Usage, message).next(next))
            }
            _ => Ok(plaintext),
        }
    }

    fn node_name(&self) -> Result<NodeId, Failure> {
        if let Some(name) = &self.node {
            return Ok(name.clone());
        }
        // Where it is not to be had, it is no name either.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        let label = host.split('.').next().unwrap_or_default();
        label.to_ascii_lowercase().parse().map_err(|_| {
            let message = format!("this machine's name, `{host}`, is no name for a node");
            Failure::new(Exit::Usage, message).next("name the node with --node NAME")
        })
    }

    /// Where the data listener is, on a port of its own.
    fn default_peer(&self) -> SocketAddr {
        let listen = self.listen.map(|address| address.0);
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        SocketAddr::new(listen.ip(), PEER_PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            cluster: Some("etcd://a,b".into()),
            blobs: Some("s3://bucket".into()),
            node: Some("n1".parse().unwrap()),
            ..Settings::default()
        }
    }

    #[test]
    fn a_cluster_needs_blobs_and_the_rest_has_defaults() {
        let config = settings().cluster_config().unwrap().unwrap();
        assert_eq!(config.node.as_str(), "n1");
        assert_eq!(config.peer_addr.to_string(), "127.0.0.1:8082");
        assert_eq!(config.folder, std::path::Path::new(CLUSTER_DIR));
        let without = Settings {
            blobs: None,
            ..settings()
        };
        let failure = without.cluster_config().unwrap_err();
        assert!(failure.to_string().contains("--blobs"), "{failure}");
    }

    #[test]
    fn nodes_listen_for_others_where_they_listen_for_clients() {
        let mut settings = settings();
        settings.listen = Some("10.0.0.7:80".parse().unwrap());
        let config = settings.cluster_config().unwrap().unwrap();
        assert_eq!(config.peer_addr.to_string(), "10.0.0.7:8082");
    }

    #[test]
    fn nodes_talk_without_tls_only_where_that_is_said_and_there_are_no_certificates() {
        let plaintext = |asked, cluster_dir: Option<&str>| {
            let settings = Settings {
                dangerous_plaintext_peers: asked,
                cluster_dir: cluster_dir.map(Into::into),
                ..settings()
            };
            let config = settings.cluster_config();
            config.map(|config| config.unwrap().dangerous_plaintext)
        };
        assert!(!plaintext(None, None).unwrap());
        assert!(!plaintext(Some(false), Some("c")).unwrap());
        assert!(plaintext(Some(true), None).unwrap());
        let failure = plaintext(Some(true), Some("c")).unwrap_err();
        assert!(failure.to_string().contains("certificates"), "{failure}");
    }

    #[test]
    fn without_a_cluster_there_is_none_and_its_flags_are_no_secret() {
        assert!(Settings::default().cluster_config().unwrap().is_none());
        let lost = Settings {
            cluster: None,
            ..settings()
        };
        let failure = lost.cluster_config().unwrap_err();
        assert!(failure.to_string().contains("--cluster"), "{failure}");
    }
}
