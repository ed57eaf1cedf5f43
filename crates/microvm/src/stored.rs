//! What the cache holds of a version: its guest as it was loaded, and as it waits for a call.
//!
//! ```text
//!  version's key ─▶ image, meta, names      the guest at its entry
//!     loop's key ─▶ process                 of a Linux program: its process at its request loop,
//!                                           or why it is not frozen there
//!                └▶ image, meta             what belongs to that process
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use files::Layer;
use memory::{Image, ImageBuilder};
use model::{Digest, Isolation, Kind, VersionSpec};
use sandbox::{BodyError, Cache, CacheError, EntryKind, all_there};

use crate::backend::note;
use crate::elf::Symbols;
use crate::frozen::Frozen;
use crate::inside;
use crate::linux::{NotFrozen, Saved, command};
use crate::program::Beginning;
use crate::shells::Shells;

/// The process of a loop's key is one, or a reason why there is none.
const FROZEN: u8 = 1;
const NOT_FROZEN: u8 = 0;

/// A guest taken as it stood.
pub(crate) struct Taken {
    pub image: ImageBuilder,
    pub frozen: Frozen,
}

/// What a deploy makes.
pub(crate) struct Made {
    pub entry: Taken,
    /// Of a Linux program only.
    pub request_loop: Option<Result<(Taken, Saved), NotFrozen>>,
}

impl Made {
    /// What a deploy tells of it.
    pub fn note(&self) -> Option<String> {
        match &self.request_loop {
            Some(Err(reason)) => Some(note(&reason.to_string())),
            _ => None,
        }
    }
}

/// What a load finds.
pub(crate) struct Found {
    pub entry: Beginning,
    pub request_loop: Option<(Beginning, Saved)>,
    /// Why there is none, if it was looked for.
    pub not_frozen: Option<String>,
    pub symbols: Symbols,
}

/// Images depend on all settings of their version, and on the runtime that it may have inside.
fn keys(spec: &VersionSpec) -> [Digest; 2] {
    let runtime = match spec.settings.isolation {
        Isolation::WasmVm => inside::RUNTIME,
        Isolation::Wasm | Isolation::Vm => &[],
    };
    let (version, runtime) = (spec.digest(), Digest::of(runtime));
    let key =
        |what: &[u8]| Digest::of_parts([what, version.as_bytes().as_slice(), runtime.as_bytes()]);
    [key(b"microvm 3"), key(b"microvm loop 2")]
}

/// Why something could not be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Describe(BodyError),
}

fn describe<E: Into<BodyError>>(error: E) -> StoreError {
    StoreError::Describe(error.into())
}

/// Stores what was made of an artifact, in place of what was there. Gives the bytes of the images.
pub(crate) fn store(
    cache: &Cache,
    spec: &VersionSpec,
    made: &Made,
    artifact: &[u8],
    features: &[u8],
) -> Result<u64, StoreError> {
    let [entry, request_loop] = keys(spec);
    // What is left when this is cut short must not be parts of two runs.
    for key in [&entry, &request_loop] {
        cache.remove(key)?;
    }
    cache.store(&entry, EntryKind::Names, &Symbols::read(artifact).encode())?;
    let mut bytes = store_taken(cache, &entry, &made.entry, features)?;
    let process = match &made.request_loop {
        None => return Ok(bytes),
        Some(Err(reason)) => [&[NOT_FROZEN], reason.to_string().as_bytes()].concat(),
        Some(Ok((taken, saved))) => {
            bytes += store_taken(cache, &request_loop, taken, features)?;
            let saved = saved.encode().map_err(describe)?;
            bytes += saved.len() as u64;
            [&[FROZEN], saved.as_slice()].concat()
        }
    };
    cache.store(&request_loop, EntryKind::Process, &process)?;
    Ok(bytes)
}

fn store_taken(
    cache: &Cache,
    key: &Digest,
    taken: &Taken,
    features: &[u8],
) -> Result<u64, StoreError> {
    let meta = taken.frozen.encode(features).map_err(describe)?;
    let image = taken.image.encode();
    cache.store(key, EntryKind::Image, &image)?;
    cache.store(key, EntryKind::Meta, &meta)?;
    Ok(image.len() as u64)
}

