//! Seeds that are always tried, and one more that nobody has tried before.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use sim::{Plan, run};

#[test]
fn every_invocation_has_one_outcome_whatever_fails() {
    let mut fenced = 0;
    for seed in 0..24 {
        let summary = run(&Plan::of(seed));
        eprintln!("seed {seed}: {summary:?}");
        fenced += summary.fenced;
        assert!(summary.runs >= summary.outcomes);
        assert!(summary.tenures > 5, "nodes came back");
    }
    assert!(
        fenced > 0,
        "some owner must be too late in so many seeds, or nothing is fenced"
    );
}

/// A failure names its seed: put it in place of the range above to see it again.
#[test]
fn a_seed_that_nobody_has_tried_holds_as_well() {
    let seed = RandomState::new().hash_one("seed");
    eprintln!("seed {seed}");
    run(&Plan::of(seed));
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let (one, again, other) = (run(&Plan::of(7)), run(&Plan::of(7)), run(&Plan::of(8)));
    assert_eq!(one, again);
    assert_ne!(one.trace, other.trace);
}

#[test]
fn without_trouble_everything_runs_once() {
    let plan = Plan {
        loss_permille: 0,
        crashes: 0,
        cuts: 0,
        splits: 0,
        span: Duration::from_secs(60),
        ..Plan::of(1)
    };
    let summary = run(&plan);
    assert_eq!((summary.runs, summary.fenced), (summary.outcomes, 0));
    assert_eq!(summary.tenures, 5);
}

/// The check itself is checked: with a margin that clocks can lose, a node owns too long.
#[test]
fn a_clock_that_is_too_slow_is_found_out() {
    let found = (0..24).any(|seed| {
        let mut plan = Plan::of(seed);
        plan.drift_permille = 500;
        plan.cuts = 40;
        std::panic::catch_unwind(|| run(&plan)).is_err()
    });
    assert!(found, "no seed shows an owner that is none");
}
