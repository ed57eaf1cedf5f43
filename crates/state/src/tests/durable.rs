//! Durable values: what a restart finds, what is moved, and what a crash leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memory::Access;
use proptest::prelude::*;
use storage::{Range, Store};

use super::doubles::{Counting, Dying};
use super::{DURABLE, EPHEMERAL, EXISTING, FakeClock, key, node, shop, store};
use crate::{CHUNK_BYTES, Config, EmbeddedGlobal, State, StateError, Value};

const C: usize = CHUNK_BYTES;

/// Bytes that differ from chunk to chunk.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    let byte = |at: usize| (at / 7 + at / C) as u8 ^ seed;
    (0..length).map(byte).collect()
}

async fn contents(value: &Value) -> Vec<u8> {
    value.get(1 << 30).await.unwrap().0
}

/// What a node that starts now finds.
async fn restarted(store: &Arc<dyn Store>, text: &str) -> Option<Vec<u8>> {
    let state = node(store, Config::default()).await;
    match shop(&state).value(&key(text), EXISTING).await {
        Ok(value) => Some(contents(&value).await),
        Err(StateError::NotFound) => None,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn after_a_restart_nothing_is_read_before_it_is_touched() {
    let store = store();
    let written = pattern(10 * C + 5, 1);
    let first = shop(&node(&store, Config::default()).await);
    let version = first.value(&key("a"), DURABLE).await.unwrap();
    let version = version.set(&written).await.unwrap();
    let global = Counting::over(&store).await;
    let state = State::new(global.clone(), Config::default());
    let value = shop(&state).value(&key("a"), EXISTING).await.unwrap();
    assert_eq!(
        (value.size(), value.version()),
        (written.len() as u64, version)
    );
    assert!(global.pulled.lock().is_empty());
    let mut some = [0; 100];
    value.read(3 * C as u64 + 7, &mut some).await.unwrap();
    assert_eq!(some, written[3 * C + 7..3 * C + 107]);
    assert_eq!(*global.pulled.lock(), [3]);
    let span = value
        .map_span(5 * C as u64 - 1, 2, Access::Read, false)
        .await
        .unwrap();
    assert_eq!(*global.pulled.lock(), [3, 4, 5]);
    assert_eq!(span.region.resident_bytes().unwrap(), 3 * C);
    assert_eq!(contents(&value).await, written);
    assert_eq!(global.pulled.lock().len(), 11);
}

#[tokio::test]
async fn a_push_writes_what_changed_and_no_more() {
    let store = store();
    let global = Counting::over(&store).await;
    let state = State::new(global.clone(), Config::default());
    let value = shop(&state).value(&key("a"), DURABLE).await.unwrap();
    let mut written = pattern(20 * C, 1);
    value.set(&written).await.unwrap();
    let last = || global.pushed.lock().pop();
    assert_eq!(last(), Some((0..20).collect()));
    let all = (0, u64::MAX);
    let version = value.push(all.0, all.1).await.unwrap();
    assert_eq!((last(), value.version()), (None, version));
    written[7 * C..7 * C + 3].copy_from_slice(b"abc");
    value.write(7 * C as u64, b"abc").await.unwrap();
    let span = value
        .map_span(0, 6 * C as u64, Access::Write, false)
        .await
        .unwrap();
    span.region.write(4 * C + 9, b"xyz").unwrap();
    written[4 * C + 9..4 * C + 12].copy_from_slice(b"xyz");
    assert_ne!(restarted(&store, "a").await.unwrap(), written);
    value.push(0, 5 * C as u64).await.unwrap();
    assert_eq!(last(), Some(vec![4]));
    let version = value.push(all.0, all.1).await.unwrap();
    assert_eq!(last(), Some(vec![7]));
    assert_eq!(restarted(&store, "a").await.unwrap(), written);
    // Whoever still maps it may write it again, unseen.
    span.region.write(4 * C + 9, b"123").unwrap();
    written[4 * C + 9..4 * C + 12].copy_from_slice(b"123");
    drop(span);
    assert!(value.push(all.0, all.1).await.unwrap() > version);
    assert_eq!(last(), Some(vec![4]));
    assert_eq!(restarted(&store, "a").await.unwrap(), written);
    value.append(b"!").await.unwrap();
    assert_eq!(last(), Some(vec![20]));
}

#[tokio::test]
async fn values_larger_than_a_transaction_come_back() {
    let store = store();
    let value = shop(&node(&store, Config::default()).await);
    let value = value.value(&key("a"), DURABLE).await.unwrap();
    let mut written = pattern(600 * C + 1, 1);
    value.set(&written).await.unwrap();
    assert_eq!(restarted(&store, "a").await.unwrap(), written);
    written = pattern(40 * C, 2);
    written[3 * C..30 * C].fill(0);
    value.set(&written).await.unwrap();
    assert_eq!(restarted(&store, "a").await.unwrap(), written);
    value.truncate(600 * C as u64).await.unwrap();
    written.resize(600 * C, 0);
    assert_eq!(restarted(&store, "a").await.unwrap(), written);
    assert_eq!(chunks_stored(&store).await, 13);
    assert!(value.delete().await.unwrap());
    assert_eq!(restarted(&store, "a").await, None);
    assert_eq!(chunks_stored(&store).await, 0);
}

async fn keys_stored(store: &Arc<dyn Store>, prefix: &str) -> Vec<String> {
    let page = store.range(Range::prefix(prefix)).await.unwrap();
    assert!(!page.more);
    let keys = page.entries.iter();
    keys.map(|entry| String::from_utf8_lossy(&entry.key).into_owned())
        .collect()
}

async fn chunks_stored(store: &Arc<dyn Store>) -> usize {
    keys_stored(store, "state/1/c/").await.len()
}

/// Runs `change` over a store that takes `steps` transactions only; whether it was acknowledged.
async fn cut_short(store: &Arc<dyn Store>, steps: usize, answered: bool, new: &[u8]) -> bool {
    let dying = Dying {
        store: store.clone(),
        left: AtomicUsize::new(steps),
        answered,
    };
    let global = EmbeddedGlobal::open(Arc::new(dying)).await.unwrap();
    let state = State::new(Arc::new(global), Config::default());
    let value = shop(&state).value(&key("a"), DURABLE).await.unwrap();
    match new.is_empty() {
        true => value.delete().await.is_ok(),
        false => value.set(new).await.is_ok(),
    }
}

#[tokio::test]
async fn a_value_is_the_old_or_the_new_one_wherever_a_push_breaks_off() {
    let (old, new) = (pattern(40 * C, 1), pattern(45 * C + 3, 2));
    let none = Vec::new();
    let changes = [(&old, &new), (&none, &new), (&new, &old), (&new, &none)];
    for (before, after) in changes {
        let shown = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| bytes.clone());
        for answered in [true, false] {
            for steps in 0.. {
                let store = store();
                if !before.is_empty() {
                    assert!(cut_short(&store, usize::MAX, true, before).await);
                }
                let done = cut_short(&store, steps, answered, after).await;
                let found = restarted(&store, "a").await;
                assert!(found == shown(before) || found == shown(after), "{steps}");
                assert!(!done || found == shown(after), "{steps} acknowledged");
                let count = found.map_or(0, |bytes| bytes.len().div_ceil(C));
                assert_eq!(chunks_stored(&store).await, count, "{steps} left chunks");
                assert!(keys_stored(&store, "state/1/i/").await.is_empty());
                if done && answered {
                    break;
                }
                if steps > 12 {
                    assert!(!answered, "a push never ended");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_push_that_failed_is_made_again_whether_it_had_taken_effect_or_not() {
    for (steps, answered) in [(1, true), (2, false), (3, false)] {
        let store = store();
        let dying = Arc::new(Dying {
            store: store.clone(),
            left: AtomicUsize::new(steps),
            answered,
        });
        let global = EmbeddedGlobal::open(dying.clone()).await.unwrap();
        let state = State::new(Arc::new(global), Config::default());
        let value = shop(&state).value(&key("a"), DURABLE).await.unwrap();
        let written = pattern(20 * C, 3);
        let mut done = false;
        for byte in 0..4 {
            done = value.write(byte, &written[byte as usize..]).await.is_ok();
            done &= value.push(0, u64::MAX).await.is_ok();
        }
        assert!(!done);
        dying.left.store(usize::MAX, Ordering::Relaxed);
        value.write(0, &written).await.unwrap();
        value.push(0, u64::MAX).await.unwrap();
        assert_eq!(restarted(&store, "a").await.unwrap(), written);
        assert_eq!(chunks_stored(&store).await, 20);
    }
}

#[tokio::test]
async fn no_version_comes_twice_even_if_the_clock_stands_still() {
    let store = store();
    let mut last = 0;
    for round in 0..6 {
        let global = EmbeddedGlobal::open(store.clone()).await.unwrap();
        let state = State::with_clock(Arc::new(global), Config::default(), FakeClock::new());
        let value = shop(&state).value(&key("a"), DURABLE).await.unwrap();
        assert!(value.version() == 0 || value.version() == last);
        for byte in 0..10 {
            let version = value.set(&[byte]).await.unwrap();
            assert!(version > last, "{round}");
            last = version;
        }
        if round % 2 == 0 {
            value.delete().await.unwrap();
            value.set(b"again").await.unwrap();
            assert!(value.version() > last);
            last = value.version();
            value.delete().await.unwrap();
        }
    }
}

#[tokio::test]
async fn listings_show_what_is_here_and_what_is_stored_in_one_order() {
    let store = store();
    let first = shop(&node(&store, Config::default()).await);
    for text in ["a/1", "a/3", "a/5", "a/7", "b"] {
        first
            .value(&key(text), DURABLE)
            .await
            .unwrap()
            .set(b"old")
            .await
            .unwrap();
    }
    let app = shop(&node(&store, Config::default()).await);
    for text in ["a/2", "a/4", "a/8", "c"] {
        app.value(&key(text), EPHEMERAL)
            .await
            .unwrap()
            .set(b"longer")
            .await
            .unwrap();
    }
    app.value(&key("a/3"), EXISTING)
        .await
        .unwrap()
        .delete()
        .await
        .unwrap();
    app.value(&key("a/5"), EXISTING)
        .await
        .unwrap()
        .append(b"!")
        .await
        .unwrap();
    app.value(&key("a/6"), EPHEMERAL).await.unwrap();
    let all = [
        ("a/1", 3),
        ("a/2", 6),
        ("a/4", 6),
        ("a/5", 4),
        ("a/7", 3),
        ("a/8", 6),
    ];
    for limit in [1, 2, 3, 100] {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = app.list("a/", after.as_deref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            seen.extend(page.iter().map(|one| (one.key.to_string(), one.info.size)));
            match page.last() {
                Some(last) => after = Some(last.key.to_string()),
                None => break,
            }
        }
        let all: Vec<_> = all
            .iter()
            .map(|(text, size)| ((*text).to_owned(), *size))
            .collect();
        assert_eq!(seen, all, "{limit} at a time");
    }
    assert_eq!(app.list("", None, 100).await.unwrap().len(), 8);
    assert_eq!(app.list("a/", Some("a/7"), 9).await.unwrap().len(), 1);
    assert!(app.list("x", None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn appends_from_many_tasks_are_all_there() {
    let store = store();
    let app = shop(&node(&store, Config::default()).await);
    let value = app.value(&key("a"), DURABLE).await.unwrap();
    let tasks = (0..50u8).map(|byte| {
        let value = value.clone();
        tokio::spawn(async move { value.append(&[byte; 10]).await.unwrap() })
    });
    let mut offsets = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        offsets.push(task.await.unwrap());
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..50).map(|n| n * 10).collect::<Vec<_>>());
    let mut bytes: Vec<_> = restarted(&store, "a").await.unwrap();
    bytes.sort_unstable();
    assert!(
        bytes
            .chunks(10)
            .enumerate()
            .all(|(n, some)| some == [n as u8; 10])
    );
}

#[tokio::test]
async fn a_removal_that_failed_is_made_again_by_the_sweep() {
    let store = store();
    let dying = Arc::new(Dying {
        store: store.clone(),
        left: AtomicUsize::new(1),
        answered: true,
    });
    let global = EmbeddedGlobal::open(dying.clone()).await.unwrap();
    let state = State::new(Arc::new(global), Config::default());
    let value = shop(&state).value(&key("a"), DURABLE).await.unwrap();
    value.set(b"x").await.unwrap();
    assert!(value.delete().await.is_err());
    assert!(!value.exists());
    assert_eq!(restarted(&store, "a").await.unwrap(), b"x");
    dying.left.store(usize::MAX, Ordering::Relaxed);
    state.service().sweep().await.unwrap();
    assert_eq!(restarted(&store, "a").await, None);
}

#[derive(Clone, Debug)]
enum Act {
    Set(usize, u8),
    Write(usize, usize, u8),
    Append(usize, u8),
    Truncate(usize),
    Poke(usize, usize, u8),
    Push,
    Delete,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let length = || prop_oneof![0..100usize, 4000..4200usize, 0..30 * C];
    let byte = any::<u8>;
    prop_oneof![
        2 => (length(), byte()).prop_map(|(length, byte)| Act::Set(length, byte)),
        3 => (length(), 0..2 * C, byte()).prop_map(|(at, n, byte)| Act::Write(at, n, byte)),
        2 => (0..2 * C, byte()).prop_map(|(length, byte)| Act::Append(length, byte)),
        2 => length().prop_map(Act::Truncate),
        3 => (length(), 0..2 * C, byte()).prop_map(|(at, n, byte)| Act::Poke(at, n, byte)),
        2 => Just(Act::Push),
        1 => Just(Act::Delete),
        4 => Just(Act::Restart),
    ]
}

/// A guest's write through a mapping, if the value is that long.
async fn poke(value: &Value, at: usize, data: &[u8]) -> bool {
    let span = value
        .map_span(at as u64, data.len() as u64, Access::Write, false)
        .await;
    let Ok(span) = span else {
        return false;
    };
    span.region.write(at, data).unwrap();
    true
}

async fn run(acts: Vec<Act>) {
    let store = store();
    let mut app = shop(&node(&store, Config::default()).await);
    let mut value = app.value(&key("a"), DURABLE).await.unwrap();
    let (mut now, mut stored) = (None::<Vec<u8>>, None::<Vec<u8>>);
    let put = |now: &mut Option<Vec<u8>>, at: usize, data: &[u8]| {
        let bytes = now.get_or_insert_default();
        bytes.resize(bytes.len().max(at + data.len()), 0);
        bytes[at..at + data.len()].copy_from_slice(data);
    };
    for act in acts {
        // All writes through mappings are looked for at once, so that the model stays simple.
        match act {
            Act::Set(length, seed) => {
                now = Some(pattern(length, seed));
                value.set(&pattern(length, seed)).await.unwrap();
            }
            Act::Write(at, length, seed) => {
                put(&mut now, at, &pattern(length, seed));
                value
                    .write(at as u64, &pattern(length, seed))
                    .await
                    .unwrap();
                continue;
            }
            Act::Append(length, seed) => {
                let at = now.as_ref().map_or(0, Vec::len);
                put(&mut now, at, &pattern(length, seed));
                value.append(&pattern(length, seed)).await.unwrap();
            }
            Act::Truncate(size) => {
                now.get_or_insert_default().resize(size, 0);
                value.truncate(size as u64).await.unwrap();
            }
            Act::Poke(at, length, seed) => {
                if !poke(&value, at, &pattern(length, seed)).await {
                    continue;
                }
                put(&mut now, at, &pattern(length, seed));
                value.push(0, u64::MAX).await.unwrap();
            }
            Act::Push => drop(value.push(0, u64::MAX).await),
            Act::Delete => {
                now = None;
                value.delete().await.unwrap();
            }
            Act::Restart => {
                app = shop(&node(&store, Config::default()).await);
                value = app.value(&key("a"), DURABLE).await.unwrap();
                now.clone_from(&stored);
            }
        }
        stored.clone_from(&now);
        assert_eq!(value.exists(), now.is_some());
        assert_eq!(value.size() as usize, now.as_ref().map_or(0, Vec::len));
    }
    let read = value.get(1 << 30).await.ok().map(|(bytes, _)| bytes);
    assert!(read == now);
    assert!(restarted(&store, "a").await == stored);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_restart_finds_what_was_acknowledged(acts in prop::collection::vec(act(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(acts));
    }
}
