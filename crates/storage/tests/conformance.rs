//! The suite on each store of this crate.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::sync::Arc;

use storage::{Config, RedbStore, conformance};

#[tokio::test]
async fn a_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("store"), Config::default()).unwrap();
    conformance::all(Arc::new(store)).await;
}

#[tokio::test]
async fn memory_conforms() {
    conformance::all(Arc::new(RedbStore::in_memory(Config::default()).unwrap())).await;
}
