//! Bounds of values, apps and the node.

use std::time::Duration;

use memory::{Access, REGION_UNIT_BYTES};

use super::{DURABLE, EPHEMERAL, app_with, key, node, shop, store};
use crate::{Config, Quota, StateError};

const UNIT: usize = REGION_UNIT_BYTES;

fn full(quota: Quota) -> impl Fn(&StateError) -> bool {
    move |error| matches!(error, StateError::Full { quota: found, .. } if *found == quota)
}

#[tokio::test]
async fn a_value_has_a_longest_size() {
    let config = Config {
        value_bytes_max: 100_000,
        ..Config::default()
    };
    let value = app_with(config)
        .await
        .value(&key("a"), EPHEMERAL)
        .await
        .unwrap();
    value.set(&vec![1; 100_000]).await.unwrap();
    let too_large = |error| matches!(error, StateError::TooLarge { .. });
    assert!(too_large(value.append(b"x").await.unwrap_err()));
    assert!(too_large(value.set(&vec![1; 100_001]).await.unwrap_err()));
    assert!(too_large(value.truncate(u64::MAX).await.unwrap_err()));
    assert!(too_large(value.write(u64::MAX, b"x").await.unwrap_err()));
    let mapped = value.map_span(99_999, 2, Access::Write, true).await;
    assert!(too_large(mapped.unwrap_err()));
    for offset in [u64::MAX, u64::MAX - 2, u64::MAX - UNIT as u64] {
        let mapped = value.map_span(offset, 2, Access::Write, true).await;
        assert!(mapped.is_err(), "{offset}");
    }
    assert_eq!(value.get(100_000).await.unwrap().0, vec![1; 100_000]);
}

#[tokio::test]
async fn an_app_and_the_node_hold_so_many_bytes() {
    let config = Config {
        app_bytes_max: 3 * UNIT,
        node_bytes_max: 4 * UNIT,
        ..Config::default()
    };
    let state = node(&store(), config).await;
    let other = state.app(&"other".parse().unwrap());
    let first = shop(&state).value(&key("a"), EPHEMERAL).await.unwrap();
    let second = shop(&state).value(&key("b"), EPHEMERAL).await.unwrap();
    first.set(&vec![1; 2 * UNIT]).await.unwrap();
    second.set(&vec![1; UNIT]).await.unwrap();
    assert_eq!(shop(&state).bytes(), 3 * UNIT);
    assert!(full(Quota::AppBytes)(
        &first.append(b"x").await.unwrap_err()
    ));
    let value = other.value(&key("a"), EPHEMERAL).await.unwrap();
    let refused = value.set(&vec![1; UNIT + 1]).await.unwrap_err();
    assert!(full(Quota::NodeBytes)(&refused));
    value.set(&vec![1; UNIT]).await.unwrap();
    first.delete().await.unwrap();
    assert_eq!(state.bytes(), 2 * UNIT);
    second.append(b"x").await.unwrap();
    assert_eq!(state.bytes(), 3 * UNIT);
}

#[tokio::test]
async fn small_values_cost_their_size_until_they_are_mapped() {
    let config = Config {
        node_regions_max: 1,
        ..Config::default()
    };
    let app = app_with(config).await;
    let first = app.value(&key("a"), EPHEMERAL).await.unwrap();
    let second = app.value(&key("b"), EPHEMERAL).await.unwrap();
    first.set(&[1; 100]).await.unwrap();
    second.set(&[1; 100]).await.unwrap();
    assert_eq!(app.bytes(), 200);
    let held = first.region().await.unwrap();
    assert_eq!(app.bytes(), 100 + UNIT);
    assert!(full(Quota::NodeRegions)(
        &second.region().await.unwrap_err()
    ));
    first.set(&[2; 100]).await.unwrap();
    assert_eq!(app.bytes(), 100 + UNIT, "who maps it sees the new bytes");
    drop(held);
    first.set(&[3; 100]).await.unwrap();
    assert_eq!(app.bytes(), 200);
    second.region().await.unwrap();
}

#[tokio::test]
async fn an_app_has_so_many_keys_and_forgets_those_without_values() {
    let config = Config {
        app_keys_max: 2,
        ..Config::default()
    };
    let state = node(&store(), config).await;
    let app = shop(&state);
    let value = app.value(&key("a"), EPHEMERAL).await.unwrap();
    value.set(b"x").await.unwrap();
    let empty = app.value(&key("b"), EPHEMERAL).await.unwrap();
    let third = app.value(&key("c"), EPHEMERAL).await;
    assert!(full(Quota::AppKeys)(&third.unwrap_err()));
    let wait = Duration::from_secs(1);
    empty
        .lock(crate::Mode::Shared, 1, wait, wait)
        .await
        .unwrap();
    drop(empty);
    state.service().sweep().await.unwrap();
    assert!(
        app.value(&key("c"), EPHEMERAL).await.is_err(),
        "a locked key is kept"
    );
    state.release_all(1);
    state.service().sweep().await.unwrap();
    app.value(&key("c"), EPHEMERAL).await.unwrap();
}

#[tokio::test]
async fn an_app_has_so_many_watchers() {
    let config = Config {
        watchers_max: 1,
        ..Config::default()
    };
    let app = app_with(config).await;
    let watch = app.watch("").unwrap();
    assert!(full(Quota::Watchers)(&app.watch("").unwrap_err()));
    drop(watch);
    app.watch("").unwrap();
}

#[tokio::test]
async fn durable_values_that_nobody_uses_make_room() {
    let config = Config {
        app_keys_max: 8,
        ..Config::default()
    };
    let state = node(&store(), config).await;
    let app = shop(&state);
    let held = app.value(&key("0"), DURABLE).await.unwrap();
    held.set(b"0").await.unwrap();
    let written = app.value(&key("1"), DURABLE).await.unwrap();
    written.set(b"1").await.unwrap();
    written.write(0, b"!").await.unwrap();
    let region = app.value(&key("2"), DURABLE).await.unwrap();
    region.set(b"2").await.unwrap();
    let mapped = region.region().await.unwrap();
    drop((written, region));
    for number in 3..40u8 {
        let value = app.value(&key(&number.to_string()), DURABLE).await.unwrap();
        value.set(&[number]).await.unwrap();
    }
    mapped.write(0, b"?").unwrap();
    for (text, bytes) in [("0", b"0"), ("1", b"!"), ("2", b"?"), ("20", &[20])] {
        let value = app.value(&key(text), DURABLE).await.unwrap();
        assert_eq!(value.get(9).await.unwrap().0, bytes, "{text}");
    }
    assert_eq!(app.list("", None, 100).await.unwrap().len(), 40);
    state.service().sweep().await.unwrap();
    assert!(app.bytes() < 8 + UNIT);
}

#[tokio::test]
async fn what_is_mapped_is_charged_also_after_its_value_is_gone() {
    let config = Config {
        app_bytes_max: 2 * UNIT,
        ..Config::default()
    };
    let app = app_with(config).await;
    let value = app.value(&key("a"), EPHEMERAL).await.unwrap();
    let span = value.map_span(0, UNIT as u64, Access::Write, true).await;
    let span = span.unwrap();
    assert!(value.delete().await.unwrap());
    assert_eq!(app.bytes(), UNIT, "somebody still maps it");
    let other = app.value(&key("b"), EPHEMERAL).await.unwrap();
    let too_much = vec![1; UNIT + 1];
    assert!(full(Quota::AppBytes)(
        &other.set(&too_much).await.unwrap_err()
    ));
    drop(span);
    assert_eq!(app.bytes(), 0);
    other.set(&too_much).await.unwrap();
}
