//! Values that nodes share: clients that read and replace them at any node, and what of it must
//! hold.
//!
//! Each content is written once, so that a reader sees whose it is. Of each value it must hold:
//! - What was acknowledged before a read began is what it sees, or something later; a loss is told,
//!   and only where it may be: of what is in memory only, once its node left; of what is in the
//!   memory of two nodes, once two have, or one while an owner did not reach the others.
//! - A version has one content, all of which is there, and which somebody wrote.
//! - Between what a swap found and what it put nothing was acknowledged.
//! - What was said not to be done does not show any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use state::{Data, Done, Durability, Key, Op, Put, StateError};
use tokio::sync::oneshot;

use crate::host::Host;
use crate::world::World;

/// Values, of each durability as many.
const VALUES: usize = 12;
/// From one look of a client at a value to the next, at most.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// After which an answer does not come any more.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one that has a copy and is gone is not replaced, at most.
const REPLACED_MAX: Duration = Duration::from_secs(5);
/// Bytes of a long content: more than a chunk.
const LONG_BYTES: usize = 70_000;
/// Contents of one client.
const CONTENTS_MAX: u64 = 1 << 20;

/// What is known of all values.
pub(crate) struct Values(Vec<Known>);

/// What is known of a value.
#[derive(Default)]
struct Known {
    /// The contents of the versions that were seen or acknowledged.
    versions: BTreeMap<u64, u64>,
    /// The greatest version that was acknowledged, and when its writer began.
    last: (u64, Duration),
    acknowledged: BTreeSet<u64>,
    /// What swaps put, and what they found.
    swaps: BTreeMap<u64, u64>,
    tried: BTreeSet<u64>,
    /// Contents that were said not to be put, and when.
    refused: BTreeMap<u64, Duration>,
}

/// What a client sees of a value.
enum Seen {
    /// Its version.
    Value(u64),
    Nothing,
    Lost,
    /// There was no answer, or none that says something of the value.
    Unknown,
}

fn key(value: usize) -> Key {
    // A short name is a key.
    format!("value {value}").parse().expect("a key")
}

fn durability(value: usize) -> Durability {
    match value % 3 {
        0 => Durability::Durable,
        1 => Durability::Replicated,
        _ => Durability::Ephemeral,
    }
}

/// A content by its number.
fn content(number: u64) -> Vec<u8> {
    let mut content = format!("{number}:").into_bytes();
    if number.is_multiple_of(8) {
        content.resize(LONG_BYTES, number as u8 | 1);
    }
    content
}

/// The number of a content that is whole.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let end = bytes.iter().position(|byte| *byte == b':')?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    (content(number) == bytes).then_some(number)
}

impl Values {
    pub fn new() -> Self {
        Self((0..VALUES).map(|_| Known::default()).collect())
    }
}

impl Known {
    /// A version was seen, or acknowledged, with a content, by one who began then.
    fn learn(&mut self, began: Duration, version: u64, number: u64) -> Result<(), String> {
        if !self.tried.contains(&number) {
            return Err(format!("version {version} has a content that nobody wrote"));
        }
        if self.refused.get(&number).is_some_and(|at| *at <= began) {
            return Err(format!("content {number} was said not to be put"));
        }
        let other = self.versions.insert(version, number);
        if other.is_some_and(|other| other != number) {
            return Err(format!(
                "version {version} has contents {other:?}, {number}"
            ));
        }
        Ok(())
    }

    /// A version was acknowledged, in place of what a swap found.
    fn acknowledged(&mut self, version: u64, found: Option<u64>) -> Result<(), String> {
        self.acknowledged.insert(version);
        let mut swaps = self.swaps.range(version + 1..);
        let over = swaps.next().map(|(to, from)| (*to, *from));
        let over = over.filter(|(_, from)| *from < version);
        let found = found.map(|from| (from, self.acknowledged.range(from + 1..version).next()));
        if let Some((from, _)) = found {
            self.swaps.insert(version, from);
        }
        let (between, from, to) = match (over, found) {
            (Some((to, from)), _) => (version, from, to),
            (None, Some((from, Some(between)))) => (*between, from, version),
            _ => return Ok(()),
        };
        Err(format!(
            "a swap put {to} in place of {from}, though {between} came after it"
        ))
    }
}

/// Does all that client `n` does with values.
pub(crate) async fn run(world: Arc<World>, n: u64) {
    let mut throw = world.dice.throw("values", &[n]);
    let numbers = n * CONTENTS_MAX..;
    for number in numbers {
        tokio::time::sleep(throw.time(PAUSE_MAX)).await;
        if world.post.now() >= world.plan.span {
            break;
        }
        let (value, node) = (throw.index(VALUES), throw.index(world.plan.nodes));
        let seen = look(&world, value, node).await;
        if throw.chance(600) {
            put(&world, value, throw.index(world.plan.nodes), &seen, number).await;
        }
    }
    // In the end, everything is there again.
    let value = n as usize % VALUES;
    while let Seen::Unknown = look(&world, value, throw.index(world.plan.nodes)).await {
        tokio::time::sleep(throw.time(PAUSE_MAX)).await;
    }
}

