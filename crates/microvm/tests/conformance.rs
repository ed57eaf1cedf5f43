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

fn program(defined: &str) -> Fixture {
    Fixture {
        kind: Kind::Command,
        artifact: build::linux("suite_linux.c", defined),
    }
}

fn programs() -> Fixtures {
    Fixtures {
        echo: program("ECHO"),
        counter: program("COUNTER"),
        canary: program("CANARY"),
        trap: program("TRAP"),
        infinite_loop: program("LOOP"),
        infinite_recursion: program("RECURSION"),
        memory_hog: program("HOG"),
        grow: program("GROW"),
        exit_7: Some(program("EXIT")),
        output_flood: program("FLOOD"),
        log_flood: program("LOGS"),
        dirty_pages: program("DIRTY"),
        wait: Some(program("WAIT")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn micro_vms_conform() {
    conform(fixtures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn linux_programs_in_micro_vms_conform() {
    conform(programs).await;
}

async fn conform(fixtures: fn() -> Fixtures) {
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
