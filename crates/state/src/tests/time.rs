//! Times to live, with a clock that is moved by hand.

use std::sync::Arc;
use std::time::Duration;

use storage::{Range, Store};

use super::{AppState, DURABLE, EPHEMERAL, EXISTING, FakeClock, key, shop, store};
use crate::{Config, EmbeddedGlobal, Open, Put, State, StateError, WatchItem};

const SECOND: Duration = Duration::from_secs(1);

async fn timed(store: &Arc<dyn Store>, clock: &Arc<FakeClock>) -> (State, AppState) {
    let global = EmbeddedGlobal::open(store.clone()).await.unwrap();
    let config = Config {
        sweep_interval: Duration::from_millis(5),
        ..Config::default()
    };
    let state = State::with_clock(Arc::new(global), config, clock.clone());
    let app = shop(&state);
    (state, app)
}

async fn stored_keys(store: &Arc<dyn Store>) -> usize {
    let page = store.range(Range::prefix("state/1/")).await.unwrap();
    let floor = |key: &[u8]| key.starts_with(b"state/1/f/");
    page.entries
        .iter()
        .filter(|entry| !floor(&entry.key))
        .count()
}

async fn check_expiry(open: Open) {
    let (store, clock) = (store(), FakeClock::new());
    let (state, app) = timed(&store, &clock).await;
    let value = app.value(&key("a"), open).await.unwrap();
    assert!(matches!(
        value.expire(Some(SECOND)).await,
        Err(StateError::NotFound)
    ));
    let version = value.set(&[1; 5000]).await.unwrap();
    value.expire(Some(SECOND)).await.unwrap();
    clock.pass(999);
    assert!(value.exists());
    assert_eq!(state.service().sweep().await.unwrap(), 0);
    let mut watch = app.watch("").unwrap();
    clock.pass(1);
    assert!(!value.exists() && value.version() == 0 && value.info().is_none());
    assert!(matches!(
        value.read(0, &mut [0; 1]).await,
        Err(StateError::NotFound)
    ));
    assert!(matches!(
        app.value(&key("a"), EXISTING).await,
        Err(StateError::NotFound)
    ));
    assert!(app.list("", None, 9).await.unwrap().is_empty());
    assert!(state.bytes() > 0, "it is freed by the sweep");
    assert_eq!(state.service().sweep().await.unwrap(), 1);
    assert_eq!((state.bytes(), stored_keys(&store).await), (0, 0));
    let deleted = WatchItem::Changed {
        key: key("a"),
        version,
        deleted: true,
    };
    assert_eq!(watch.next().await, deleted);
}

#[tokio::test]
async fn an_ephemeral_value_is_gone_at_once_and_freed_by_the_sweep() {
    check_expiry(EPHEMERAL).await;
}

#[tokio::test]
async fn a_durable_value_is_gone_at_once_and_freed_by_the_sweep() {
    check_expiry(DURABLE).await;
}

#[tokio::test]
async fn a_time_to_live_can_be_moved_and_taken_back() {
    let (store, clock) = (store(), FakeClock::new());
    let (state, app) = timed(&store, &clock).await;
    let value = app.value(&key("a"), DURABLE).await.unwrap();
    value.set(b"x").await.unwrap();
    for ttl in [SECOND, 10 * SECOND, 3 * SECOND] {
        value.expire(Some(ttl)).await.unwrap();
    }
    clock.pass(2999);
    state.service().sweep().await.unwrap();
    assert!(value.exists());
    value.expire(None).await.unwrap();
    clock.pass(100_000);
    assert_eq!(state.service().sweep().await.unwrap(), 0);
    assert!(value.exists());
    let never = [Duration::ZERO, Duration::MAX];
    for ttl in never {
        assert!(matches!(
            value.expire(Some(ttl)).await,
            Err(StateError::Ttl { .. })
        ));
    }
}

