//! What one node knows of all, laid out so that a decision is one pass over it.
//!
//! Which nodes have a warm sandbox or an image is kept by image, as lists in the order of slots: a
//! decision looks its image up once, and walks the lists along with the nodes.

use std::collections::HashMap;

use model::{Digest, NodeId};
use xxhash_rust::xxh3::xxh3_64;

use crate::amount::Gauge;
use crate::{Ledger, Resources};

/// Whether a node takes new calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It does.
    #[default]
    Serving,
    /// It was told not to; what runs there goes on.
    Cordoned,
    /// It finishes what runs, then stops.
    Draining,
    /// Its lease is over.
    Lost,
}

/// The first eight bytes of a digest. Two that collide cost a worse placement, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

impl From<&Digest> for Tag {
    fn from(digest: &Digest) -> Self {
        let mut word = [0; 8];
        word.copy_from_slice(&digest.as_bytes()[..8]);
        Self(u64::from_be_bytes(word))
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// All it has.
    pub capacity: Resources,
    /// What runs there takes, without what is reserved for groups.
    pub used: Resources,
    /// Calls that wait there.
    pub waiting: u32,
    /// Calls that may wait there.
    pub waiting_max: u32,
    /// Idle sandboxes of each version.
    pub warm: Vec<(Tag, u32)>,
    /// Versions whose image is there.
    pub images: Vec<Tag>,
}

/// What changes most in what a node says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    /// Places in use.
    pub used: u32,
    /// Calls that wait there.
    pub waiting: u32,
}

/// The numbers of one node, next to each other for the pass over all.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub id: NodeId,
    /// Spreads equal nodes; of the id alone, so that the order of arrival has no say.
    pub salt: u64,
    pub standing: Standing,
    pub capacity: Resources,
    pub gauge: Gauge,
    pub used: Resources,
    pub reserved: Resources,
    pub waiting: u32,
    pub waiting_max: u32,
    /// Calls that were assumed there and are not over: what the deciding node knows for certain.
    pub sent: u32,
    /// The revision of the ledger that `reserved` is from.
    pub ledger: u64,
    /// Which of all words that were taken its last one is, and which what it said since then.
    word: u64,
    brief: u64,
    /// As many words had been taken when it became known.
    known: u64,
}

/// A call that is counted at a node until it is over or the node speaks, whichever comes first.
/// What the node says with an answer counts its places, and not its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    id: NodeId,
    needs: Resources,
    waits: bool,
    word: u64,
    brief: u64,
    known: u64,
}

impl Assumed {
    /// The node that it is counted at.
    pub fn node(&self) -> &NodeId {
        &self.id
    }
}

impl Node {
    /// What is taken, by calls and for groups.
    pub fn taken(&self) -> Resources {
        self.used.plus(self.reserved)
    }

    /// How full it would be with `more`, in thousandths.
    pub fn full_permille(&self, more: Resources) -> u64 {
        self.gauge.permille(self.taken().plus(more))
    }

    pub fn free(&self) -> Resources {
        self.capacity.minus(self.taken())
    }
}

/// What is listed of a node elsewhere, to take it off the lists.
#[derive(Clone, Debug, Default)]
struct Listed {
    warm: Vec<Tag>,
    images: Vec<Tag>,
}

/// All nodes that are known. Dead ones are removed, or [`Standing::Lost`].
#[derive(Clone, Debug, Default)]
pub struct View {
    nodes: Vec<Option<Node>>,
    listed: Vec<Listed>,
    vacant: Vec<u32>,
    slots: HashMap<NodeId, u32>,
    warm: HashMap<Tag, Vec<(u32, u32)>>,
    images: HashMap<Tag, Vec<u32>>,
    /// Words of nodes that were taken.
    words: u64,
}

impl View {
    /// A view of nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes what a node says: its load replaces an earlier one and what was assumed since then.
    /// What is reserved there stays.
    pub fn put(&mut self, id: &NodeId, standing: Standing, load: &Load) {
        let slot = self.slot_for(id);
        self.unlist(slot);
        self.words += 1;
        for (tag, count) in &load.warm {
            let list = self.warm.entry(*tag).or_default();
            match list.binary_search_by_key(&slot, |entry| entry.0) {
                Ok(at) => list[at].1 = list[at].1.saturating_add(*count),
                Err(at) => list.insert(at, (slot, *count)),
            }
        }
        for tag in &load.images {
            let list = self.images.entry(*tag).or_default();
            if let Err(at) = list.binary_search(&slot) {
                list.insert(at, slot);
            }
        }
        let listed = &mut self.listed[slot as usize];
        listed.warm = load.warm.iter().map(|(tag, _)| *tag).collect();
        listed.images = load.images.clone();
        if let Some(node) = &mut self.nodes[slot as usize] {
            node.standing = standing;
            (node.capacity, node.used) = (load.capacity, load.used);
            node.gauge = Gauge::of(load.capacity);
            (node.waiting, node.waiting_max) = (load.waiting, load.waiting_max);
            (node.word, node.brief) = (self.words, self.words);
        }
    }

