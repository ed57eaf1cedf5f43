//! Core modules pass the suite of every back-end.
#![allow(clippy::unwrap_used, missing_docs)]

use faaslet::{Config, Faaslets};
use sandbox::conformance::run;

#[tokio::test(flavor = "multi_thread")]
async fn core_modules_conform() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Faaslets::new(Config::new(dir.path())).unwrap();
    let checks = run(&backend, &testkit::modules()).await;
    let failed: Vec<_> = checks
        .iter()
        .filter(|(_, checked)| checked.is_err())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
