//! Stories of nodes that come, go, are cut off and die, on a real store of each kind.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Node, id, report, resource};
use membership::{Claim, Config, MembershipError, Report};
use scheduler::Standing;
use storage::{EtcdConfig, EtcdStore, RedbStore, Store, Txn, TxnOutcome};
use testkit::EtcdCluster;

/// Leases that end while a test waits for it.
fn hasty() -> Config {
    Config {
        lease_ttl: Duration::from_secs(3),
        lease_margin: Duration::from_secs(1),
        renew_every: Duration::from_millis(500),
        retry_after: Duration::from_millis(100),
        request_timeout: Duration::from_secs(1),
        report_every_min: Duration::from_millis(50),
        ..Config::default()
    }
}

fn embedded() -> Arc<dyn Store> {
    Arc::new(RedbStore::in_memory(storage::Config::default()).unwrap())
}

async fn nodes_see_each_other_come_report_and_go(store: Arc<dyn Store>) {
    let (one, two) = (
        Node::start(&store, "one", hasty()),
        Node::start(&store, "two", hasty()),
    );
    let token = one.membership.joined().await.token;
    two.sees(|all| {
        all.peers()
            .get(&id("one"))
            .is_some_and(|peer| peer.token == token)
    })
    .await;
    two.sees(|all| all.view().len() == 2).await;
    let address = two
        .membership
        .look(|all| all.peers()[&id("one")].record.address.clone());
    assert_eq!(address, "one:7000");
    one.membership.report(Report {
        standing: Standing::Draining,
        ..report(7)
    });
    two.sees(|all| all.standing(&id("one")) == Standing::Draining)
        .await;
    assert_eq!(
        two.membership.look(|all| all.preferred(b"any").cloned()),
        Some(id("two"))
    );
    let left = one.leave().await;
    assert_eq!(left.tenure(), None);
    two.sees(|all| all.standing(&id("one")) == Standing::Lost && all.view().len() == 1)
        .await;
    two.leave().await;
}

async fn a_wish_is_seen_by_all_and_outlives_the_node(store: Arc<dyn Store>) {
    let (one, two) = (
        Node::start(&store, "one", hasty()),
        Node::start(&store, "two", hasty()),
    );
    one.membership.joined().await;
    two.membership
        .wish(&id("one"), Some(Standing::Cordoned))
        .await
        .unwrap();
    one.sees(|all| all.standing(&id("one")) == Standing::Cordoned)
        .await;
    one.leave().await;
    two.sees(|all| all.standing(&id("one")) == Standing::Lost)
        .await;
    let again = Node::start(&store, "one", hasty());
    again.membership.joined().await;
    two.sees(|all| all.standing(&id("one")) == Standing::Cordoned)
        .await;
    two.membership.wish(&id("one"), None).await.unwrap();
    two.sees(|all| all.standing(&id("one")) == Standing::Serving)
        .await;
    tokio::join!(again.leave(), two.leave());
}

async fn of_those_who_claim_one_owns_and_the_next_owner_has_a_greater_token(store: Arc<dyn Store>) {
    let mut nodes = Vec::new();
    for name in ["one", "two", "three"] {
        let node = Node::start(&store, name, hasty());
        node.membership.joined().await;
        nodes.push(node);
    }
    for round in 0..10 {
        let resource = resource(&format!("race/{round}"));
        let claims = nodes.iter().map(|node| node.membership.claim(&resource));
        let mut claims = claims.collect::<Vec<_>>().into_iter();
        let (a, b, c) = tokio::join!(
            claims.next().unwrap(),
            claims.next().unwrap(),
            claims.next().unwrap()
        );
        let mut owned = Vec::new();
        for claim in [a, b, c] {
            if let Claim::Mine(ownership) = claim.unwrap() {
                owned.push(ownership);
            }
        }
        assert_eq!(owned.len(), 1, "one owns {resource}");
        let first = owned.remove(0);
        first.check().unwrap();
        let (token, stale) = (first.token(), first.guard(Txn::new().put("data", "old")));
        first.release().await.unwrap();
        let next = nodes[round % 3].owns(resource.as_str()).await;
        assert!(next.token() > token);
        // A write of the first owner that was on its way meanwhile.
        assert_eq!(store.transact(stale).await.unwrap(), TxnOutcome::Conflict);
        let fresh = next.guard(Txn::new().put("data", "new"));
        assert!(store.transact(fresh).await.unwrap().is_committed());
        // Who asks again owns the same.
        let again = nodes[round % 3].owns(resource.as_str()).await;
        assert_eq!(again.token(), next.token());
    }
    for node in nodes {
        node.leave().await;
    }
}

async fn a_node_that_is_cut_off_stops_before_another_takes_over(store: Arc<dyn Store>) {
    let (one, two) = (
        Node::start(&store, "one", hasty()),
        Node::start(&store, "two", hasty()),
    );
    let before = one.membership.joined().await;
    two.membership.joined().await;
    let owned = one.owns("thing").await;
    let held = two.membership.claim(&resource("thing")).await.unwrap();
    assert!(
        matches!(&held, Claim::Theirs(owner) if owner.node == id("one")),
        "{held:?}"
    );
    two.sees(|all| all.owner(&resource("thing")).is_some())
        .await;
    one.reaches_the_store(false);
    two.sees(|all| all.owner(&resource("thing")).is_none())
        .await;
    // The store has let go of it, and the node did so before, by its own clock.
    assert!(matches!(owned.check(), Err(MembershipError::NotMember)));
    let one_now = one.membership.tenure();
    assert_ne!(one_now.map(|tenure| tenure.token), Some(before.token));
    let taken = two.owns("thing").await;
    assert!(taken.token() > owned.token());
    let stale = owned.guard(Txn::new().put("data", "old"));
    assert_eq!(store.transact(stale).await.unwrap(), TxnOutcome::Conflict);
    one.reaches_the_store(true);
    let after = one.membership.joined().await;
    assert!(after.token > before.token);
    assert!(
        owned.check().is_err(),
        "a new tenure owns nothing of the old one's"
    );
    let theirs = one.membership.claim(&resource("thing")).await.unwrap();
    assert!(matches!(theirs, Claim::Theirs(owner) if owner.node == id("two")));
    tokio::join!(one.leave(), two.leave());
}

