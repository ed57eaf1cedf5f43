//! The mock back-end keeps the promises of the trait, so that tests over it mean something.

use sandbox::conformance::{Fixture, Fixtures, run};
use testkit::{Guest, MockBackend};

fn fixture(guest: Guest) -> Fixture {
    Fixture {
        kind: guest.kind(),
        artifact: guest.artifact(),
    }
}

fn fixtures() -> Fixtures {
    Fixtures {
        echo: fixture(Guest::Echo),
        counter: fixture(Guest::Counter),
        canary: fixture(Guest::Canary),
        trap: fixture(Guest::Trap),
        infinite_loop: fixture(Guest::Loop),
        infinite_recursion: fixture(Guest::Recurse),
        memory_hog: fixture(Guest::Hog),
        grow: fixture(Guest::Grow),
        exit_7: Some(fixture(Guest::Exit(7))),
        output_flood: fixture(Guest::Flood(1 << 20)),
        log_flood: fixture(Guest::Print(1 << 16)),
        dirty_pages: fixture(Guest::Dirty(100)),
        wait: Some(fixture(Guest::Hold("never".into()))),
    }
}

#[tokio::test]
async fn the_mock_conforms() {
    let backend = MockBackend::new();
    for (name, checked) in run(&backend, &fixtures()).await {
        assert_eq!(checked, Ok(()), "{name}");
    }
    assert_eq!(backend.counts().live, 0);
}
