//! Any order of changes, moves and deaths against one map.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::world::{World, slot};
use super::{bytes, put};
use crate::tests::key;
use crate::{Durability, Op, StateError};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Durability, Vec<u8>),
    Append(u8, Durability, Vec<u8>),
    Swap(u8, Vec<u8>),
    Delete(u8),
    Read(u8),
    Kill(prop::sample::Index),
    Join,
    Drain(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let data = || prop::collection::vec(any::<u8>(), 1..6);
    let at = 0..12u8;
    prop_oneof![
        4 => (at.clone(), durability(), data()).prop_map(|(at, d, b)| Step::Put(at, d, b)),
        4 => (at.clone(), durability(), data()).prop_map(|(at, d, b)| Step::Append(at, d, b)),
        3 => (at.clone(), data()).prop_map(|(at, b)| Step::Swap(at, b)),
        2 => at.clone().prop_map(Step::Delete),
        6 => at.prop_map(Step::Read),
        1 => any::<prop::sample::Index>().prop_map(Step::Kill),
        1 => Just(Step::Join),
        1 => any::<prop::sample::Index>().prop_map(Step::Drain),
    ]
}

/// What a key should be.
#[derive(Clone, Debug)]
struct Kept {
    bytes: Vec<u8>,
    durability: Durability,
}

impl Kept {
    /// Whether it goes with its owner. Copies are elsewhere, since no two nodes die at once.
    fn is_in_one_place(&self) -> bool {
        self.durability == Durability::Ephemeral
    }
}

#[derive(Default)]
struct Model {
    keys: BTreeMap<u8, Kept>,
    /// Keys that had a value which went with its node.
    lost: HashSet<u8>,
    /// Slots of which values were lost: keys there may be said to be.
    slots: HashSet<crate::Slot>,
    versions: BTreeMap<u8, u64>,
}

const NODES_MAX: usize = 5;

fn name(at: u8) -> crate::Key {
    key(&format!("k{at}"))
}

impl Model {
    /// A node took what was in memory only with it.
    fn lose(&mut self, world: &World, node: &str) {
        let gone: Vec<_> = self
            .keys
            .iter()
            .filter(|(at, kept)| {
                kept.is_in_one_place() && world.owner(&name(**at)).as_deref() == Some(node)
            })
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            self.keys.remove(&at);
            self.lost.insert(at);
            self.slots.insert(slot(&name(at)));
        }
        // Of slots that ever had such a value on it, marks may have stayed.
        for at in 0..12 {
            if world.owner(&name(at)).as_deref() == Some(node) {
                self.slots.insert(slot(&name(at)));
            }
        }
    }

    fn expects_loss(&self, at: u8) -> bool {
        !self.keys.contains_key(&at) && self.slots.contains(&slot(&name(at)))
    }

    fn set(&mut self, at: u8, durability: Durability, bytes: Vec<u8>) {
        let old = self.keys.get(&at);
        let durability = old.map_or(durability, |kept| kept.durability);
        self.keys.insert(at, Kept { bytes, durability });
        self.lost.remove(&at);
    }
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Ephemeral),
        Just(Durability::Durable),
        Just(Durability::Replicated),
    ]
}

async fn change(world: &World, model: &mut Model, step: &Step, turn: usize) {
    let apps = world.apps();
    let app = &apps[turn % apps.len()];
    match step {
        Step::Put(at, durability, data) => {
            app.run(&name(*at), &put(data, *durability)).await.unwrap();
            model.set(*at, *durability, data.clone());
        }
        Step::Append(at, durability, data) => {
            let create = *durability;
            match app.run(&name(*at), &Op::Append { create, data }).await {
                Ok(_) => {
                    assert!(!model.lost.contains(at), "what was lost went on");
                    let old = model.keys.get(at).map(|kept| kept.bytes.clone());
                    let all = [old.unwrap_or_default(), data.clone()].concat();
                    model.set(*at, *durability, all);
                }
                Err(StateError::Lost) => assert!(model.expects_loss(*at)),
                Err(error) => panic!("{error}"),
            }
        }
        Step::Swap(at, data) => {
            let Ok(info) = app.info(&name(*at)).await else {
                return;
            };
            let app = &apps[(turn + 1) % apps.len()];
            app.run(&name(*at), &super::swap(data, info.version))
                .await
                .unwrap();
            model.set(*at, Durability::Durable, data.clone());
        }
        Step::Delete(at) => match app.run(&name(*at), &Op::Delete { expected: None }).await {
            Ok(_) | Err(StateError::NotFound) => {
                assert!(!model.lost.contains(at), "a loss was not told");
                model.keys.remove(at);
            }
            Err(StateError::Lost) => {
                assert!(model.expects_loss(*at));
                model.lost.remove(at);
            }
            Err(error) => panic!("{error}"),
        },
        _ => {}
    }
}

async fn check(world: &World, model: &mut Model, at: u8, turn: usize) {
    let apps = world.apps();
    let app = &apps[turn % apps.len()];
    match bytes(app, name(at).as_str()).await {
        Ok(found) => assert_eq!(Some(&found), model.keys.get(&at).map(|kept| &kept.bytes)),
        Err(StateError::NotFound) => {
            assert!(!model.keys.contains_key(&at), "a value is gone");
            assert!(!model.lost.contains(&at), "a loss was not told");
        }
        Err(StateError::Lost) => assert!(model.expects_loss(at), "a value was said to be lost"),
        Err(error) => panic!("{error}"),
    }
    if let Ok(info) = app.info(&name(at)).await {
        let last = model.versions.insert(at, info.version);
        assert!(last.is_none_or(|last| last <= info.version));
    }
}

async fn run(steps: Vec<Step>) {
    let mut world = World::of(3).await;
    let (mut model, mut joined) = (Model::default(), 3u8);
    for (turn, step) in steps.iter().enumerate() {
        match step {
            Step::Read(at) => check(&world, &mut model, *at, turn).await,
            Step::Kill(which) if world.names().len() > 1 => {
                let names = world.names();
                let node = which.get(&names);
                model.lose(&world, node);
                world.kill(node).await;
                world.settle().await;
            }
            Step::Drain(which) if world.names().len() > 1 => {
                let names = world.names();
                let node = which.get(&names);
                model.lose(&world, node);
                world.drain(node);
                world.settle().await;
                world.kill(node).await;
                world.settle().await;
            }
            Step::Join if world.names().len() < NODES_MAX => {
                let fresh = char::from(b'a' + joined).to_string();
                joined += 1;
                world.join(&fresh);
                world.settle().await;
            }
            step => change(&world, &mut model, step, turn).await,
        }
    }
    for at in 0..12 {
        check(&world, &mut model, at, at.into()).await;
    }
}

proptest! {
    // Each case starts nodes and a store.
    #![proptest_config(ProptestConfig::with_cases(
        ProptestConfig::default().cases.div_ceil(16)
    ))]

    #[test]
    fn nodes_are_as_one_map_that_tells_what_it_lost(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
