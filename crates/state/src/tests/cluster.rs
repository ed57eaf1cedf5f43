//! State on several nodes in one process, over one store and a network that tests cut.

mod any_order;
mod copies;
mod losses;
mod mirrors;
mod network;
mod world;

use std::time::Duration;

use memory::Out;

use self::world::World;
use super::{key, shop};
use crate::{AppState, Done, Durability, Mode, Op, Put, StateError, WatchItem};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn put(data: &[u8], create: Durability) -> Op<'_> {
    Op::Put {
        create: Some(create),
        put: Put::default(),
        data: data.into(),
    }
}

pub(super) fn swap(data: &[u8], expected: u64) -> Op<'_> {
    Op::Put {
        create: Some(Durability::Durable),
        put: Put {
            expected: Some(expected),
            ttl: None,
        },
        data: data.into(),
    }
}

pub(super) fn lock(owner: u128, wait: Duration) -> Op<'static> {
    Op::Lock {
        mode: Mode::Exclusive,
        owner,
        wait,
        hold: MINUTE,
    }
}

/// All bytes of a value.
pub(super) async fn bytes(app: &AppState, name: &str) -> Result<Vec<u8>, StateError> {
    let size = app.info(&key(name)).await?.size;
    let mut out = Out::of_zeros(size as usize);
    let info = app.get(&key(name), &mut out).await?;
    assert_eq!(info.size, size);
    Ok(out.bytes().to_vec())
}

#[tokio::test]
async fn every_node_uses_every_key() {
    let world = World::of(3).await;
    let apps = world.apps();
    for number in 0..40 {
        let name = format!("key/{number}");
        let (one, other) = (&apps[number % 3], &apps[(number + 1) % 3]);
        let create = match number % 2 {
            0 => Durability::Ephemeral,
            _ => Durability::Durable,
        };
        let run = async |app: &AppState, op: Op<'static>| app.run(&key(&name), &op).await;
        assert!(matches!(
            run(other, Op::Info).await,
            Err(StateError::NotFound)
        ));
        run(one, put(b"begin", create)).await.unwrap();
        let data = b" and on";
        run(other, Op::Append { create, data }).await.unwrap();
        assert_eq!(bytes(one, &name).await.unwrap(), b"begin and on");
        let (offset, data) = (0, &b"B"[..]);
        let write = Op::Write {
            create,
            offset,
            data,
        };
        run(other, write).await.unwrap();
        run(one, Op::Truncate { create, size: 5 }).await.unwrap();
        assert_eq!(bytes(other, &name).await.unwrap(), b"Begin");
        let info = one.info(&key(&name)).await.unwrap();
        assert_eq!(info, other.info(&key(&name)).await.unwrap());
        assert_eq!(info.durability, create);
    }
    let listed = apps[0].list("key/", None, 100).await.unwrap();
    assert_eq!(listed.len(), 40);
    assert_eq!(listed, apps[2].list("key/", None, 100).await.unwrap());
    let rest = apps[1].list("key/", Some("key/7"), 100).await.unwrap();
    assert_eq!(rest.len(), 2);
}

