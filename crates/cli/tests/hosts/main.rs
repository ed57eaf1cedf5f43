//! Stories of clusters on hosts of their own, each with its address: nodes are killed and cut off,
//! etcd and the bucket are lost, links are slow, clocks jump. What counts is what users see.
//!
//! Stories that harm the same thing share a cluster, which each of them leaves as it was. Where no
//! network namespaces can be made they are left out, and say so; with `REQUIRE_NETNS` they fail.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster;
mod links;
mod nodes;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod users;

use cluster::{Cluster, LEASE, LONG_LEASE};

#[test]
fn nodes_are_killed_and_cut_off_and_replaced() {
    let Some(mut cluster) = Cluster::start(LEASE, None) else {
        return;
    };
    nodes::one_is_killed(&mut cluster);
    nodes::one_is_cut_off(&mut cluster);
    nodes::one_does_not_hear_another(&mut cluster);
    nodes::all_are_replaced(&mut cluster);
}

#[test]
fn etcd_and_the_bucket_are_lost_and_come_back() {
    let Some(mut cluster) = Cluster::start(LONG_LEASE, None) else {
        return;
    };
    stores::one_member_of_etcd_is_lost(&mut cluster);
    stores::the_majority_of_etcd_is_lost(&mut cluster);
    stores::the_bucket_is_lost(&mut cluster);
}

#[test]
fn links_are_slow_and_clocks_jump() {
    let Some(mut cluster) = Cluster::start(LEASE, Some((1, links::clock_library()))) else {
        return;
    };
    links::a_link_is_slow(&mut cluster);
    links::a_clock_jumps(&mut cluster);
}
