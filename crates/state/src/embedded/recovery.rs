//! What a crash in the middle of a large push or removal leaves over, and its removal.

use storage::Txn;

use super::{EmbeddedGlobal, Old, chunk_count, place_of};
use crate::record::{self, Place};
use crate::{GlobalError, Name};

/// Intents of one page of a scan.
const SCAN_ENTRIES: usize = 100;

impl EmbeddedGlobal {
    /// Clears up after those of `which` that have an intent. Nobody uses these values yet.
    pub(crate) async fn recover(&self, which: impl Fn(&Name) -> bool) -> Result<(), GlobalError> {
        let prefix = record::intents_prefix();
        let all = storage::Range::prefix(prefix.as_str()).limit(SCAN_ENTRIES);
        let mut next = Some(all);
        while let Some(range) = next {
            let page = self.store.range(range.clone()).await?;
            for entry in &page.entries {
                let Some(name) = record::read_name(&entry.key[prefix.len()..]) else {
                    tracing::warn!(key = %entry.key.escape_ascii(), "an intent is not readable");
                    continue;
                };
                if which(&name) {
                    let removed = self.collect(&name).await?;
                    tracing::info!(value = %name, removed, "removed chunks that a crash left over");
                    let intent = Txn::new().delete(entry.key.clone());
                    self.commit(&name, intent).await?;
                }
            }
            next = range.rest(&page);
        }
        Ok(())
    }

    /// Removes the chunks of a value that its table does not name.
    async fn collect(&self, name: &Name) -> Result<usize, GlobalError> {
        let stored = self.stored(name).await?;
        let size = stored.map_or(0, |stored| stored.head.size);
        let table = self.table(name, 0..chunk_count(size)).await?;
        let mut removed = 0;
        for in_bucket in [false, true] {
            let prefix = match in_bucket {
                true => record::blobs_prefix(name),
                false => record::chunks_prefix(name),
            };
            let counts = |key: &[u8]| {
                let numbered = record::read_numbered(&prefix, key);
                numbered.is_some_and(|(number, version)| {
                    place_of(&table, number) == Some(Place { version, in_bucket })
                })
            };
            let mut next = Some(storage::Range::prefix(prefix.clone()));
            while let Some(range) = next {
                let page = self.store.range(range.clone()).await?;
                let keys = page.entries.iter().map(|entry| entry.key.clone());
                let mut old = Old::default();
                let left = old.keys(in_bucket);
                left.extend(keys.filter(|key| !counts(key)));
                removed += left.len();
                self.remove_old(name, &old).await?;
                next = range.rest(&page);
            }
        }
        Ok(removed)
    }
}
