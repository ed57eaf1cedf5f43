//! Values in the memory of several nodes: what was acknowledged is there while one of these lives.

use std::time::Duration;

use super::world::{World, id, slot};
use super::{bytes, put, swap};
use crate::{AppState, Config, Durability, Key, Op, StateError};

const REPLICATED: Durability = Durability::Replicated;

async fn text(app: &AppState, key: &Key) -> Result<Vec<u8>, StateError> {
    bytes(app, key.as_str()).await
}

/// Keys of many slots, with values.
async fn forty(app: &AppState) -> Vec<Key> {
    let names = (0..40).map(|at| format!("k/{at}").parse().unwrap());
    let names: Vec<Key> = names.collect();
    for key in &names {
        app.run(key, &put(b"kept", REPLICATED)).await.unwrap();
    }
    names
}

/// The node that should have a key's copy.
fn keeper(world: &World, key: &Key) -> String {
    let owner = world.owner(key).unwrap();
    let order = world.net.order(slot(key)).into_iter();
    let mut others = order.filter(|node| node.as_str() != owner);
    others.next().unwrap().to_string()
}

#[tokio::test]
async fn replicated_values_outlive_their_owners_one_after_another() {
    let mut world = World::of(4).await;
    let keys = world.keys_of("b", 6);
    let [a, c, d] = ["a", "c", "d"].map(|node| world.app(node));
    let long: Vec<u8> = (0..3 << 20).map(|at| (at / 7) as u8).collect();
    a.run(&keys[0], &put(&long, REPLICATED)).await.unwrap();
    for key in &keys[1..] {
        c.run(key, &put(b"first", REPLICATED)).await.unwrap();
        let (create, data) = (REPLICATED, &b" and on"[..]);
        d.run(key, &Op::Append { create, data }).await.unwrap();
    }
    // A chunk in the middle, its zeros too, which goes when it is pushed.
    let write = Op::Write {
        create: REPLICATED,
        offset: 1 << 20,
        data: &[0; 70_000],
    };
    a.run(&keys[0], &write).await.unwrap();
    let (offset, length) = (0, u64::MAX);
    a.run(&keys[0], &Op::Push { offset, length }).await.unwrap();
    let mut expected = long.clone();
    expected[1 << 20..(1 << 20) + 70_000].fill(0);
    a.run(
        &keys[1],
        &Op::Truncate {
            create: REPLICATED,
            size: 3,
        },
    )
    .await
    .unwrap();
    a.run(&keys[2], &Op::Delete { expected: None })
        .await
        .unwrap();
    let version = a.info(&keys[3]).await.unwrap().version;
    for node in ["b", "d", "c"] {
        world.kill(node).await;
        world.settle().await;
        let app = &world.apps()[0];
        assert!(text(app, &keys[0]).await.unwrap() == expected);
        assert_eq!(text(app, &keys[1]).await.unwrap(), b"fir");
        let gone = app.info(&keys[2]).await;
        assert!(matches!(gone, Err(StateError::NotFound)), "{gone:?}");
        for key in &keys[3..] {
            assert_eq!(text(app, key).await.unwrap(), b"first and on");
        }
        let info = app.info(&keys[3]).await.unwrap();
        assert_eq!((info.version, info.durability), (version, REPLICATED));
        let last = app.info(&keys[5]).await.unwrap().version;
        app.run(&keys[5], &swap(b"first and on", last))
            .await
            .unwrap();
    }
    let app = &world.apps()[0];
    app.run(&keys[3], &swap(b"anew", version)).await.unwrap();
    assert!(app.info(&keys[3]).await.unwrap().version > version);
}

#[tokio::test]
async fn what_is_lost_with_all_its_copies_is_told() {
    let mut world = World::of(4).await;
    let lost = world.key_of("b");
    let keeper = keeper(&world, &lost);
    let others = world.keys_of("b", 40);
    // Its copies are elsewhere.
    let kept = others
        .iter()
        .find(|key| self::keeper(&world, key) != keeper)
        .unwrap();
    let app = &world.apps()[0];
    app.run(&lost, &put(b"gone", REPLICATED)).await.unwrap();
    app.run(kept, &put(b"kept", REPLICATED)).await.unwrap();
    // Both at once: nobody claims in between.
    world.kill("b").await;
    world.kill(&keeper).await;
    world.settle().await;
    let app = &world.apps()[0];
    for op in [Op::Info, swap(b"x", 0)] {
        let told = app.run(&lost, &op).await;
        assert!(matches!(told, Err(StateError::Lost)), "{told:?}");
    }
    assert_eq!(text(app, kept).await.unwrap(), b"kept");
    // The owner after this one tells it too.
    let next = world.owner(&lost).unwrap();
    world.kill(&next).await;
    world.settle().await;
    let app = &world.apps()[0];
    let told = app.info(&lost).await;
    assert!(matches!(told, Err(StateError::Lost)), "{told:?}");
    app.run(&lost, &put(b"anew", REPLICATED)).await.unwrap();
    assert_eq!(text(app, &lost).await.unwrap(), b"anew");
    assert_eq!(text(app, kept).await.unwrap(), b"kept");
}

