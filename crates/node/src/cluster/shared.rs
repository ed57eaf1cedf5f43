//! What the nodes of a cluster share: the store, and the blobs behind a cache of this node's.

use std::path::Path;
use std::sync::Arc;

use storage::{Blobs, EtcdStore, Store};

use super::ClusterConfig;
use crate::NodeError;

/// The cluster's stores, as this node uses them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub store: Arc<dyn Store>,
    /// Artifacts and files.
    pub blobs: Blobs,
    pub bucket: Bucket,
    /// Large bodies of asynchronous invocations.
    pub payloads: Blobs,
}

/// Parts of the bucket that only a cluster has; nothing of them is kept in a cache.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// What deploys make, for other nodes.
    pub images: Blobs,
    /// Large chunks of durable values.
    pub values: Blobs,
}

impl Shared {
    /// Opens them; `cache` is a folder of this node alone.
    pub async fn open(config: &ClusterConfig, cache: &Path) -> Result<Self, NodeError> {
        let store = EtcdStore::open(&config.store, config.etcd.clone()).await?;
        let blobs = open(config, "blobs").await?;
        let (cache, bytes_max) = (cache.to_owned(), config.blob_cache_bytes_max);
        let open_cache = move || Ok(Blobs::open_cache(&cache, blobs, bytes_max)?);
        Ok(Self {
            store: Arc::new(store),
            blobs: crate::node::blocking(open_cache).await?,
            bucket: Bucket {
                images: open(config, "images").await?,
                values: open(config, "state").await?,
            },
            payloads: open(config, "payloads").await?,
        })
    }
}

/// The part `part` of where the blobs are.
async fn open(config: &ClusterConfig, part: &'static str) -> Result<Blobs, NodeError> {
    let address = &config.blobs;
    if let Some(folder) = address.strip_prefix("file://") {
        let folder = Path::new(folder).join(part);
        if !folder.is_absolute() {
            return Err(NodeError::Blobs(address.to_owned()));
        }
        return crate::node::blocking(move || Ok(Blobs::open_shared(&folder)?)).await;
    }
    if !address.starts_with("s3://") {
        return Err(NodeError::Blobs(address.to_owned()));
    }
    Ok(Blobs::open_s3(&under(address, part), &config.s3).await?)
}

/// The address with `part` behind its prefix.
fn under(address: &str, part: &str) -> String {
    let (place, query) = match address.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (address, String::new()),
    };
    format!("{}/{part}{query}", place.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_under_the_prefix() {
        let check = |address: &str, expected: &str| assert_eq!(under(address, "p"), expected);
        check("s3://bucket", "s3://bucket/p");
        check("s3://bucket/a/b/", "s3://bucket/a/b/p");
        check(
            "s3://bucket/a?endpoint=http://h:1",
            "s3://bucket/a/p?endpoint=http://h:1",
        );
    }
}
