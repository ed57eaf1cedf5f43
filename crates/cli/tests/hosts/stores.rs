//! What the nodes stand on is lost, in part or as a whole, and comes back.

use super::cluster::{Cluster, NAMES, SEEN_MAX};
use super::support::guests::TELL;
use super::users::Seen;
use super::users::User::{Calls, Leaves};

/// The member of etcd that leads is killed: nobody notices, but for what it had in hand.
pub fn one_member_of_etcd_is_lost(cluster: &mut Cluster) {
    let before = cluster.tokens(0);
    let users = [
        Calls(0),
        Calls(1),
        Calls(2),
        Leaves(0),
        Leaves(1),
        Leaves(2),
    ];
    let seen = cluster.with_users(&users, |cluster, users| {
        users.more(10);
        let leader = cluster.etcd.leader();
        cluster.etcd.kill(leader);
        users.more(20);
        cluster.etcd.restart(leader);
        cluster.etcd.wait_ready(leader);
        users.more(10);
    });
    // What the dead leader had in hand may be told to come again; nobody else notices.
    let is_told = |one: &Seen| one.is_left() && one.is_problem(503, "store-unavailable");
    let failed = seen.iter().filter(|one| !one.is_good() && !is_told(one));
    let failed: Vec<_> = failed.collect();
    assert!(failed.is_empty(), "{failed:?}");
    cluster.all_came_to_good(&seen, &[0, 1, 2]);
    assert_eq!(cluster.tokens(0), before, "nobody left");
}

/// Two of three members of etcd are killed: calls go on; what must be remembered fails, and says
/// so; all is well once they are back.
pub fn the_majority_of_etcd_is_lost(cluster: &mut Cluster) {
    let before = cluster.tokens(0);
    let users = [Calls(0), Calls(1), Calls(2), Leaves(0), Leaves(2)];
    let seen = cluster.with_users(&users, |cluster, users| {
        users.more(10);
        users.turn_page();
        // What began on the page before has ended.
        users.more(1);
        cluster.etcd.kill(0);
        cluster.etcd.kill(1);
        users.turn_page();
        users.more(10);
        let refused = cluster.nodes[0].deploy("tell", TELL, &["--kind", "command"]);
        assert_ne!(refused.code, 0);
        assert!(!refused.stderr.is_empty());
        users.more(10);
        users.turn_page();
        users.more(1);
        for member in [0, 1] {
            cluster.etcd.restart(member);
        }
        for member in [0, 1] {
            cluster.etcd.wait_ready(member);
        }
        // Each joins anew, and takes what is left to it again.
        for node in 0..NAMES.len() {
            cluster.until(|| {
                let now = cluster.tokens(node);
                let mut pairs = now.iter().zip(&before);
                now.len() == 3 && pairs.all(|(now, before)| now > before)
            });
            cluster.accepts(node);
        }
        users.turn_page();
        users.more(10);
    });
    for one in seen.iter().filter(|one| !one.is_left()) {
        assert!(one.is_good(), "{one:?}");
    }
    for one in seen.iter().filter(|one| one.is_left()) {
        // Who leaves a call is told, in time, that nobody can remember it.
        let is_told = one.is_problem(503, "store-unavailable") || one.is_problem(503, "no-node");
        let is_as_it_must_be = match one.page {
            0 | 4 => one.is_good(),
            2 => is_told,
            _ => one.is_good() || is_told,
        };
        assert!(is_as_it_must_be, "{one:?}");
    }
    cluster.all_came_to_good(&seen, &[0, 1, 2]);
    cluster.deploy("tell", TELL);
}

/// The bucket is killed: what nodes have goes on; what is new fails, and says so.
pub fn the_bucket_is_lost(cluster: &mut Cluster) {
    let large = "x".repeat(300_000);
    // An artifact that no node has yet.
    let late = TELL.replacen("(module", r#"(module (data (i32.const 131000) "late")"#, 1);
    let users = [Calls(0), Calls(1), Calls(2), Leaves(0)];
    let seen = cluster.with_users(&users, |cluster, users| {
        users.more(5);
        cluster.bucket.kill();
        users.more(10);
        let refused = cluster.nodes[0].deploy("late", &late, &["--kind", "command"]);
        assert_ne!(refused.code, 0);
        assert!(!refused.stderr.is_empty());
        let unkept = cluster.accept_within(SEEN_MAX, 1, "echo", &large).unwrap();
        assert_eq!((unkept.status, &*unkept.code()), (503, "store-unavailable"));
        users.more(10);
        cluster.bucket.restart();
        users.more(5);
    });
    let failed: Vec<_> = seen.iter().filter(|one| !one.is_good()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    cluster.all_came_to_good(&seen, &[0, 1, 2]);
    cluster.deploy("late", &late);
    for node in 0..NAMES.len() {
        assert_eq!(cluster.call(node, "late", "").unwrap().status, 200);
    }
    let kept = cluster.accept(1, "echo", &large).unwrap();
    assert_eq!(kept.status, 202, "{kept:?}");
    let id = kept.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(cluster.outcome(2, &id)["state"], "succeeded");
    assert_eq!(cluster.result(2, &id), large);
}
