//! What is left of a node's values when it is gone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::world::{World, id, slot};
use super::{bytes, put, swap};
use crate::tests::key;
use crate::{AppState, Durability, Key, Op, Open, Put, StateError};

async fn text(app: &AppState, key: &Key) -> Result<Vec<u8>, StateError> {
    bytes(app, key.as_str()).await
}

/// A node that has lost its only neighbour, and a key whose value went with that.
async fn one_is_lost() -> (World, Key) {
    let mut world = World::of(2).await;
    let lost = world.key_of("b");
    let put = put(b"gone", Durability::Ephemeral);
    world.app("a").run(&lost, &put).await.unwrap();
    world.kill("b").await;
    world.settle().await;
    (world, lost)
}

#[tokio::test]
async fn durable_values_outlive_their_owner() {
    let mut world = World::of(3).await;
    let keys = world.keys_of("b", 8);
    let large = vec![9u8; 3 << 20];
    let mut versions = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let app = &world.apps()[number % 3];
        let data = if number == 0 { &large[..] } else { b"kept" };
        app.run(key, &put(data, Durability::Durable)).await.unwrap();
        versions.push(app.info(key).await.unwrap().version);
    }
    world
        .app("a")
        .run(&keys[7], &Op::Delete { expected: None })
        .await
        .unwrap();
    world.kill("b").await;
    world.settle().await;
    assert_eq!(text(&world.app("c"), &keys[0]).await.unwrap(), large);
    for (key, version) in keys[1..7].iter().zip(&versions[1..]) {
        let (a, c) = (world.app("a"), world.app("c"));
        assert_eq!(text(&a, key).await.unwrap(), b"kept");
        assert_eq!(c.info(key).await.unwrap().version, *version);
        a.run(key, &swap(b"anew", *version)).await.unwrap();
        assert!(c.info(key).await.unwrap().version > *version);
    }
    let gone = world.app("a").info(&keys[7]).await;
    assert!(matches!(gone, Err(StateError::NotFound)), "{gone:?}");
    let app = world.app("a");
    app.run(&keys[7], &put(b"again", Durability::Durable))
        .await
        .unwrap();
    assert!(app.info(&keys[7]).await.unwrap().version > versions[7]);
}

#[tokio::test]
async fn the_loss_of_values_in_memory_is_told_until_they_are_made_anew() {
    let mut world = World::of(3).await;
    let lost = world.key_of("b");
    let app = world.app("a");
    app.run(&lost, &put(b"gone", Durability::Ephemeral))
        .await
        .unwrap();
    let old = app.info(&lost).await.unwrap().version;
    // Of this slot nothing is only in memory.
    let other = world.keys_of("b", 20);
    let other = other.iter().find(|key| slot(key) != slot(&lost)).unwrap();
    app.run(other, &put(b"kept", Durability::Durable))
        .await
        .unwrap();
    world.kill("b").await;
    world.settle().await;

    let create = Durability::Ephemeral;
    let refused = [
        Op::Info,
        Op::Read {
            offset: 0,
            length: 1,
            version: 0,
        },
        Op::Append { create, data: b"x" },
        Op::Add {
            create,
            offset: 0,
            amount: 1,
        },
        swap(b"x", 0),
        swap(b"x", old),
        Op::Delete {
            expected: Some(old),
        },
    ];
    for op in refused {
        let done = world.app("c").run(&lost, &op).await;
        assert!(matches!(done, Err(StateError::Lost)), "{op:?}: {done:?}");
    }
    app.run(&lost, &put(b"anew", create)).await.unwrap();
    assert_eq!(text(&world.app("c"), &lost).await.unwrap(), b"anew");
    assert!(app.info(&lost).await.unwrap().version > old);
    // What is removed now is known to be gone.
    app.run(&lost, &Op::Delete { expected: None })
        .await
        .unwrap();
    let gone = app.info(&lost).await;
    assert!(matches!(gone, Err(StateError::NotFound)), "{gone:?}");
    assert_eq!(text(&app, other).await.unwrap(), b"kept");
}

#[tokio::test]
async fn removing_a_lost_value_tells_its_loss_once() {
    let (world, lost) = one_is_lost().await;
    let app = world.app("a");
    let delete = Op::Delete { expected: None };
    let told = app.run(&lost, &delete).await;
    assert!(matches!(told, Err(StateError::Lost)), "{told:?}");
    let gone = app.run(&lost, &Op::Info).await;
    assert!(matches!(gone, Err(StateError::NotFound)), "{gone:?}");
}

#[tokio::test]
async fn a_loss_is_told_by_the_next_owner_too() {
    let mut world = World::of(4).await;
    let lost = world.key_of("b");
    let put = put(b"gone", Durability::Ephemeral);
    world.app("a").run(&lost, &put).await.unwrap();
    world.kill("b").await;
    world.settle().await;
    let next = world.owner(&lost).unwrap();
    world.kill(&next).await;
    world.settle().await;
    let told = world.apps()[0].info(&lost).await;
    assert!(matches!(told, Err(StateError::Lost)), "{told:?}");
}

