//! Locks between tasks.

use std::time::Duration;

use super::{EPHEMERAL, app, app_with, key, node, shop, store};
use crate::{Config, Mode, Quota, StateError};

/// What has passed before long.
const MOMENT: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_lock_is_waited_for_in_turn() {
    let value = app().await.value(&key("a"), EPHEMERAL).await.unwrap();
    value
        .lock(Mode::Exclusive, 1, SECOND, MINUTE)
        .await
        .unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for owner in 2..6u128 {
        let (value, tell) = (value.clone(), tell.clone());
        tokio::spawn(async move {
            value
                .lock(Mode::Exclusive, owner, MINUTE, MINUTE)
                .await
                .unwrap();
            tell.send(owner).unwrap();
            value.unlock(owner).unwrap();
        });
        tokio::task::yield_now().await;
    }
    assert!(told.try_recv().is_err());
    value.unlock(1).unwrap();
    for owner in 2..6 {
        assert_eq!(told.recv().await, Some(owner));
    }
}

#[tokio::test]
async fn a_lock_past_its_time_is_free() {
    let value = app().await.value(&key("a"), EPHEMERAL).await.unwrap();
    value
        .lock(Mode::Exclusive, 1, SECOND, MINUTE)
        .await
        .unwrap();
    let waited = value.lock(Mode::Exclusive, 2, MOMENT, MINUTE).await;
    assert!(matches!(waited, Err(StateError::LockTimedOut)));
    value.unlock(1).unwrap();
    value
        .lock(Mode::Exclusive, 1, SECOND, MOMENT)
        .await
        .unwrap();
    value
        .lock(Mode::Exclusive, 2, MINUTE, MINUTE)
        .await
        .unwrap();
    assert!(matches!(value.unlock(1), Err(StateError::NotLocked)));
    value.unlock(2).unwrap();
}

#[tokio::test]
async fn who_gives_up_waiting_is_not_waited_for() {
    let value = app().await.value(&key("a"), EPHEMERAL).await.unwrap();
    value.lock(Mode::Shared, 1, SECOND, MINUTE).await.unwrap();
    let gone = value.lock(Mode::Exclusive, 2, MINUTE, MINUTE);
    assert!(tokio::time::timeout(MOMENT, gone).await.is_err());
    value
        .lock(Mode::Shared, 3, Duration::ZERO, MINUTE)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_dead_owner_held_is_free() {
    let state = node(&store(), Config::default()).await;
    let (first, second) = (
        shop(&state).value(&key("a"), EPHEMERAL).await.unwrap(),
        shop(&state).value(&key("b"), EPHEMERAL).await.unwrap(),
    );
    for value in [&first, &second] {
        value
            .lock(Mode::Exclusive, 1, SECOND, MINUTE)
            .await
            .unwrap();
    }
    let waits = tokio::spawn({
        let first = first.clone();
        async move { first.lock(Mode::Exclusive, 2, MINUTE, MINUTE).await }
    });
    tokio::task::yield_now().await;
    state.release_all(1);
    waits.await.unwrap().unwrap();
    second
        .lock(Mode::Exclusive, 3, Duration::ZERO, MINUTE)
        .await
        .unwrap();
    assert!(
        first
            .lock(Mode::Shared, 3, Duration::ZERO, MINUTE)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_lock_is_held_for_a_bounded_time_whatever_was_asked() {
    let config = Config {
        lock_hold_max: MOMENT,
        ..Config::default()
    };
    let value = app_with(config)
        .await
        .value(&key("a"), EPHEMERAL)
        .await
        .unwrap();
    value
        .lock(Mode::Exclusive, 1, SECOND, Duration::MAX)
        .await
        .unwrap();
    value
        .lock(Mode::Exclusive, 2, Duration::MAX, MINUTE)
        .await
        .unwrap();
}

#[tokio::test]
async fn only_so_many_wait_for_a_lock() {
    let config = Config {
        lock_waiters_max: 1,
        ..Config::default()
    };
    let value = app_with(config)
        .await
        .value(&key("a"), EPHEMERAL)
        .await
        .unwrap();
    value
        .lock(Mode::Exclusive, 1, SECOND, MINUTE)
        .await
        .unwrap();
    let waits = tokio::spawn({
        let value = value.clone();
        async move { value.lock(Mode::Exclusive, 2, MINUTE, MINUTE).await }
    });
    tokio::task::yield_now().await;
    let refused = value.lock(Mode::Exclusive, 3, MINUTE, MINUTE).await;
    let full = matches!(
        refused,
        Err(StateError::Full {
            quota: Quota::LockWaiters,
            ..
        })
    );
    assert!(full);
    value.unlock(1).unwrap();
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lock_keeps_counts_right_between_threads() {
    let app = app().await;
    let value = app.value(&key("a"), EPHEMERAL).await.unwrap();
    value.set(&0u64.to_le_bytes()).await.unwrap();
    let adds = (1..=8u128).map(|owner| {
        let value = value.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                value
                    .lock(Mode::Exclusive, owner, MINUTE, MINUTE)
                    .await
                    .unwrap();
                let mut sum = [0; 8];
                value.read(0, &mut sum).await.unwrap();
                tokio::task::yield_now().await;
                let sum = u64::from_le_bytes(sum) + 1;
                value.write(0, &sum.to_le_bytes()).await.unwrap();
                value.unlock(owner).unwrap();
            }
        })
    });
    for add in adds.collect::<Vec<_>>() {
        add.await.unwrap();
    }
    assert_eq!(value.get(8).await.unwrap().0, 400u64.to_le_bytes());
}