async fn check_put(open: Open) {
    let (store, clock) = (store(), FakeClock::new());
    let (state, app) = timed(&store, &clock).await;
    let value = app.value(&key("a"), open).await.unwrap();
    let put = |expected, ttl| Put { expected, ttl };
    let first = value.put(b"a", put(Some(0), Some(SECOND))).await.unwrap();
    assert_eq!(Some(first), value.info());
    assert_eq!((first.size, first.expires_ms), (1, 1_001_000));
    let kept = value.put(b"bc", put(None, None)).await.unwrap();
    assert_eq!(kept.expires_ms, first.expires_ms);
    for stale in [0, first.version] {
        let refused = value
            .put(b"d", put(Some(stale), Some(Duration::ZERO)))
            .await;
        let conflict = |found: Result<_, _>| match found {
            Err(StateError::Conflict { version }) => version,
            other => panic!("{other:?}"),
        };
        assert_eq!(conflict(refused.map(drop)), kept.version);
        assert_eq!(conflict(value.delete_if(stale).await), kept.version);
    }
    assert_eq!(value.info(), Some(kept));
    let long = value.put(b"d", put(None, Some(Duration::MAX))).await;
    assert!(matches!(long, Err(StateError::Ttl { .. })));
    let forever = value.put(b"d", put(Some(kept.version), Some(Duration::ZERO)));
    assert_eq!(forever.await.unwrap().expires_ms, 0);
    let last = value.put(b"e", put(None, Some(SECOND))).await.unwrap();
    clock.pass(1000);
    assert!(value.delete_if(last.version).await.is_err(), "it has ended");
    let again = value.put(b"f", put(Some(0), None)).await.unwrap();
    assert!(again.version > last.version && again.expires_ms == 0);
    value.delete_if(again.version).await.unwrap();
    drop(value);
    state.service().sweep().await.unwrap();
    assert_eq!((state.bytes(), stored_keys(&store).await), (0, 0));
}

#[tokio::test]
async fn a_value_is_put_on_conditions_with_its_time_to_live() {
    check_put(EPHEMERAL).await;
    check_put(DURABLE).await;
}

#[tokio::test]
async fn what_ended_while_the_node_was_down_is_not_found_and_freed() {
    let (store, clock) = (store(), FakeClock::new());
    let (_, app) = timed(&store, &clock).await;
    for text in ["a", "b"] {
        let value = app.value(&key(text), DURABLE).await.unwrap();
        value.set(&[1; 200_000]).await.unwrap();
        value.expire(Some(SECOND)).await.unwrap();
    }
    clock.pass(1000);
    let (state, app) = timed(&store, &clock).await;
    assert!(app.list("", None, 9).await.unwrap().is_empty());
    assert!(app.value(&key("a"), EXISTING).await.is_err());
    let value = app.value(&key("b"), DURABLE).await.unwrap();
    value.set(b"new").await.unwrap();
    assert_eq!(state.service().sweep().await.unwrap(), 1);
    assert_eq!(value.get(9).await.unwrap().0, b"new");
    assert_eq!(
        stored_keys(&store).await,
        3,
        "head, table and chunk of the new one"
    );
}

#[tokio::test]
async fn an_ephemeral_value_takes_the_place_of_a_durable_one_that_ended() {
    let (store, clock) = (store(), FakeClock::new());
    let (state, app) = timed(&store, &clock).await;
    let value = app.value(&key("a"), DURABLE).await.unwrap();
    value.set(b"old").await.unwrap();
    value.expire(Some(SECOND)).await.unwrap();
    clock.pass(1000);
    let value = app.value(&key("a"), EPHEMERAL).await.unwrap();
    value.set(b"new").await.unwrap();
    state.service().sweep().await.unwrap();
    assert_eq!(stored_keys(&store).await, 0);
    assert_eq!(value.get(9).await.unwrap().0, b"new");
}

#[tokio::test]
async fn the_service_sweeps_until_it_is_stopped() {
    let (store, clock) = (store(), FakeClock::new());
    let (state, app) = timed(&store, &clock).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = tokio::spawn(state.service().run(async { drop(stopped.await) }));
    let value = app.value(&key("a"), EPHEMERAL).await.unwrap();
    value.set(b"x").await.unwrap();
    value.expire(Some(SECOND)).await.unwrap();
    let mut watch = app.watch("").unwrap();
    clock.pass(1000);
    assert!(matches!(
        watch.next().await,
        WatchItem::Changed { deleted: true, .. }
    ));
    stop.send(()).unwrap();
    service.await.unwrap();
}