async fn what_a_dead_node_owned_is_free_once_its_lease_is_over(store: Arc<dyn Store>) {
    let (one, two) = (
        Node::start(&store, "one", hasty()),
        Node::start(&store, "two", hasty()),
    );
    two.membership.joined().await;
    let first = one.membership.joined().await;
    let owned = one.owns("thing").await;
    two.sees(|all| all.owner(&resource("thing")).is_some())
        .await;
    one.crash().await;
    assert!(
        owned.check().is_err(),
        "a service that is gone keeps nobody a member"
    );
    two.sees(|all| all.owner(&resource("thing")).is_none())
        .await;
    let taken = two.owns("thing").await;
    assert!(taken.token() > owned.token());
    // By the same name it waits for its own old record, if that is there still, and comes back.
    let again = Node::start(&store, "one", hasty());
    assert!(again.membership.joined().await.token > first.token);
    tokio::join!(again.leave(), two.leave());
}

async fn all(store: Arc<dyn Store>) {
    nodes_see_each_other_come_report_and_go(store.clone()).await;
    a_wish_is_seen_by_all_and_outlives_the_node(store.clone()).await;
    of_those_who_claim_one_owns_and_the_next_owner_has_a_greater_token(store.clone()).await;
    a_node_that_is_cut_off_stops_before_another_takes_over(store.clone()).await;
    what_a_dead_node_owned_is_free_once_its_lease_is_over(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stories_are_true_on_an_embedded_store() {
    all(embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stories_are_true_on_etcd() {
    let cluster = EtcdCluster::start(3);
    let store = EtcdStore::open(&cluster.address("membership"), EtcdConfig::default()).await;
    all(Arc::new(store.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_etcd_that_dies_costs_no_tenure() {
    let mut cluster = EtcdCluster::start(3);
    let config = EtcdConfig {
        try_timeout: Duration::from_secs(1),
        ..EtcdConfig::default()
    };
    let store = EtcdStore::open(&cluster.address("m"), config)
        .await
        .unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let config = Config {
        lease_ttl: Duration::from_secs(60),
        renew_every: Duration::from_millis(100),
        ..Config::default()
    };
    let one = Node::start(&store, "one", config);
    let before = one.membership.joined().await;
    cluster.kill(0);
    let (mut until, mut tenures) = (before.until, one.membership.tenures());
    for _ in 0..5 {
        // Each prolongation is an answer of the members that are left.
        let prolonged = tenures.wait_for(|tenure| tenure.is_none_or(|now| now.until > until));
        until = prolonged.await.unwrap().expect("it is a member").until;
    }
    assert_eq!(one.membership.tenure().unwrap().token, before.token);
}

#[tokio::test(start_paused = true)]
async fn a_tenure_is_over_at_its_moment_and_the_next_one_waits_for_the_old_record() {
    let store = embedded();
    // The store counts real time, in which this lease does not end.
    let config = Config {
        lease_ttl: Duration::from_secs(3600),
        lease_margin: Duration::from_secs(600),
        renew_every: Duration::from_secs(600),
        ..Config::default()
    };
    let one = Node::start(&store, "one", config);
    let first = one.membership.joined().await;
    let owned = one.owns("thing").await;
    one.reaches_the_store(false);
    let last = Duration::from_millis(1);
    tokio::time::sleep_until(first.until - last).await;
    assert_eq!(
        one.membership.tenure().map(|tenure| tenure.token),
        Some(first.token)
    );
    owned.check().unwrap();
    one.membership.over(first.token).await;
    assert!(tokio::time::Instant::now() >= first.until);
    assert!(owned.check().is_err() && one.membership.tenure().is_none());
    one.reaches_the_store(true);
    let second = one.membership.joined().await;
    assert!(second.token > first.token);
}

#[tokio::test(start_paused = true)]
async fn reports_go_out_at_a_bounded_rate_and_the_newest_of_them() {
    let store = embedded();
    let config = Config {
        report_every_min: Duration::from_secs(1),
        lease_ttl: Duration::from_secs(3600),
        renew_every: Duration::from_secs(600),
        ..Config::default()
    };
    let one = Node::start(&store, "one", config);
    one.membership.joined().await;
    one.sees(|all| all.view().len() == 1).await;
    let mut watch = store.watch(b"cluster/report/", None).await.unwrap();
    let begun = tokio::time::Instant::now();
    for used in 1..=10 {
        one.membership.report(report(used));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    one.sees(|all| all.view().len() == 1 && newest(all) == Some(10))
        .await;
    let seconds = begun.elapsed().as_secs_f64();
    let leave = one.leave();
    leave.await;
    let mut count = 0.0;
    while let Some(storage::WatchItem::Event(event)) = watch.next().await {
        if event.change == storage::Change::Delete {
            break;
        }
        count += 1.0;
    }
    assert!(
        count >= 2.0 && count <= seconds + 1.0,
        "{count} reports in {seconds} s"
    );
}

/// What is used of the one node there is.
fn newest(all: &membership::Roster) -> Option<u32> {
    all.report(&id("one")).map(|report| report.load.used.places)
}