    /// Forgets a node; false when it was not known.
    pub fn remove(&mut self, id: &NodeId) -> bool {
        let Some(slot) = self.slots.remove(id) else {
            return false;
        };
        self.unlist(slot);
        self.nodes[slot as usize] = None;
        self.vacant.push(slot);
        true
    }

    /// Takes what a node says of itself between two words, with its answer to a call: how many of
    /// its places are in use, and how many calls wait there. The calls that were assumed before
    /// count in it; their memory is assumed as before.
    pub fn hear(&mut self, id: &NodeId, brief: Brief) {
        self.words += 1;
        let word = self.words;
        if let Some(node) = self.node_mut(id) {
            node.used.places = brief.used;
            node.waiting = brief.waiting;
            node.brief = word;
        }
    }

    /// Counts a call that is sent to `id` until it is over or that node's next word counts it:
    /// without it, all calls between two words would go to whoever was best at the first.
    pub fn assume(&mut self, id: &NodeId, needs: Resources) -> Option<Assumed> {
        let node = self.node_mut(id)?;
        node.sent += 1;
        let waits = !needs.fits_in(node.free());
        match waits {
            false => node.used = node.used.plus(needs),
            true => node.waiting = node.waiting.saturating_add(1),
        }
        Some(Assumed {
            id: id.clone(),
            needs,
            waits,
            word: node.word,
            brief: node.brief,
            known: node.known,
        })
    }

    /// Takes off what was assumed, once the call is over; what the node said since then stands.
    pub fn release(&mut self, assumed: &Assumed) {
        let node = self.node_mut(&assumed.id);
        let Some(node) = node.filter(|node| node.known == assumed.known) else {
            return;
        };
        node.sent -= 1;
        if node.word != assumed.word {
            return;
        }
        match assumed.waits {
            false if node.brief == assumed.brief => node.used = node.used.minus(assumed.needs),
            false => {
                let left = node.used.memory_bytes;
                node.used.memory_bytes = left.saturating_sub(assumed.needs.memory_bytes);
            }
            true if node.brief == assumed.brief => {
                node.waiting = node.waiting.saturating_sub(1);
            }
            true => {}
        }
    }

    /// Takes what is reserved on a node, as of those holders that are alive.
    pub fn reserve(&mut self, id: &NodeId, ledger: &Ledger, reserved: Resources) -> bool {
        let node = self.node_mut(id);
        let is_known = node.is_some();
        if let Some(node) = node {
            (node.reserved, node.ledger) = (reserved, ledger.revision);
        }
        is_known
    }

    pub(crate) fn slot(&self, id: &NodeId) -> Option<u32> {
        self.slots.get(id).copied()
    }

    pub(crate) fn node(&self, slot: u32) -> Option<&Node> {
        self.nodes.get(slot as usize)?.as_ref()
    }

    /// The nodes and their slots, in the order of slots.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0..)
            .zip(&self.nodes)
            .filter_map(|(slot, node)| Some((slot, node.as_ref()?)))
    }

    pub(crate) fn warm(&self, tag: Tag) -> &[(u32, u32)] {
        self.warm.get(&tag).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn images(&self, tag: Tag) -> &[u32] {
        self.images.get(&tag).map_or(&[], Vec::as_slice)
    }

    fn node_mut(&mut self, id: &NodeId) -> Option<&mut Node> {
        let slot = *self.slots.get(id)?;
        self.nodes.get_mut(slot as usize)?.as_mut()
    }

    fn slot_for(&mut self, id: &NodeId) -> u32 {
        if let Some(slot) = self.slots.get(id) {
            return *slot;
        }
        let node = Node {
            id: id.clone(),
            salt: xxh3_64(id.as_str().as_bytes()),
            standing: Standing::default(),
            capacity: Resources::default(),
            gauge: Gauge::of(Resources::default()),
            used: Resources::default(),
            reserved: Resources::default(),
            waiting: 0,
            waiting_max: 0,
            sent: 0,
            ledger: 0,
            word: 0,
            brief: 0,
            known: self.words,
        };
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.listed.push(Listed::default());
            // A view of more than 2^32 nodes would not fit in memory.
            (self.nodes.len() - 1) as u32
        });
        self.nodes[slot as usize] = Some(node);
        self.slots.insert(id.clone(), slot);
        slot
    }

    fn unlist(&mut self, slot: u32) {
        let listed = std::mem::take(&mut self.listed[slot as usize]);
        for tag in listed.warm {
            if let Some(list) = self.warm.get_mut(&tag) {
                list.retain(|entry| entry.0 != slot);
                if list.is_empty() {
                    self.warm.remove(&tag);
                }
            }
        }
        for tag in listed.images {
            if let Some(list) = self.images.get_mut(&tag) {
                list.retain(|entry| *entry != slot);
                if list.is_empty() {
                    self.images.remove(&tag);
                }
            }
        }
    }
}
