//! Links that are slow and lose packets, and clocks that jump.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::cluster::Cluster;
use super::support::guests::sleeps;
use super::users::User::{Calls, Leaves};

/// Everything that n2 says and hears goes at 1 Mbit/s, and some of it is lost: calls that run there
/// are right, deadlines hold, and it stays a member.
pub fn a_link_is_slow(cluster: &mut Cluster) {
    let before = cluster.tokens(0);
    cluster.deploy_with("late", &sleeps(60_000), &["--limit", "deadline_ms=1000"]);
    // All that comes to the others runs on n2.
    cluster.wish("cordon", 0);
    cluster.wish("cordon", 2);
    let ran = cluster.call(0, "late", "").unwrap();
    assert_eq!((ran.status, &*ran.code()), (504, "function-timeout"));
    cluster.hosts[1].slow(1_000).unwrap();
    let users = [Calls(0), Calls(1), Leaves(1), Leaves(2)];
    let seen = cluster.with_users(&users, |cluster, users| {
        let large = "0123456789".repeat(8_000);
        let echoed = cluster.call(0, "echo", &large).unwrap();
        assert_eq!(echoed.headers["dunlin-node"], "n2", "{echoed:?}");
        assert!(echoed.status == 200 && echoed.body == large);
        let late = cluster.call(2, "late", "").unwrap();
        assert_eq!((late.status, &*late.code()), (504, "function-timeout"));
        assert_eq!(late.headers["dunlin-node"], "n2", "{late:?}");
        users.more(10);
        for host in [&cluster.hosts[0], &cluster.hosts[2]] {
            cluster.lan.lossy(host, &cluster.hosts[1], 50);
            cluster.lan.lossy(&cluster.hosts[1], host, 50);
        }
        users.more(10);
    });
    let failed: Vec<_> = seen.iter().filter(|one| !one.is_good()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let others = [&cluster.hosts[0], &cluster.hosts[2]];
    cluster.lan.heal(&cluster.hosts[1], &others);
    cluster.hosts[1].quick().unwrap();
    cluster.all_came_to_good(&seen, &[0, 1, 2]);
    assert_eq!(cluster.tokens(0), before, "nobody left");
    cluster.wish("uncordon", 0);
    cluster.wish("uncordon", 2);
}

/// The date of n2 jumps ahead by an hour, and back by two: leases go on, every call is answered,
/// and what n2 accepted ends once, also when others take it over.
pub fn a_clock_jumps(cluster: &mut Cluster) {
    let before = cluster.tokens(0);
    let users = [Calls(0), Calls(1), Calls(2), Leaves(0), Leaves(1)];
    let seen = cluster.with_users(&users, |cluster, users| {
        users.more(10);
        for (step, offset_ms) in [("+3600s", 3_600_000), ("-3600s", -3_600_000)] {
            cluster.step_clock(step);
            assert!((off_by_ms(cluster) - offset_ms).abs() < 600_000, "{step}");
            users.more(20);
        }
        cluster.step_clock("+0s");
        users.more(10);
    });
    let failed: Vec<_> = seen.iter().filter(|one| !one.is_good()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    cluster.all_came_to_good(&seen, &[0, 1, 2]);
    assert_eq!(cluster.tokens(0), before, "nobody left");
    // It dies an hour ahead of the others, who do not wait for that hour.
    cluster.step_clock("+3600s");
    let left: Vec<_> = (0..3)
        .map(|_| cluster.accept(1, "nap", "").unwrap().json()["id"].clone())
        .collect();
    cluster.runs(1, "nap");
    cluster.nodes[1].kill();
    for id in &left {
        let ended = cluster.outcome(0, id.as_str().unwrap());
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    cluster.step_clock("+0s");
    cluster.start_again(1);
    cluster.sees(0, |nodes| nodes.len() == 3);
}

/// How far the clock of n2 is ahead, by when it says that it accepted a call.
fn off_by_ms(cluster: &Cluster) -> i64 {
    let accepted = cluster.accept(1, "echo", "").unwrap().json();
    let id = accepted["id"].as_str().unwrap();
    let told = cluster.outcome(0, id)["accepted_unix_ms"].as_i64().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    told - i64::try_from(now.as_millis()).unwrap()
}

/// The library that gives a program a date of its own: Debian's libfaketime.
pub fn clock_library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let mut there = files.filter(|file| file.is_file());
    let file = there.next();
    file.expect("libfaketime, which ./x test installs from Debian")
}
