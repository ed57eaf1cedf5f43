//! Nodes that are lost, that hear nobody, and that are replaced one by one.

use super::cluster::{Cluster, NAMES};
use super::users::User::{Calls, Leaves};

/// `kill -9`: users of the others see at most that a call was lost, and nothing that was accepted
/// is lost, wherever it was accepted.
pub fn one_is_killed(cluster: &mut Cluster) {
    let before = cluster.tokens(0);
    // n1 runs nothing itself; of the others, only n3 does for now.
    cluster.wish("cordon", 0);
    cluster.wish("cordon", 1);
    let long = cluster.call_meanwhile(0, "nap");
    cluster.runs(2, "nap");
    cluster.wish("uncordon", 1);
    let users = [Calls(0), Calls(1), Calls(2), Leaves(0), Leaves(2)];
    let seen = cluster.with_users(&users, |cluster, users| {
        users.more(20);
        cluster.nodes[2].kill();
        let lost = long.recv_timeout(cluster.patience());
        let lost = lost.expect("an answer").unwrap();
        assert_eq!((lost.status, &*lost.code()), (502, "node-lost"), "{lost:?}");
        cluster.sees(0, |nodes| nodes.len() == 2);
        users.turn_page();
        users.more(20);
    });
    for one in seen.iter().filter(|one| one.node() != 2) {
        let was_lost = one.page == 0 && one.is_problem(502, "node-lost");
        assert!(one.is_good() || was_lost, "{one:?}");
    }
    // Users of the dead node see that it is dead, and do not wait for it.
    assert!(!seen.iter().any(|one| one.is_hung()));
    cluster.all_came_to_good(&seen, &[0, 1]);
    cluster.start_again(2);
    cluster.wish("uncordon", 0);
    cluster.sees(1, |nodes| nodes.len() == 3);
    assert!(cluster.tokens(1)[2] > before[2], "a new tenure");
}

/// A node that reaches neither etcd nor the bucket nor the others: it owns nothing any more before
/// they take over, still answers who reaches it, and is one of them again afterwards.
pub fn one_is_cut_off(cluster: &mut Cluster) {
    let before = cluster.tokens(0);
    let nap = cluster.accept(2, "nap", "").unwrap();
    assert_eq!(nap.status, 202, "{nap:?}");
    let nap = nap.json()["id"].as_str().unwrap().to_owned();
    cluster.runs(2, "nap");
    let users = [Calls(0), Calls(1), Calls(2), Leaves(0), Leaves(2)];
    let seen = cluster.with_users(&users, |cluster, users| {
        users.more(10);
        let all = cluster.etcd_hosts.iter().chain(&cluster.hosts[..2]);
        let all: Vec<_> = all.chain([&cluster.bucket_host]).collect();
        cluster.lan.part(&cluster.hosts[2], &all);
        cluster.sees(0, |nodes| nodes.len() == 2);
        // From here on another node may run what this one owned.
        assert_eq!(cluster.running(2, "nap"), 0);
        let refused = cluster.accept(2, "echo", "").unwrap();
        let answer = (refused.status, refused.code());
        assert_eq!((answer.0, &*answer.1), (503, "no-node"), "{refused:?}");
        let ended = cluster.outcome(1, &nap);
        assert_eq!(ended["state"], "succeeded", "{ended}");
        assert_eq!(ended["attempts"], 2, "{ended}");
        users.more(10);
        cluster.lan.heal(&cluster.hosts[2], &all);
        for node in 0..NAMES.len() {
            cluster.sees(node, |nodes| nodes.len() == 3);
        }
        cluster.accepts(2);
        users.turn_page();
        users.more(10);
    });
    for one in &seen {
        // Whoever leaves a call with the node is told in time that it can accept none.
        let is_told = one.is_problem(503, "no-node") || one.is_problem(503, "store-unavailable");
        let may_fail = one.page == 0 && one.node() == 2 && one.is_left();
        assert!(one.is_good() || (may_fail && is_told), "{one:?}");
    }
    cluster.all_came_to_good(&seen, &[0, 1, 2]);
    assert_eq!(cluster.outcome(2, &nap)["attempts"], 2);
    assert_eq!(cluster.result(2, &nap), "slept");
    let after = cluster.tokens(0);
    assert_eq!(before[..2], after[..2], "the others noticed nothing");
    assert!(after[2] > before[2], "a new tenure");
}

/// n2 hears nothing of n1, and everybody else hears everybody: users of n1 get their answers.
pub fn one_does_not_hear_another(cluster: &mut Cluster) {
    let before = cluster.tokens(2);
    // What comes to n1 runs on n2 or n3.
    cluster.wish("cordon", 0);
    let users = [Calls(0), Calls(1), Calls(2)];
    let seen = cluster.with_users(&users, |cluster, users| {
        users.more(20);
        cluster.lan.cut(&cluster.hosts[0], &cluster.hosts[1]);
        // Calls that are under way there are lost; the next ones go elsewhere.
        users.more(50);
        cluster.lan.heal(&cluster.hosts[0], &[&cluster.hosts[1]]);
        users.turn_page();
        users.more(20);
    });
    for one in &seen {
        let was_lost = one.node() == 0 && one.is_problem(502, "node-lost");
        assert!(one.is_good() || was_lost, "{one:?}");
    }
    let good = seen.iter().filter(|one| one.node() == 0 && one.is_good());
    assert!(good.count() > 50);
    assert_eq!(cluster.tokens(2), before, "nobody left");
    cluster.wish("uncordon", 0);
}

/// Every node is replaced, one after the other, under load: no call fails.
pub fn all_are_replaced(cluster: &mut Cluster) {
    for node in 0..NAMES.len() {
        let others: Vec<_> = (0..NAMES.len()).filter(|other| *other != node).collect();
        let (one, two) = (others[0], others[1]);
        // Half of what the others take runs on the node that is to go.
        cluster.wish("cordon", one);
        let users = [Calls(one), Calls(two), Leaves(one), Leaves(two)];
        let seen = cluster.with_users(&users, |cluster, users| {
            let last = cluster.call_meanwhile(node, "doze");
            cluster.runs(node, "doze");
            users.more(10);
            assert!(cluster.nodes[node].stop().success(), "all was finished");
            let last = last.recv_timeout(cluster.patience());
            let last = last.expect("an answer").unwrap();
            assert_eq!((last.status, &*last.body), (200, "slept"));
            users.more(10);
            cluster.start_again(node);
            cluster.sees(one, |nodes| nodes.len() == 3);
            users.more(10);
        });
        let failed: Vec<_> = seen.iter().filter(|one| !one.is_good()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        cluster.all_came_to_good(&seen, &others);
        cluster.wish("uncordon", one);
    }
}
