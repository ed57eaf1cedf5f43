//! Values in memory: what they hold, against plain bytes.

use std::sync::Arc;

use memory::{Access, REGION_UNIT_BYTES};
use proptest::prelude::*;

use super::{DURABLE, EPHEMERAL, EXISTING, app, key};
use crate::{Durability, StateError, Value, WatchItem};

#[derive(Clone, Debug)]
enum Act {
    Set(usize, u8),
    Write(usize, usize, u8),
    Append(usize, u8),
    /// A word, and what is added to it.
    Add(usize, u64),
    Truncate(usize),
    /// Whether the version that is expected is the right one.
    Swap(bool, usize, u8),
    Delete,
    Map(usize, usize, bool),
    Poke(usize, usize, u8),
    Push(usize, usize),
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![0..100usize, 4000..4200usize, 0..3 * REGION_UNIT_BYTES]
}

fn act() -> impl Strategy<Value = Act> {
    let byte = any::<u8>;
    prop_oneof![
        (length(), byte()).prop_map(|(length, byte)| Act::Set(length, byte)),
        (length(), length(), byte()).prop_map(|(at, length, byte)| Act::Write(at, length, byte)),
        (length(), byte()).prop_map(|(length, byte)| Act::Append(length, byte)),
        (length(), any::<u64>()).prop_map(|(at, amount)| Act::Add(at / 8, amount)),
        length().prop_map(Act::Truncate),
        (any::<bool>(), length(), byte()).prop_map(|(right, n, byte)| Act::Swap(right, n, byte)),
        Just(Act::Delete),
        (length(), length(), any::<bool>()).prop_map(|(at, n, grow)| Act::Map(at, n, grow)),
        (length(), length(), byte()).prop_map(|(at, length, byte)| Act::Poke(at, length, byte)),
        (length(), length()).prop_map(|(at, length)| Act::Push(at, length)),
    ]
}

/// A value as plain bytes; none when there is none.
#[derive(Default)]
struct Model {
    bytes: Option<Vec<u8>>,
    version: u64,
    seen: std::collections::HashSet<u64>,
}

impl Model {
    fn write(&mut self, at: usize, data: &[u8]) {
        let bytes = self.bytes.get_or_insert_default();
        bytes.resize(bytes.len().max(at + data.len()), 0);
        bytes[at..at + data.len()].copy_from_slice(data);
    }

    async fn check(&mut self, value: &Arc<Value>, changed: bool) {
        assert_eq!(value.exists(), self.bytes.is_some());
        if changed && self.bytes.is_some() {
            assert!(
                self.seen.insert(value.version()),
                "a version was there before"
            );
            self.version = value.version();
        }
        let read = value.get(1 << 20).await;
        match &self.bytes {
            Some(bytes) => {
                let (read, version) = read.unwrap();
                assert!(read == *bytes && version == self.version);
                assert_eq!(value.size(), bytes.len() as u64);
            }
            None => assert!(matches!(read, Err(StateError::NotFound))),
        }
    }
}

/// Does it to both, and says whether the version must have changed.
async fn apply(act: &Act, value: &Arc<Value>, model: &mut Model) -> bool {
    match *act {
        Act::Set(length, byte) => {
            value.set(&vec![byte; length]).await.unwrap();
            model.bytes = Some(vec![byte; length]);
        }
        Act::Write(at, length, byte) => {
            let data = vec![byte; length];
            value.write(at as u64, &data).await.unwrap();
            model.write(at, &data);
        }
        Act::Append(length, byte) => {
            let at = model.bytes.as_ref().map_or(0, Vec::len);
            let data = vec![byte; length];
            assert_eq!(value.append(&data).await.unwrap(), at as u64);
            model.write(at, &data);
        }
        Act::Add(word, amount) => {
            let at = 8 * word;
            let mut old = model.bytes.clone().unwrap_or_default();
            old.resize(old.len().max(at + 8), 0);
            let mut number = [0; 8];
            number.copy_from_slice(&old[at..at + 8]);
            let wanted = u64::from_le_bytes(number).wrapping_add(amount);
            let (sum, version) = value.add(at as u64, amount).await.unwrap();
            assert_eq!((sum, version), (wanted, value.version()));
            model.write(at, &wanted.to_le_bytes());
        }
        Act::Truncate(size) => {
            value.truncate(size as u64).await.unwrap();
            model.bytes.get_or_insert_default().resize(size, 0);
        }
        Act::Swap(right, length, byte) => {
            let now = value.version();
            let expected = if right { now } else { now + 1 };
            let swapped = value.swap(expected, &vec![byte; length]).await;
            if !right {
                let conflict =
                    matches!(swapped, Err(StateError::Conflict { version }) if version == now);
                assert!(conflict);
                return false;
            }
            swapped.unwrap();
            model.bytes = Some(vec![byte; length]);
        }
        Act::Delete => {
            assert_eq!(value.delete().await.unwrap(), model.bytes.is_some());
            model.bytes = None;
        }
        Act::Map(at, length, grow) => return map(at, length, grow, value, model).await,
        Act::Poke(at, length, byte) => {
            poke(at, length, byte, value, model).await;
            return false;
        }
        Act::Push(at, length) => {
            // Of a durable value, this moves the version if something had changed.
            let pushed = value.push(at as u64, length as u64).await;
            assert_eq!(pushed.is_ok(), model.bytes.is_some());
            return value.exists() && value.version() != model.version;
        }
    }
    true
}

