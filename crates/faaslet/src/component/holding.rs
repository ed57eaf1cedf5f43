//! What functions hold, apart from what they do: their memories, kept as differences from one
//! another.
//!
//! ```text
//!   cache: <key>.meta ──▶ Holding { skeleton, strata: [file, runs]…, annex }
//!                                        │
//!          <digest of the pages>.pages ◀─┘  a stratum's pages, which lie over those below it
//! ```
//!
//! Files of pages are named by their contents, and mapped as they are: nothing of them is in memory
//! before it is touched, and what functions have in common is there once.

use std::sync::Arc;

use memory::{Difference, Image, PageRun, Presence};
use model::Digest;
use sandbox::PrepareError;
use serde::{Deserialize, Serialize};

use sandbox::{Cache, CacheError, EntryKind};

/// Strata of one image: a runtime, its packages, a function, and a few in reserve.
pub(super) const STRATA_MAX: usize = 8;
/// A difference is kept as such if it is at most this part of the whole; else mapping it costs more
/// than it saves.
const DIFFERENCE_MAX: (usize, usize) = (7, 8);

/// What a component, or a function made of one, holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Holding {
    /// Digest of the skeleton that it belongs to.
    pub(super) skeleton: Digest,
    /// Bytes of memory that the skeleton declares.
    pub(super) declared_bytes: usize,
    /// Bytes of memory.
    bytes: usize,
    /// Whether a guest that ran can be frozen again.
    pub(super) freezable: bool,
    /// Globals' values, in hexadecimal.
    annex: String,
    strata: Vec<Stratum>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stratum {
    /// Digest of the file.
    file: Digest,
    /// First page and number of pages of each run.
    runs: Vec<(usize, usize)>,
}

/// A memory and the values of globals, as a guest has them.
pub(super) struct State {
    pub(super) memory: Vec<u8>,
    pub(super) annex: Vec<u8>,
}

/// A holding with its image.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) holding: Holding,
    pub(super) image: Arc<Image>,
    /// Bytes that it has for itself.
    pub(super) own_bytes: u64,
}

impl Held {
    /// Keeps what `state` holds, as a difference from `base` if that is smaller, under `key`.
    pub(super) fn keep(
        cache: &Cache,
        key: &Digest,
        mut holding: Holding,
        state: &State,
        base: Option<&Held>,
    ) -> Result<Self, PrepareError> {
        let (part, whole) = DIFFERENCE_MAX;
        let begun_as = base.map(|base| base.image.clone());
        let base = base.filter(|base| base.holding.strata.len() < STRATA_MAX);
        let over = base.map(|base| (base, Difference::of(&state.memory, Some(&base.image))));
        let alone = Difference::of(&state.memory, None);
        let small =
            |difference: &Difference| difference.bytes.len() / part <= alone.bytes.len() / whole;
        let (mut strata, difference) = match over {
            Some((base, difference)) if small(&difference) => {
                (base.holding.strata.clone(), difference)
            }
            _ => (Vec::new(), alone),
        };
        if let Some(base) = base {
            base.image.forget_contents().map_err(unusable)?;
        }
        if begun_as.is_some_and(|image| image.presence() == Presence::Lost) {
            return Err(unusable("what it begins as did not come whole"));
        }
        let file = Digest::of(&difference.bytes);
        let known = cache.load(&file, EntryKind::Pages).map_err(failed)?;
        if known.is_none() {
            cache
                .store(&file, EntryKind::Pages, &difference.bytes)
                .map_err(failed)?;
        }
        strata.push(Stratum {
            file,
            runs: difference
                .runs
                .iter()
                .map(|run| (run.page, run.pages))
                .collect(),
        });
        holding.bytes = state.memory.len();
        holding.annex = hex::encode(&state.annex);
        holding.strata = strata;
        let meta = serde_json::to_vec(&holding).map_err(unusable)?;
        cache.store(key, EntryKind::Meta, &meta).map_err(failed)?;
        let held = Self::of(cache, key, holding)?;
        held.ok_or_else(|| unusable(std::io::Error::from(std::io::ErrorKind::NotFound)))
    }

    /// Bytes of its annex.
    pub(super) fn annex_bytes(&self) -> usize {
        self.holding.annex.len() / 2
    }

    /// What is kept under `key`; none if anything of it is missing or spoiled.
    pub(super) fn find(cache: &Cache, key: &Digest) -> Result<Option<Self>, PrepareError> {
        let Some(path) = cache.load(key, EntryKind::Meta).map_err(failed)? else {
            return Ok(None);
        };
        let meta = std::fs::read(path).map_err(unusable)?;
        match serde_json::from_slice(&meta) {
            Ok(holding) => Self::of(cache, key, holding),
            Err(error) => {
                tracing::warn!(%error, %key, "a cache entry is unusable");
                Ok(None)
            }
        }
    }

    fn of(cache: &Cache, key: &Digest, holding: Holding) -> Result<Option<Self>, PrepareError> {
        let Ok(annex) = hex::decode(&holding.annex) else {
            return Ok(None);
        };
        let (mut pieces, mut own_bytes) = (Vec::new(), 0);
        for stratum in &holding.strata {
            let Some(file) = cache.pages(&stratum.file).map_err(failed)? else {
                return Ok(None);
            };
            own_bytes = file.bytes().map_err(unusable)?;
            let run = |&(page, pages): &(usize, usize)| PageRun { page, pages };
            let runs: Vec<_> = stratum.runs.iter().map(run).collect();
            pieces.extend(Difference::pieces(&runs, &file));
        }
        match Image::of_pieces(holding.bytes, pieces, &annex, *key) {
            Ok(image) => Ok(Some(Self {
                holding,
                image: Arc::new(image),
                own_bytes,
            })),
            Err(error) => {
                tracing::warn!(%error, %key, "a cache entry is unusable");
                Ok(None)
            }
        }
    }
}

impl Holding {
    /// What belongs to `skeleton`, without any memory so far.
    pub(super) fn new(skeleton: Digest, declared_bytes: usize, freezable: bool) -> Self {
        Self {
            skeleton,
            declared_bytes,
            bytes: 0,
            freezable,
            annex: String::new(),
            strata: Vec::new(),
        }
    }
}

/// Where the cache has what is kept under a key.
pub(super) struct Entries {
    pub(super) skeleton: Digest,
    pub(super) all: Vec<(Digest, EntryKind)>,
}

/// The entries of what is kept under `key`; none if the first of them is missing or spoiled.
pub(super) fn entries(cache: &Cache, key: &Digest) -> Result<Option<Entries>, CacheError> {
    let Some(path) = cache.load(key, EntryKind::Meta)? else {
        return Ok(None);
    };
    let meta = std::fs::read(path).ok();
    let holding = meta.and_then(|meta| serde_json::from_slice::<Holding>(&meta).ok());
    Ok(holding.map(|holding| {
        let pages = holding
            .strata
            .iter()
            .map(|stratum| (stratum.file, EntryKind::Pages));
        Entries {
            skeleton: holding.skeleton,
            all: std::iter::once((*key, EntryKind::Meta))
                .chain(pages)
                .collect(),
        }
    }))
}

fn failed(error: CacheError) -> PrepareError {
    super::cache_failed(error)
}

fn unusable(error: impl Into<sandbox::BodyError>) -> PrepareError {
    PrepareError::Platform {
        reason: "keeping what a function holds".into(),
        source: Some(error.into()),
    }
}