/// The files of a version in the cache.
pub(crate) struct Paths {
    entry: [PathBuf; 3],
    request_loop: Option<(Vec<u8>, Option<[PathBuf; 2]>)>,
}

/// Where the cache holds a version, if it holds all of it.
pub(crate) fn find(cache: &Cache, spec: &VersionSpec) -> Result<Option<Paths>, CacheError> {
    let [entry, request_loop] = keys(spec);
    let (Some(image), Some(meta), Some(names)) = (
        cache.load(&entry, EntryKind::Image)?,
        cache.load(&entry, EntryKind::Meta)?,
        cache.load(&entry, EntryKind::Names)?,
    ) else {
        return Ok(None);
    };
    let mut paths = Paths {
        entry: [image, meta, names],
        request_loop: None,
    };
    if !matches!(spec.kind, Kind::Command | Kind::Lambda) {
        return Ok(Some(paths));
    }
    let Some(process) = cache.load(&request_loop, EntryKind::Process)? else {
        return Ok(None);
    };
    let read = read_process(process)?;
    let files = match read.first() {
        Some(&FROZEN) => {
            let (Some(image), Some(meta)) = (
                cache.load(&request_loop, EntryKind::Image)?,
                cache.load(&request_loop, EntryKind::Meta)?,
            ) else {
                return Ok(None);
            };
            Some([image, meta])
        }
        _ => None,
    };
    paths.request_loop = Some((read, files));
    Ok(Some(paths))
}

/// Names what is stored of a version here: only processors with the same features can use it.
pub(crate) fn product(spec: &VersionSpec, features: &[u8]) -> Digest {
    let [entry, request_loop] = keys(spec);
    let features = Digest::of(features);
    let parts = [&entry, &request_loop, &features].map(|part| part.as_bytes().as_slice());
    Digest::of_parts([b"microvm".as_slice()].into_iter().chain(parts))
}

/// The entries that [`find`] reads, if all of them are there.
pub(crate) fn entries(
    cache: &Cache,
    spec: &VersionSpec,
) -> Result<Option<Vec<(Digest, EntryKind)>>, CacheError> {
    let [entry, request_loop] = keys(spec);
    let of_entry = [EntryKind::Image, EntryKind::Meta, EntryKind::Names];
    let mut entries: Vec<_> = of_entry.map(|kind| (entry, kind)).into();
    if matches!(spec.kind, Kind::Command | Kind::Lambda) {
        let Some(process) = cache.load(&request_loop, EntryKind::Process)? else {
            return Ok(None);
        };
        if read_process(process)?.first() == Some(&FROZEN) {
            let of_loop = [EntryKind::Image, EntryKind::Meta];
            entries.extend(of_loop.map(|kind| (request_loop, kind)));
        }
        entries.push((request_loop, EntryKind::Process));
    }
    all_there(cache, entries)
}

fn read_process(path: PathBuf) -> Result<Vec<u8>, CacheError> {
    std::fs::read(&path).map_err(|source| CacheError::Io {
        doing: "read the cache entry",
        path,
        source,
    })
}

/// Reads a version that is in the cache, whose files lie over `layer`.
pub(crate) fn load(
    paths: &Paths,
    spec: &VersionSpec,
    features: &[u8],
    shells: &Shells,
    layer: &Arc<Layer>,
) -> Result<Found, BodyError> {
    let [image, meta, names] = &paths.entry;
    let beginning = |image: &PathBuf, meta: &PathBuf| -> Result<Beginning, BodyError> {
        let cap = spec.settings.limits.memory_bytes_max;
        let image = Arc::new(Image::read(image)?);
        Ok(Beginning {
            overlay: shells.overlay(&image),
            image,
            frozen: Frozen::decode(&std::fs::read(meta)?, cap, features)?,
        })
    };
    let mut found = Found {
        entry: beginning(image, meta)?,
        request_loop: None,
        not_frozen: None,
        symbols: Symbols::decode(&std::fs::read(names)?),
    };
    if let Some((process, files)) = &paths.request_loop {
        let rest = process.get(1..).unwrap_or_default();
        match files {
            Some([image, meta]) => {
                let saved = command::read(rest, &spec.settings, layer)?;
                found.request_loop = Some((beginning(image, meta)?, saved));
            }
            None => found.not_frozen = Some(String::from_utf8_lossy(rest).into_owned()),
        }
    }
    Ok(found)
}