#[tokio::test]
async fn a_copy_that_was_left_behind_is_never_a_value_again() {
    let mut world = World::of(2).await;
    let key = world.key_of("b");
    world
        .app("a")
        .run(&key, &put(b"first", REPLICATED))
        .await
        .unwrap();
    // The node with the copy does not hear of what is acknowledged now.
    world.net.cut.lock().insert((id("b"), id("a")));
    world
        .app("b")
        .run(&key, &put(b"second", REPLICATED))
        .await
        .unwrap();
    world.kill("b").await;
    world.settle().await;
    let told = world.app("a").info(&key).await;
    assert!(matches!(told, Err(StateError::Lost)), "{told:?}");
}

#[tokio::test]
async fn a_node_that_comes_back_has_copies_again() {
    let mut world = World::of(2).await;
    let key = world.key_of("b");
    world.net.cut.lock().insert((id("b"), id("a")));
    world
        .app("b")
        .run(&key, &put(b"second", REPLICATED))
        .await
        .unwrap();
    world.net.cut.lock().clear();
    world.settle().await;
    world.kill("b").await;
    world.settle().await;
    assert_eq!(text(&world.app("a"), &key).await.unwrap(), b"second");
}

#[tokio::test]
async fn an_owner_that_was_replaced_acknowledges_nothing_replicated() {
    let world = World::of(3).await;
    let key = world.key_of("b");
    let b = world.app("b");
    b.run(&key, &put(b"first", REPLICATED)).await.unwrap();
    // The others take it for dead; its own clock says that it is not.
    world.lose("b").await;
    world.settle_but("b").await;
    world
        .app("a")
        .run(&key, &put(b"second", REPLICATED))
        .await
        .unwrap();
    let (create, data) = (REPLICATED, &b" third"[..]);
    b.run(&key, &Op::Append { create, data }).await.unwrap();
    for app in world.apps() {
        assert_eq!(text(&app, &key).await.unwrap(), b"second third");
    }
}

#[tokio::test]
async fn a_slot_is_not_given_away_before_another_node_has_its_values() {
    let mut world = World::of(1).await;
    let app = world.app("a");
    let names = forty(&app).await;
    world.join("b");
    world.settle().await;
    let moved = names
        .iter()
        .filter(|key| world.owner(key).as_deref() == Some("b"));
    assert!(moved.count() > 5);
    world.drain("a");
    world.settle().await;
    world.kill("a").await;
    world.settle().await;
    for key in &names {
        assert_eq!(text(&world.app("b"), key).await.unwrap(), b"kept");
    }
}

#[tokio::test]
async fn a_slot_that_is_given_away_outlives_a_new_owner_that_never_opened_it() {
    let mut world = World::of(1).await;
    let app = world.app("a");
    let names = forty(&app).await;
    world.join("b");
    // The one gives up what the other should have, which does not look.
    world.settle_but("b").await;
    assert!(names.iter().any(|key| world.owner(key).is_none()));
    world.kill("b").await;
    world.settle().await;
    for key in &names {
        assert_eq!(text(&app, key).await.unwrap(), b"kept");
    }
}

#[tokio::test]
async fn a_node_without_room_for_a_copy_refuses_the_change() {
    let config = Config {
        node_bytes_max: 1 << 20,
        owner_wait_max: Duration::from_secs(60),
        ..Config::default()
    };
    let world = World::with(2, config).await;
    let full = world.keys_of("a", 1).remove(0);
    let a = world.app("a");
    a.run(&full, &put(&[1; 700_000], Durability::Ephemeral))
        .await
        .unwrap();
    let key = world.key_of("b");
    let b = world.app("b");
    let refused = b.run(&key, &put(&[1; 700_000], REPLICATED)).await;
    assert!(matches!(refused, Err(StateError::Global(_))), "{refused:?}");
    a.run(&full, &Op::Delete { expected: None }).await.unwrap();
    b.run(&key, &put(&[1; 700_000], REPLICATED)).await.unwrap();
}

#[tokio::test]
async fn a_key_may_be_made_anew_as_another_kind() {
    let mut world = World::of(2).await;
    let key = world.key_of("b");
    let app = world.app("a");
    for create in [
        REPLICATED,
        Durability::Durable,
        REPLICATED,
        Durability::Ephemeral,
    ] {
        app.run(&key, &put(b"some", create)).await.unwrap();
        assert_eq!(app.info(&key).await.unwrap().durability, create);
        app.run(&key, &Op::Delete { expected: None }).await.unwrap();
    }
    app.run(&key, &put(b"last", REPLICATED)).await.unwrap();
    world.kill("b").await;
    world.settle().await;
    let info = world.app("a").info(&key).await.unwrap();
    assert_eq!(info.durability, REPLICATED);
    assert_eq!(text(&world.app("a"), &key).await.unwrap(), b"last");
}

#[tokio::test]
async fn on_a_node_that_stands_alone_they_are_in_its_memory() {
    let store = crate::tests::store();
    let global = crate::EmbeddedGlobal::open(store).await.unwrap();
    let state = crate::State::new(std::sync::Arc::new(global), Config::default());
    let app = crate::tests::shop(&state);
    let key = crate::tests::key("a");
    app.run(&key, &put(b"here", REPLICATED)).await.unwrap();
    let (offset, length) = (0, u64::MAX);
    app.run(&key, &Op::Push { offset, length }).await.unwrap();
    assert_eq!(text(&app, &key).await.unwrap(), b"here");
    assert_eq!(app.info(&key).await.unwrap().durability, REPLICATED);
    let done = app.run(&key, &Op::Delete { expected: None }).await.unwrap();
    assert_eq!(done, crate::Done::Was(true));
}