/// Reads a value at a node.
async fn look(world: &Arc<World>, value: usize, node: usize) -> Seen {
    let began = world.post.now();
    let last = world.values.lock().0[value].last;
    let whole = Op::Read {
        offset: 0,
        length: u64::MAX,
        version: 0,
    };
    let read = visit(world, node, value, whole).await;
    let (seen, fault) = match read {
        Some(Ok(Done::Bytes(info, bytes))) => {
            let fault = saw(world, value, (began, last.0), (info.version, &bytes));
            (Seen::Value(info.version), fault)
        }
        Some(Err(StateError::NotFound)) => {
            let fault = (last.0 > 0).then(|| format!("version {} is gone", last.0));
            (Seen::Nothing, fault)
        }
        Some(Err(StateError::Lost)) => (Seen::Lost, lost(world, value, last)),
        _ => (Seen::Unknown, None),
    };
    world.values_hold(value, node, fault);
    seen
}

/// What is wrong with what was read.
fn saw(
    world: &World,
    value: usize,
    (began, last): (Duration, u64),
    (version, bytes): (u64, &Bytes),
) -> Option<String> {
    let mut values = world.values.lock();
    world.witness.lock().summary.looked += 1;
    if version < last {
        return Some(format!("version {version} was read after {last}"));
    }
    match number_of(bytes) {
        Some(number) => values.0[value].learn(began, version, number).err(),
        None => Some(format!("version {version} is not as it was written")),
    }
}

/// What is wrong with that a value is said to be lost.
fn lost(world: &World, value: usize, (version, since): (u64, Duration)) -> Option<String> {
    let mut witness = world.witness.lock();
    witness.summary.losses += 1;
    let (before, now) = (since.saturating_sub(REPLACED_MAX), world.post.now());
    let may_be_alone = witness.was_alone_since(before) || world.weather.was_troubled(before, now);
    let (since, least) = match durability(value) {
        Durability::Durable => (since, usize::MAX),
        Durability::Replicated if !may_be_alone => (before, 2),
        _ => (since, 1),
    };
    let left = witness.left_since(since);
    let may_be = version == 0 && least < usize::MAX || left >= least;
    (!may_be).then(|| format!("version {version} is lost, and {left} nodes left since {since:?}"))
}

/// Replaces what was seen, or begins anew after a loss.
async fn put(world: &Arc<World>, value: usize, node: usize, seen: &Seen, number: u64) {
    let expected = match seen {
        Seen::Value(version) => Some(*version),
        Seen::Nothing => Some(0),
        Seen::Lost => None,
        Seen::Unknown => return,
    };
    let began = world.post.now();
    world.values.lock().0[value].tried.insert(number);
    let op = Op::Put {
        create: Some(durability(value)),
        put: Put {
            expected,
            ttl: None,
        },
        data: Data::Given(content(number).into()),
    };
    let done = visit(world, node, value, op).await;
    let mut values = world.values.lock();
    let known = &mut values.0[value];
    let fault = match done {
        Some(Ok(Done::Made(info, _))) => {
            world.witness.lock().summary.replaced += 1;
            if info.version > known.last.0 {
                known.last = (info.version, began);
            }
            let learnt = known.learn(began, info.version, number);
            let acknowledged = known.acknowledged(info.version, expected);
            learnt.and(acknowledged).err()
        }
        Some(Err(StateError::Conflict { .. } | StateError::Unreached(_) | StateError::Lost)) => {
            // A durable value may show before it is durable, and never is then.
            known.refused.insert(number, world.post.now());
            None
        }
        _ => None,
    };
    drop(values);
    world.values_hold(value, node, fault);
}

impl World {
    fn values_hold(&self, value: usize, node: usize, fault: Option<String>) {
        if let Some(fault) = fault {
            let kind = durability(value);
            let what = format!("at n{node}, of {kind:?} value {value}: {fault}");
            self.witness.lock().broken(self.post.now(), what);
        }
    }
}

/// Does something with a value at a node; none where that is not up, dies meanwhile, or does not
/// answer in time.
async fn visit(
    world: &World,
    node: usize,
    value: usize,
    op: Op<'static>,
) -> Option<Result<Done, StateError>> {
    let host: Arc<Host> = world.host(node)?;
    let app = host.share()?.state.app(&"app".parse().ok()?);
    let (reply, answer) = oneshot::channel();
    // One that nobody waits for any more is no answer.
    host.spawn(async move { drop(reply.send(app.run(&key(value), &op).await)) });
    drop(host);
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.ok()?.ok()
}