#[tokio::test]
async fn of_many_swaps_from_all_nodes_each_version_is_replaced_once() {
    let world = World::of(3).await;
    let name = key("counter");
    world.apps()[0]
        .run(&name, &put(&0u64.to_le_bytes(), Durability::Durable))
        .await
        .unwrap();
    let tasks = world.apps().into_iter().map(|app| {
        let name = name.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < 20 {
                let mut sum = [0; 8];
                let info = app.get(&name, &mut sum[..].as_mut().into()).await.unwrap();
                let sum = u64::from_le_bytes(sum) + 1;
                match app
                    .run(&name, &swap(&sum.to_le_bytes(), info.version))
                    .await
                {
                    Ok(_) => done += 1,
                    Err(StateError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let sum = bytes(&world.apps()[1], "counter").await.unwrap();
    assert_eq!(sum, 60u64.to_le_bytes());
    let create = Durability::Durable;
    let add = Op::Add {
        create,
        offset: 0,
        amount: 2,
    };
    let added = world.apps()[2].run(&name, &add).await.unwrap();
    assert!(matches!(added, Done::Number(62, _)), "{added:?}");
}

#[tokio::test]
async fn a_value_of_many_pieces_is_read_whole_and_of_one_version() {
    let world = World::of(2).await;
    let data: Vec<u8> = (0..9_000_000u32).map(|at| (at % 251) as u8).collect();
    for number in 0..4 {
        let name = format!("large/{number}");
        let made = put(&data, Durability::Ephemeral);
        world.apps()[0].run(&key(&name), &made).await.unwrap();
        assert!(bytes(&world.apps()[1], &name).await.unwrap() == data);
        let mut part = [0; 4];
        let (app, name) = (world.app("b"), key(&name));
        let read = app
            .read(&name, 8_999_998, &mut part[..].as_mut().into(), 0)
            .await;
        assert_eq!(read.unwrap().1, 2);
        let read = app.read(&name, 0, &mut part[..].as_mut().into(), 1).await;
        assert!(matches!(read, Err(StateError::Conflict { .. })));
    }
}

#[tokio::test]
async fn chunks_are_compared_and_merged() {
    let world = World::of(2).await;
    let (one, other) = (&world.apps()[0], &world.apps()[1]);
    for number in 0..4 {
        let name = key(&format!("m/{number}"));
        let part = [7u8; 10];
        let merge = |size, at| Op::Merge {
            create: Some(Durability::Durable),
            size,
            chunks: vec![(at, &part[..])],
        };
        one.run(&name, &merge(200_000, 1)).await.unwrap();
        let all = Op::Compare {
            first: 0,
            hashes: vec![0; 9],
            version: 0,
        };
        let Done::Chunks(info, chunks) = other.run(&name, &all).await.unwrap() else {
            panic!();
        };
        let sizes: Vec<_> = chunks
            .iter()
            .map(|(at, bytes)| (*at, bytes.len()))
            .collect();
        assert_eq!(sizes, [(0, 0), (1, 10), (2, 0), (3, 0)]);
        let hashes: Vec<_> = chunks
            .iter()
            .map(|(_, bytes)| crate::chunks::hash(bytes))
            .collect();
        let same = |version| Op::Compare {
            first: 0,
            hashes: hashes.clone(),
            version,
        };
        other.run(&name, &merge(0, 3)).await.unwrap();
        let Done::Chunks(now, chunks) = one.run(&name, &same(info.version)).await.unwrap() else {
            panic!();
        };
        assert!(now.version > info.version && now.size == 200_000);
        assert_eq!(chunks.len(), 1);
        assert_eq!((chunks[0].0, &chunks[0].1[..]), (3, &part[..]));
        let unchanged = one.run(&name, &same(now.version)).await.unwrap();
        assert_eq!(unchanged, Done::Chunks(now, Vec::new()));
    }
}

#[tokio::test]
async fn a_lock_is_one_whatever_node_asks() {
    let mut world = World::of(3).await;
    world.keep();
    let apps = world.apps();
    for number in 0..6 {
        let name = key(&format!("lock/{number}"));
        apps[0].run(&name, &lock(1, SECOND)).await.unwrap();
        let busy = apps[1].run(&name, &lock(2, Duration::ZERO)).await;
        assert!(matches!(busy, Err(StateError::LockTimedOut)), "{busy:?}");
        let waits = tokio::spawn({
            let (app, name) = (apps[2].clone(), name.clone());
            async move { app.run(&name, &lock(3, MINUTE)).await }
        });
        let not_held = apps[1].run(&name, &Op::Unlock { owner: 2 }).await;
        assert!(matches!(not_held, Err(StateError::NotLocked)));
        // The end of an invocation, of which its node hears.
        world.states()[0].release_all(1);
        waits.await.unwrap().unwrap();
        apps[1].run(&name, &Op::Unlock { owner: 3 }).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_dead_node_held_is_free() {
    let mut world = World::of(3).await;
    let name = world.key_of("b");
    world.app("a").run(&name, &lock(1, SECOND)).await.unwrap();
    let waits = tokio::spawn({
        let (app, name) = (world.app("c"), name.clone());
        async move { app.run(&name, &lock(2, MINUTE)).await }
    });
    world.kill("a").await;
    world.settle().await;
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_watch_sees_the_changes_of_all_nodes() {
    let world = World::of(3).await;
    let mut watch = world.apps()[0].watch_all("w/").await.unwrap();
    let mut versions = Vec::new();
    for number in 0..12 {
        let name = key(&format!("w/{number}"));
        let app = &world.apps()[number % 3];
        let made = app.run(&name, &put(b"x", Durability::Ephemeral)).await;
        let Ok(Done::Made(info, _)) = made else {
            panic!("{made:?}");
        };
        versions.push((name, info.version));
    }
    let mut seen = Vec::new();
    while seen.len() < versions.len() {
        match watch.next().await {
            WatchItem::Changed { key, version, .. } => seen.push((key, version)),
            WatchItem::Missed(missed) => panic!("{missed} missed"),
        }
    }
    seen.sort();
    versions.sort();
    assert_eq!(seen, versions);
    let app = shop(&world.states()[1]);
    assert_eq!(app.list("w/", None, 100).await.unwrap().len(), 12);
}
