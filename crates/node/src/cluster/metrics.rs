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
/// Bytes of blobs that this node got from another one or from the bucket.
pub(crate) const FETCHED_BYTES_TOTAL: &str = "dunlin_cluster_fetched_bytes_total";
/// Nodes that were asked for a blob and did not give it.
pub(crate) const FETCH_FAILURES_TOTAL: &str = "dunlin_cluster_fetch_failures_total";
/// Bytes of blobs that this node sent to others.
pub(crate) const SENT_BYTES_TOTAL: &str = "dunlin_cluster_sent_bytes_total";
/// Versions that were to be loaded here for the first time, by what that took.
pub(crate) const FIRST_LOADS_TOTAL: &str = "dunlin_cluster_first_loads_total";
/// Images over which guests began before all of them was here, by how that ended.
pub(crate) const ARRIVALS_TOTAL: &str = "dunlin_cluster_arrivals_total";

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
    describe_counter!(
        FETCHED_BYTES_TOTAL,
        Unit::Bytes,
        "Blobs that came to this node, by whether another node or the bucket gave them."
    );
    describe_counter!(
        FETCH_FAILURES_TOTAL,
        Unit::Count,
        "Nodes that were asked for a blob and did not give it, by why not."
    );
    describe_counter!(
        SENT_BYTES_TOTAL,
        Unit::Bytes,
        "Blobs that this node sent to other nodes."
    );
    describe_counter!(
        FIRST_LOADS_TOTAL,
        Unit::Count,
        "Versions that were loaded here for the first time, by whether what was made of them came \
         from elsewhere or had to be made."
    );
    describe_counter!(
        ARRIVALS_TOTAL,
        Unit::Count,
        "Files of images over which guests began before all of them was here, by whether the rest \
         came or was lost."
    );
}
