//! What is known of a call beside its load: how long its version's image is, and where the keys are
//! that its function names. What is not known yet counts as nothing and is looked up in the
//! background, so that no call waits for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use executor::Job;
use model::{AppName, Digest, NearKey, VersionSpec};
use parking_lot::Mutex;
use scheduler::Holding;
use state::{Key, State};
use storage::Blobs;
use tokio::runtime::Handle;

/// Lengths of one kind that are kept: all are forgotten when there are more.
const LENGTHS_MAX: usize = 4096;
/// How long the length of a key, or that there is no such thing, is taken to be as it was.
const KEPT: Duration = Duration::from_secs(5);

/// What calls are weighed by.
pub(super) struct Hints {
    blobs: Blobs,
    state: State,
    artifacts: Lengths<Digest>,
    keys: Lengths<(AppName, NearKey)>,
    runtime: Handle,
}

/// Lengths that are known, and when they are to be looked up anew.
struct Lengths<K>(Arc<Mutex<HashMap<K, Known>>>);

#[derive(Clone, Copy)]
struct Known {
    bytes: u64,
    /// None: it stays.
    until: Option<Instant>,
    is_asked: bool,
}

impl<K: Clone + Eq + Hash + Send + 'static> Lengths<K> {
    fn new() -> Self {
        Self(Arc::default())
    }

    /// What is known at `now`, and whether it is to be looked up.
    fn known(&self, key: &K, now: Instant) -> (u64, bool) {
        let mut all = self.0.lock();
        if let Some(known) = all.get_mut(key) {
            let is_old = known.until.is_some_and(|until| until <= now) && !known.is_asked;
            known.is_asked |= is_old;
            return (known.bytes, is_old);
        }
        if all.len() >= LENGTHS_MAX {
            all.clear();
        }
        let asked = Known {
            bytes: 0,
            until: Some(now),
            is_asked: true,
        };
        all.insert(key.clone(), asked);
        (0, true)
    }

    /// What was found, and until when that is taken to be so.
    fn found(&self, key: K, bytes: u64, until: Option<Instant>) {
        let known = Known {
            bytes,
            until,
            is_asked: false,
        };
        self.0.lock().insert(key, known);
    }
}

impl<K> Clone for Lengths<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Hints {
    /// Must be called in a runtime, which looks things up.
    pub fn new(blobs: Blobs, state: State) -> Self {
        Self {
            blobs,
            state,
            artifacts: Lengths::new(),
            keys: Lengths::new(),
            runtime: Handle::current(),
        }
    }

    /// Bytes that must travel to a node that does not have the version, as far as is known.
    pub fn image_bytes(&self, spec: &VersionSpec) -> u64 {
        let all = std::iter::once(&spec.artifact).chain(&spec.settings.layers);
        all.map(|digest| self.artifact(digest)).sum()
    }

    fn artifact(&self, digest: &Digest) -> u64 {
        let (bytes, is_to_ask) = self.artifacts.known(digest, Instant::now());
        if is_to_ask {
            let (blobs, lengths, digest) = (self.blobs.clone(), self.artifacts.clone(), *digest);
            self.runtime.spawn(async move {
                match blobs.length(&digest).await {
                    Ok(Some(bytes)) => lengths.found(digest, bytes, None),
                    _ => lengths.found(digest, 0, Some(Instant::now() + KEPT)),
                }
            });
        }
        bytes
    }

    /// Where the keys are that the job's function names.
    pub fn data(&self, job: &Job) -> Vec<Holding> {
        let near = &job.spec.settings.near;
        if near.is_empty() {
            return Vec::new();
        }
        let (app, state) = (&job.path.app, self.state.app(&job.path.app));
        let holding = |key: &NearKey| {
            let name: Key = key.as_str().parse().ok()?;
            // Of those that nobody owns yet, nothing is anywhere.
            let node = state.owner(&name)?;
            let bytes = self.value(app, key);
            Some(Holding { node, bytes })
        };
        near.iter().filter_map(holding).collect()
    }

    fn value(&self, app: &AppName, key: &NearKey) -> u64 {
        let name = (app.clone(), key.clone());
        let (bytes, is_to_ask) = self.keys.known(&name, Instant::now());
        if is_to_ask {
            let (state, lengths) = (self.state.app(app), self.keys.clone());
            self.runtime.spawn(async move {
                let bytes = match name.1.as_str().parse::<Key>() {
                    Ok(key) => state.info(&key).await.map_or(0, |info| info.size),
                    Err(_) => 0,
                };
                lengths.found(name, bytes, Some(Instant::now() + KEPT));
            });
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_looked_up_once_and_again_when_it_is_old() {
        let (lengths, now) = (Lengths::new(), Instant::now());
        assert_eq!(lengths.known(&"k", now), (0, true));
        assert_eq!(
            lengths.known(&"k", now),
            (0, false),
            "somebody asks already"
        );
        let until = now + KEPT;
        lengths.found("k", 7, Some(until));
        assert_eq!(lengths.known(&"k", now), (7, false));
        assert_eq!(lengths.known(&"k", until), (7, true));
        assert_eq!(lengths.known(&"k", until), (7, false));
        lengths.found("k", 9, None);
        assert_eq!(lengths.known(&"k", until + KEPT), (9, false), "it stays");
    }

    #[test]
    fn lengths_are_forgotten_where_there_are_too_many() {
        let (lengths, now) = (Lengths::new(), Instant::now());
        for key in 0..LENGTHS_MAX + 1 {
            lengths.known(&key, now);
        }
        assert_eq!(lengths.0.lock().len(), 1);
    }
}
