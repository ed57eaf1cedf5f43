//! How nodes know each other: by their certificates, or, where an operator insists, not at all.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use transport::{Identity, Security};

use super::{ClusterConfig, certificates};
use crate::NodeError;

/// What the node's connections to others are made with, and its certificate, if it has one.
pub(super) async fn open(
    config: &ClusterConfig,
) -> Result<(Security, Option<Arc<Identity>>), NodeError> {
    let (folder, node) = (config.folder.clone(), config.node.clone());
    if config.dangerous_plaintext {
        tracing::warn!(
            "nodes talk without TLS (dangerous-plaintext-peers): whoever reaches the port for \
             other nodes reads everything, and can do all that a node can"
        );
        return Ok((Security::DangerousPlaintext(node), None));
    }
    let identity = move || Ok(certificates::identity(&folder, &node)?);
    let identity = Arc::new(crate::node::blocking(identity).await?);
    Ok((Security::Mutual(identity.clone()), Some(identity)))
}

/// Refuses addresses at which strangers may reach a node that does not ask who they are.
pub(super) fn check_plaintext(config: &ClusterConfig) -> Result<(), NodeError> {
    let addresses = [Some(config.peer_addr), config.advertise];
    let mut addresses = addresses.into_iter().flatten();
    match addresses.find(|address| config.dangerous_plaintext && !is_private(*address)) {
        Some(address) => Err(NodeError::Plaintext(address)),
        None => Ok(()),
    }
}

/// Whether an address is of this machine alone, or of a network that the internet does not route
/// to. One that stands for all of a machine's addresses is neither.
fn is_private(address: SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer_addr: &str, advertise: Option<&str>, plaintext: bool) -> bool {
        let address = |text: &str| text.parse().unwrap();
        let node = "n1".parse().unwrap();
        let mut config = ClusterConfig::new(node, "etcd://h", "s3://b", address(peer_addr), "c");
        config.advertise = advertise.map(address);
        config.dangerous_plaintext = plaintext;
        check_plaintext(&config).is_ok()
    }

    #[test]
    fn without_tls_nodes_listen_on_private_addresses_only() {
        let private = [
            "127.0.0.1:1",
            "10.77.0.2:1",
            "172.16.0.1:1",
            "192.168.1.1:1",
            "[::1]:1",
            "[fd00::1]:1",
            "[::ffff:10.0.0.1]:1",
        ];
        let open = [
            "0.0.0.0:1",
            "[::]:1",
            "8.8.8.8:1",
            "172.32.0.1:1",
            "[2001:db8::1]:1",
            "[::ffff:8.8.8.8]:1",
        ];
        for address in private {
            assert!(check(address, None, true), "{address}");
            assert!(check("127.0.0.1:1", Some(address), true), "{address}");
        }
        for address in open {
            assert!(!check(address, None, true), "{address}");
            assert!(!check("127.0.0.1:1", Some(address), true), "{address}");
            assert!(check(address, None, false), "{address}: with TLS it may");
        }
    }
}
