//! Mappings on nodes that do not own what is mapped.

use memory::Access;

use super::world::World;
use super::{bytes, put};
use crate::global::CHUNK_BYTES;
use crate::{AppState, Durability, Key, Op, Span, StateError};

const C: usize = CHUNK_BYTES;
const KEPT: Durability = Durability::Durable;

async fn map(app: &AppState, key: &Key, bytes: usize) -> Span {
    let mirror = app.mirror(key);
    let span = mirror.map_span(0, bytes as u64, Access::Write).await;
    span.unwrap()
}

fn byte(span: &Span, at: usize) -> u8 {
    let mut byte = [0];
    span.region.read(at, &mut byte).unwrap();
    byte[0]
}

async fn push(app: &AppState, key: &Key) -> Result<u64, StateError> {
    app.mirror(key).push(0, u64::MAX, KEPT).await
}

#[tokio::test]
async fn what_two_nodes_wrote_into_different_chunks_counts_both() {
    let world = World::of(3).await;
    let key = world.key_of("b");
    let (a, b, c) = (world.app("a"), world.app("b"), world.app("c"));
    let long = vec![7; 200 * C + 9];
    b.run(&key, &put(&long, KEPT)).await.unwrap();
    let (here, there) = (
        map(&a, &key, long.len()).await,
        map(&c, &key, long.len()).await,
    );
    assert_eq!((byte(&here, 150 * C), byte(&there, long.len() - 1)), (7, 7));
    here.region.write(3 * C + 1, b"a").unwrap();
    there.region.write(200 * C + 8, b"c").unwrap();
    let before = b.info(&key).await.unwrap().version;
    let first = push(&a, &key).await.unwrap();
    let second = push(&c, &key).await.unwrap();
    assert!(before < first && first < second);
    let mut expected = long.clone();
    (expected[3 * C + 1], expected[200 * C + 8]) = (b'a', b'c');
    assert!(bytes(&b, key.as_str()).await.unwrap() == expected);
    // Nothing is left to be pushed, and a pull brings the other's.
    assert_eq!(push(&c, &key).await.unwrap(), second);
    assert_eq!(byte(&here, 200 * C + 8), 7);
    assert_eq!(a.mirror(&key).pull(0, u64::MAX).await.unwrap(), second);
    assert_eq!(
        (byte(&here, 200 * C + 8), byte(&here, 3 * C + 1)),
        (b'c', b'a')
    );
}

#[tokio::test]
async fn a_value_that_is_made_by_mapping_it_is_made_by_its_push() {
    let mut world = World::of(2).await;
    let key = world.key_of("b");
    let a = world.app("a");
    let unread = a.mirror(&key).map_span(0, 1, Access::Read).await;
    assert!(matches!(unread, Err(StateError::NotFound)), "{unread:?}");
    let span = map(&a, &key, 2 * C + 5).await;
    span.region.write(C, b"x").unwrap();
    assert!(matches!(a.info(&key).await, Err(StateError::NotFound)));
    push(&a, &key).await.unwrap();
    let mut expected = vec![0; 2 * C + 5];
    expected[C] = b'x';
    assert!(bytes(&a, key.as_str()).await.unwrap() == expected);
    world.kill("b").await;
    world.settle().await;
    // The mapping is of the value still, which is this node's now.
    span.region.write(C, b"y").unwrap();
    push(&a, &key).await.unwrap();
    expected[C] = b'y';
    assert!(bytes(&a, key.as_str()).await.unwrap() == expected);
}

#[tokio::test]
async fn a_value_that_became_shorter_or_was_removed_is_so_when_it_is_mapped_again() {
    let world = World::of(2).await;
    let key = world.key_of("b");
    let (a, b) = (world.app("a"), world.app("b"));
    b.run(&key, &put(&[7; 3 * C], KEPT)).await.unwrap();
    drop(map(&a, &key, 3 * C).await);
    b.run(&key, &put(&[8; C], KEPT)).await.unwrap();
    let outside = a.mirror(&key).map_span(0, 2 * C as u64, Access::Read).await;
    assert!(
        matches!(outside, Err(StateError::Outside { .. })),
        "{outside:?}"
    );
    let span = a
        .mirror(&key)
        .map_span(0, C as u64, Access::Read)
        .await
        .unwrap();
    assert_eq!(byte(&span, 5), 8);
    // Longer again, the bytes behind are the new ones.
    b.run(
        &key,
        &Op::Truncate {
            create: KEPT,
            size: 3 * C as u64,
        },
    )
    .await
    .unwrap();
    let span = map(&a, &key, 3 * C).await;
    assert_eq!((byte(&span, 5), byte(&span, 2 * C)), (8, 0));
    b.run(&key, &Op::Delete { expected: None }).await.unwrap();
    let gone = a.mirror(&key).map_span(0, 1, Access::Read).await;
    assert!(matches!(gone, Err(StateError::NotFound)), "{gone:?}");
}

#[tokio::test]
async fn copies_that_nobody_maps_are_given_back() {
    let world = World::of(2).await;
    let key = world.key_of("b");
    let a = world.app("a");
    let span = map(&a, &key, 3 * C).await;
    a.forget_mirrors();
    assert!(a.bytes() >= 3 * C);
    drop(span);
    a.forget_mirrors();
    assert_eq!(a.bytes(), 0);
}

#[tokio::test]
async fn a_slot_stays_while_guests_have_a_value_of_it_mapped() {
    let mut world = World::of(1).await;
    let app = world.app("a");
    let mut spans = Vec::new();
    for at in 0..40 {
        let key: Key = format!("k/{at}").parse().unwrap();
        app.run(&key, &put(&[1; 9000], KEPT)).await.unwrap();
        let value = app.value(&key, crate::Open::default()).await.unwrap();
        let span = value.map_span(0, 9000, Access::Write, false).await.unwrap();
        spans.push((key, value, span));
    }
    world.join("b");
    world.settle().await;
    for (key, value, span) in &spans {
        assert_eq!(world.owner(key).as_deref(), Some("a"));
        span.region.write(8999, b"2").unwrap();
        value.push(0, u64::MAX).await.unwrap();
    }
    let keys: Vec<_> = spans.into_iter().map(|(key, ..)| key).collect();
    world.settle().await;
    let moved = keys
        .iter()
        .filter(|key| world.owner(key).as_deref() == Some("b"));
    assert!(moved.count() > 5, "they move once nobody maps them");
    for key in &keys {
        assert_eq!(bytes(&app, key.as_str()).await.unwrap()[8998..], [1, b'2']);
    }
}
