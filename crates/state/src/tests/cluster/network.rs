//! Nodes that do not hear each other, or do not know that they are dead.

use std::time::Duration;

use bytes::Bytes;

use super::world::{World, id};
use super::{bytes, put};
use crate::tier::wire::{Request, What};
use crate::{Config, Durability, Name, Op, StateError};

#[tokio::test]
async fn an_owner_that_was_replaced_writes_and_acknowledges_nothing_durable() {
    let world = World::of(3).await;
    let name = world.key_of("b");
    let b = world.app("b");
    let durable = |data| put(data, Durability::Durable);
    b.run(&name, &durable(b"first")).await.unwrap();
    // The store and the others take it for dead; its own clock says that it is not.
    world.lose("b").await;
    world.settle_but("b").await;
    let a = world.app("a");
    a.run(&name, &durable(b"second")).await.unwrap();
    // It is refused at the store, and asks the owner that there is now.
    let append = Op::Append {
        create: Durability::Durable,
        data: b" third",
    };
    b.run(&name, &append).await.unwrap();
    for app in world.apps() {
        assert_eq!(bytes(&app, name.as_str()).await.unwrap(), b"second third");
    }
}

#[tokio::test]
async fn who_cannot_be_reached_is_not_waited_for_for_ever() {
    let config = Config {
        owner_wait_max: Duration::from_millis(300),
        ..Config::default()
    };
    let world = World::with(2, config).await;
    let name = world.key_of("b");
    let way = (id("a"), id("b"));
    world.net.cut.lock().insert(way.clone());
    let app = world.app("a");
    let put = put(b"x", Durability::Ephemeral);
    let failed = app.run(&name, &put).await;
    assert!(
        matches!(failed, Err(StateError::Unreached(Some(_)))),
        "{failed:?}"
    );
    let failed = app.list("", None, 10).await;
    assert!(matches!(failed, Err(StateError::Unreached(_))));
    world.net.cut.lock().remove(&way);
    app.run(&name, &put).await.unwrap();
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let world = World::of(2).await;
    let name = world.key_of("b");
    let way = (id("a"), id("b"));
    world.net.deaf.lock().insert(way.clone());
    let append = Op::Append {
        create: Durability::Ephemeral,
        data: b"x",
    };
    let app = world.app("a");
    let open = app.run(&name, &append).await;
    assert!(matches!(open, Err(StateError::Unanswered(_))), "{open:?}");
    world.net.deaf.lock().remove(&way);
    assert_eq!(bytes(&app, name.as_str()).await.unwrap(), b"x");
}

#[tokio::test]
async fn a_cut_that_heals_is_not_noticed() {
    let world = World::of(2).await;
    let name = world.key_of("b");
    let way = (id("a"), id("b"));
    world.net.cut.lock().insert(way.clone());
    let app = world.app("a");
    let waits = tokio::spawn({
        let name = name.clone();
        async move { app.run(&name, &put(b"x", Durability::Durable)).await }
    });
    tokio::task::yield_now().await;
    world.net.cut.lock().remove(&way);
    waits.await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_of_strangers_and_for_other_claims_do_nothing() {
    let world = World::of(2).await;
    let name = world.key_of("b");
    let serve = world.states()[1].serve().unwrap();
    for garbage in [&b""[..], b"\x01", b"\x02aaaaaaaaaaaa", &[1; 64]] {
        let reply = serve.answer(&id("a"), &Bytes::from_static(garbage)).await;
        assert_eq!(reply.head[..2], [1, 5], "{garbage:?}");
    }
    let ask = async |from: u64, claim: u64, op: Op<'_>| {
        let name = Name {
            app: "shop".parse().unwrap(),
            key: name.clone(),
        };
        let what = What::Key { claim, name, op };
        let request = Request { from, what };
        let (head, data) = request.parts();
        let request = Bytes::from([&head[..], data].concat());
        serve.answer(&id("a"), &request).await.head[1]
    };
    let put = put(b"x", Durability::Ephemeral);
    // An earlier claim, and a node of an earlier life.
    assert_eq!(ask(1, 1, put).await, 2);
    let held = world.net.token(&name);
    let lock = super::lock(1, super::SECOND);
    assert_eq!(ask(77, held, lock.clone()).await, 3);
    assert_eq!(ask(1, held, lock).await, 0);
    let nothing = world.app("a").info(&name).await;
    assert!(matches!(nothing, Err(StateError::NotFound)));
}