async fn map(at: usize, length: usize, grow: bool, value: &Arc<Value>, model: &mut Model) -> bool {
    let (size, existed) = (value.size() as usize, value.exists());
    let access = if grow { Access::Write } else { Access::Read };
    let span = value.map_span(at as u64, length as u64, access, grow).await;
    if !grow && (!existed || at + length > size) {
        assert!(span.is_err());
        return false;
    }
    let span = span.unwrap();
    assert!(span.bytes >= span.within + length && span.offset + span.within == at);
    if grow {
        let bytes = model.bytes.get_or_insert_default();
        bytes.resize(bytes.len().max(at + length), 0);
    }
    !existed || value.size() as usize > size
}

/// As a guest: writes what it mapped, and past the value's end in the last unit.
async fn poke(at: usize, length: usize, byte: u8, value: &Arc<Value>, model: &mut Model) {
    let Ok(span) = value
        .map_span(at as u64, length as u64, Access::Write, false)
        .await
    else {
        return;
    };
    let data = vec![byte; span.bytes - span.within];
    span.region.write(at, &data).unwrap();
    let bytes = model.bytes.get_or_insert_default();
    let end = bytes.len().min(at + data.len());
    bytes[at.min(end)..end].fill(byte);
}

fn run(acts: Vec<Act>, durable: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (store, config) = (super::store(), crate::Config::default());
        let state = super::node(&store, config.clone()).await;
        let open = if durable { DURABLE } else { EPHEMERAL };
        let value = super::shop(&state).value(&key("a"), open).await.unwrap();
        let mut model = Model::default();
        for act in &acts {
            let changed = apply(act, &value, &mut model).await;
            model.check(&value, changed).await;
        }
        let charged = state.bytes();
        if value.delete().await.unwrap() || charged > 0 {
            assert_eq!(state.bytes(), 0, "of {charged}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_ephemeral_value_is_what_was_written(acts in prop::collection::vec(act(), 1..30)) {
        run(acts, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_durable_value_is_what_was_written(acts in prop::collection::vec(act(), 1..30)) {
        run(acts, true);
    }
}

#[tokio::test]
async fn a_number_is_added_to_at_multiples_of_its_size_alone() {
    let store = super::store();
    let state = super::node(&store, crate::Config::default()).await;
    let value = super::shop(&state)
        .value(&key("a"), EPHEMERAL)
        .await
        .unwrap();
    for offset in [1, 4, 7, u64::MAX] {
        let refused = value.add(offset, 1).await;
        assert!(matches!(refused, Err(StateError::Misaligned { .. })));
    }
    let refused = value.add(u64::MAX - 7, 1).await;
    assert!(matches!(refused, Err(StateError::TooLarge { .. })));
    assert!(!value.exists());
}

#[tokio::test]
async fn keys_without_values_are_not_found_and_leave_nothing() {
    let app = app().await;
    let missing = app.value(&key("a"), EXISTING).await;
    assert!(matches!(missing, Err(StateError::NotFound)));
    let value = app.value(&key("a"), EPHEMERAL).await.unwrap();
    assert!(!value.exists() && value.version() == 0);
    assert!(matches!(
        value.read(0, &mut [0; 4]).await,
        Err(StateError::NotFound)
    ));
    assert!(app.list("", None, 10).await.unwrap().is_empty());
    value.set(b"x").await.unwrap();
    assert!(app.value(&key("a"), EXISTING).await.unwrap().exists());
    assert_eq!(
        app.value(&key("a"), DURABLE).await.unwrap().durability(),
        Durability::Ephemeral
    );
}

#[tokio::test]
async fn all_who_open_a_key_share_its_region() {
    let app = app().await;
    let first = app.value(&key("a"), EPHEMERAL).await.unwrap();
    first.set(&[1; 100]).await.unwrap();
    let span = first.map_span(10, 20, Access::Write, false).await.unwrap();
    assert_eq!(
        (span.offset, span.bytes, span.within),
        (0, REGION_UNIT_BYTES, 10)
    );
    let second = app.value(&key("a"), EPHEMERAL).await.unwrap();
    second.write(10, &[2; 5]).await.unwrap();
    let mut seen = [0; 6];
    span.region.read(10, &mut seen).unwrap();
    assert_eq!(seen, [2, 2, 2, 2, 2, 1]);
    assert!(Arc::ptr_eq(&span.region, &second.region().await.unwrap()));
    second.delete().await.unwrap();
    second.set(&[3; 100]).await.unwrap();
    assert!(!Arc::ptr_eq(&span.region, &second.region().await.unwrap()));
}

#[tokio::test]
async fn apps_do_not_see_each_other() {
    let state = super::node(&super::store(), crate::Config::default()).await;
    let value = super::shop(&state)
        .value(&key("a"), EPHEMERAL)
        .await
        .unwrap();
    value.set(b"x").await.unwrap();
    let other = state.app(&"other".parse().unwrap());
    assert!(other.value(&key("a"), EXISTING).await.is_err());
}

#[tokio::test]
async fn watchers_are_told_of_changes_and_of_what_they_missed() {
    let config = crate::Config {
        watch_events_max: 2,
        ..crate::Config::default()
    };
    let app = super::app_with(config).await;
    let mut watch = app.watch("a/").unwrap();
    let value = app.value(&key("a/1"), EPHEMERAL).await.unwrap();
    let other = app.value(&key("b"), EPHEMERAL).await.unwrap();
    other.set(b"x").await.unwrap();
    let first = value.set(b"x").await.unwrap();
    value.delete().await.unwrap();
    let changed = |version, deleted| WatchItem::Changed {
        key: key("a/1"),
        version,
        deleted,
    };
    value.set(b"y").await.unwrap();
    value.set(b"z").await.unwrap();
    assert_eq!(watch.next().await, changed(first, false));
    assert_eq!(watch.next().await, changed(first, true));
    assert_eq!(watch.next().await, WatchItem::Missed(2));
    let last = value.set(b"!").await.unwrap();
    assert_eq!(watch.next().await, changed(last, false));
}
