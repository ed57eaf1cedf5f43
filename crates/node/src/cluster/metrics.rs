//! What the cluster's part of a node counts.

use metrics::{Unit, describe_counter, describe_gauge};

/// When the node's certificate ends.
pub(crate) const CERTIFICATE_END_SECONDS: &str = "dunlin_cluster_certificate_end_seconds";
/// Calls that were run by another node for this one.
pub(crate) const FORWARDED_TOTAL: &str = "dunlin_cluster_forwarded_total";
/// Calls that this node ran for another one.
pub(crate) const SERVED_TOTAL: &str = "dunlin_cluster_served_total";
/// Nodes that are alive.
pub(crate) const NODES: &str = "dunlin_cluster_nodes";

/// Says what they mean, once there is a recorder.
pub(crate) fn describe() {
    describe_gauge!(
        CERTIFICATE_END_SECONDS,
        Unit::Seconds,
        "When the node's certificate ends, in seconds since 1970."
    );
    describe_counter!(
        FORWARDED_TOTAL,
        Unit::Count,
        "Calls that were sent to another node, by how that went."
    );
    describe_counter!(
        SERVED_TOTAL,
        Unit::Count,
        "Calls of other nodes, by whether they were run or why not."
    );
    describe_gauge!(NODES, Unit::Count, "Nodes of the cluster that are alive.");
}
