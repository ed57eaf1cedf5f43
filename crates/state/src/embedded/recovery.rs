//! What a crash in the middle of a large push or removal leaves over, and its removal.

use storage::Txn;

use super::{EmbeddedGlobal, chunk_count, version_of};
use crate::{GlobalError, Name, record};

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
        let mut next = Some(storage::Range::prefix(record::chunks_prefix(name)));
        let mut removed = 0;
        while let Some(range) = next {
            let page = self.store.range(range.clone()).await?;
            let keys = page.entries.iter().map(|entry| &entry.key);
            let left = keys.filter(|key| {
                record::read_chunk_key(name, key)
                    .is_none_or(|(number, version)| version_of(&table, number) != version)
            });
            let left: Vec<_> = left.cloned().collect();
            removed += left.len();
            self.remove_keys(name, &left).await?;
            next = range.rest(&page);
        }
        Ok(removed)
    }
}
