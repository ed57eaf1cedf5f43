//! The nodes as operators see them.

use api::v1::{ClusterNode, NodeStanding};
use gateway::NodesError;
use membership::{Membership, Roster};
use model::NodeId;
use scheduler::Standing;

/// Every node that is alive, by name.
pub(super) fn list(membership: &Membership) -> Vec<ClusterNode> {
    let here = membership.id();
    membership.look(|roster| {
        let peers = roster.peers().keys();
        peers.filter_map(|node| view(roster, node, here)).collect()
    })
}

fn view(roster: &Roster, node: &NodeId, here: &NodeId) -> Option<ClusterNode> {
    let peer = roster.peers().get(node)?;
    let load = roster.report(node).map(|report| report.load.clone());
    // A node that has joined has said nothing yet for a moment.
    let load = load.unwrap_or_default();
    Some(ClusterNode {
        name: node.to_string(),
        address: peer.record.address.clone(),
        standing: standing(roster.standing(node)),
        version: peer.record.software.clone(),
        token: peer.token,
        here: node == here,
        running: load.used.places,
        running_max: load.capacity.places,
        queued: load.waiting,
        memory_used_bytes: load.used.memory_bytes,
        memory_bytes: load.capacity.memory_bytes,
        warm_versions: load.warm.len() as u64,
    })
}

fn standing(standing: Standing) -> NodeStanding {
    match standing {
        Standing::Serving => NodeStanding::Serving,
        Standing::Cordoned => NodeStanding::Cordoned,
        Standing::Draining => NodeStanding::Draining,
        Standing::Lost => NodeStanding::Lost,
    }
}

/// Writes down what operators want of a node.
pub(super) async fn want(
    membership: &Membership,
    node: &str,
    standing: NodeStanding,
) -> Result<(), NodesError> {
    let unknown = || NodesError::Unknown(node.chars().take(64).collect());
    let id: NodeId = node.parse().map_err(|_| unknown())?;
    // What is wanted of a node that is gone can be taken back, and nothing else.
    let wanted = match standing {
        NodeStanding::Serving => None,
        NodeStanding::Cordoned => Some(Standing::Cordoned),
        NodeStanding::Draining | NodeStanding::Lost => Some(Standing::Draining),
    };
    let known = membership.look(|roster| {
        roster.peers().contains_key(&id) || (wanted.is_none() && roster.wish(&id).is_some())
    });
    if !known {
        return Err(unknown());
    }
    let wished = membership.wish(&id, wanted).await;
    wished.map_err(|error| NodesError::Store(Box::new(error)))
}