#[tokio::test]
async fn a_change_that_fails_begins_nothing_anew() {
    let (world, lost) = one_is_lost().await;
    let app = world.app("a");
    let too_long = Op::Put {
        create: Some(Durability::Ephemeral),
        put: Put {
            expected: None,
            ttl: Some(Duration::MAX),
        },
        data: b"anew"[..].into(),
    };
    let refused = app.run(&lost, &too_long).await;
    assert!(
        matches!(refused, Err(StateError::Ttl { .. })),
        "{refused:?}"
    );
    let told = app.info(&lost).await;
    assert!(matches!(told, Err(StateError::Lost)), "{told:?}");
}

#[tokio::test]
async fn who_is_no_owner_any_more_does_not_say_that_there_is_nothing() {
    let world = World::of(2).await;
    let app = world.app("b");
    let keys = world.keys_of("b", 2);
    let kinds = [Durability::Durable, Durability::Ephemeral];
    let mut held = Vec::new();
    for (key, durability) in keys.iter().zip(kinds) {
        app.run(key, &put(b"there", durability)).await.unwrap();
        let tier = app.0.core.node.tier.as_ref().unwrap();
        held.push(tier.slots.open(slot(key)).unwrap());
    }
    world.end("b");
    for (key, holding) in keys.iter().zip(&held) {
        let found = app.value_of(key, Open::default(), Some(holding)).await;
        assert!(matches!(found, Err(StateError::Elsewhere)), "{found:?}");
    }
}

#[tokio::test]
async fn a_slot_whose_release_nobody_heard_is_given_up_again() {
    let mut world = World::of(1).await;
    world.join("b");
    let release = |is_lost| (world.net.is_deaf_to_releases).store(is_lost, Ordering::Relaxed);
    release(true);
    world.settle().await;
    let mut moves = world.keys_of("a", 40).into_iter();
    let moves = moves.find(|key| world.net.preferred(slot(key)) == Some(id("b")));
    let moves = moves.expect("one of 40 keys should be the other's");
    release(false);
    world.settle().await;
    assert_eq!(
        world.owner(&moves).as_deref(),
        Some("a"),
        "one may still hear"
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.settle().await;
    assert_eq!(world.owner(&moves).as_deref(), Some("b"));
    let app = world.app("a");
    app.run(&moves, &put(b"used", Durability::Ephemeral))
        .await
        .unwrap();
}

#[tokio::test]
async fn apps_and_slots_that_lost_nothing_are_told_nothing() {
    let mut world = World::of(2).await;
    let lost = world.key_of("b");
    let app = world.app("a");
    app.run(&lost, &put(b"gone", Durability::Ephemeral))
        .await
        .unwrap();
    let locked = world.keys_of("b", 30);
    let locked = locked.iter().find(|key| slot(key) != slot(&lost)).unwrap();
    app.run(locked, &super::lock(1, super::SECOND))
        .await
        .unwrap();
    world.kill("b").await;
    world.settle().await;
    let never = app.info(locked).await;
    assert!(matches!(never, Err(StateError::NotFound)), "{never:?}");
    let blog = world.states()[0].app(&"blog".parse().unwrap());
    let never = blog.info(&lost).await;
    assert!(matches!(never, Err(StateError::NotFound)), "{never:?}");
}

#[tokio::test]
async fn a_slot_moves_when_nothing_is_lost_by_it_and_a_draining_node_gives_all() {
    let mut world = World::of(2).await;
    let mut kept = Vec::new();
    for number in 0..60 {
        let (name, create) = (key(&format!("k/{number}")), Durability::Durable);
        let create = if number % 4 == 0 {
            Durability::Ephemeral
        } else {
            create
        };
        world
            .app("a")
            .run(&name, &put(b"kept", create))
            .await
            .unwrap();
        let unpushed = Op::Write {
            create,
            offset: 4,
            data: b"!",
        };
        world.app("b").run(&name, &unpushed).await.unwrap();
        kept.push((name, create));
    }
    world.join("c");
    world.settle().await;
    let moved = kept
        .iter()
        .filter(|(name, _)| world.owner(name).as_deref() == Some("c"));
    let moved: Vec<_> = moved.collect();
    assert!(moved.len() > 5);
    assert!(
        moved
            .iter()
            .all(|(_, create)| *create == Durability::Durable)
    );
    for (name, _) in &kept {
        assert_eq!(text(&world.app("c"), name).await.unwrap(), b"kept!");
    }
    world.drain("a");
    world.settle().await;
    assert!(
        kept.iter()
            .all(|(name, _)| world.owner(name).as_deref() != Some("a"))
    );
    for (name, create) in &kept {
        match text(&world.app("a"), name).await {
            Ok(found) => assert_eq!(found, b"kept!"),
            Err(StateError::Lost) => assert_eq!(*create, Durability::Ephemeral),
            Err(error) => panic!("{error}"),
        }
    }
}
