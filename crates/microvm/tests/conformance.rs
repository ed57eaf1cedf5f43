//! Micro-VMs pass the suite of every back-end.
#![allow(clippy::unwrap_used, missing_docs)]

mod build;

use model::Kind;
use sandbox::conformance::{Fixture, Fixtures, run};

fn fixture(defined: &str) -> Fixture {
    Fixture {
        kind: Kind::Reactor,
        artifact: build::guest("suite.c", defined, &[]),
    }
}

fn fixtures() -> Fixtures {
    Fixtures {
        echo: fixture("ECHO"),
        counter: fixture("COUNTER"),
        canary: fixture("CANARY"),
        trap: fixture("TRAP"),
        infinite_loop: fixture("LOOP"),
        infinite_recursion: fixture("RECURSION"),
        memory_hog: fixture("HOG"),
        grow: fixture("GROW"),
        exit_7: Some(fixture("EXIT")),
        output_flood: fixture("FLOOD"),
        log_flood: fixture("LOGS"),
        dirty_pages: fixture("DIRTY"),
        wait: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn micro_vms_conform() {
    let Some((_dir, backend)) = build::backend(&[]) else {
        return;
    };
    let checks = run(&backend, &fixtures()).await;
    let failed: Vec<_> = checks
        .iter()
        .filter_map(|(name, checked)| Some((name, checked.as_ref().err()?)))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(checks.len() >= 15);
}
