//! Seeds that are always tried, one more that nobody has tried before, and what is broken on
//! purpose: it must be found.

#![allow(clippy::expect_used, reason = "a test fails by a panic")]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use sim::{Crowd, Fault, Plan, Summary, Violation, play};

/// The seeds that are always tried.
const SEEDS: std::ops::Range<u64> = 0..12;
/// Seeds in one of which at least what is broken must be found.
const FAULT_SEEDS: std::ops::Range<u64> = 200..208;

fn on_paused_clock<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(run)
}

fn run(plan: &Plan) -> Result<Summary, Violation> {
    on_paused_clock(play(plan))
}

fn holds(plan: &Plan) -> Summary {
    let summary = run(plan).unwrap_or_else(|violation| panic!("{violation}"));
    eprintln!("seed {}: {summary:?}", plan.seed);
    summary
}

#[test]
fn whatever_fails_all_invariants_hold() {
    let all: Vec<Summary> = SEEDS.map(|seed| holds(&Plan::of(seed))).collect();
    let sum = |of: fn(&Summary) -> u64| all.iter().map(of).sum::<u64>();
    let clients = Plan::of(0).clients;
    assert!(
        all.iter().all(|of| of.accepted == clients),
        "each is accepted"
    );
    // What a simulation never does it does not check.
    assert!(sum(|of| of.dead) > 0, "some functions fail for good");
    assert!(sum(|of| of.forwarded) > 0, "nodes help each other");
    assert!(sum(|of| of.fenced) > 0, "some owner is too late");
    assert!(sum(|of| of.groups_again) > 0, "groups contend for room");
    assert!(sum(|of| of.replaced) > 5000, "values are put");
    assert!(sum(|of| of.losses) > 0, "what was in memory only is lost");
    let nodes: usize = SEEDS.map(|seed| Plan::of(seed).nodes).sum();
    assert!(sum(|of| of.tenures) > nodes as u64, "nodes come back");
}

/// A failure names its seed: `SIM_SEED=n cargo test -p sim` runs it again.
#[test]
fn a_seed_that_nobody_has_tried_holds_as_well() {
    let given = std::env::var("SIM_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("SIM_SEED is a number"));
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one("seed"));
    eprintln!("SIM_SEED={seed}");
    holds(&Plan::of(seed));
}

#[test]
fn a_seed_repeats_and_another_differs() {
    for seed in [3, 7] {
        assert_eq!(
            holds(&Plan::of(seed)),
            holds(&Plan::of(seed)),
            "seed {seed}"
        );
    }
    assert_ne!(holds(&Plan::of(7)).trace, holds(&Plan::of(8)).trace);
}

#[test]
fn without_trouble_each_is_a_member_once_and_nothing_is_too_late() {
    let plan = Plan::of(1).calm();
    let summary = holds(&plan);
    assert_eq!(summary.tenures, plan.nodes as u64);
    assert_eq!(summary.fenced, 0);
}

#[tokio::test(start_paused = true)]
async fn the_store_conforms() {
    storage::conformance::all(sim::conforming()).await;
}

/// The first violation that one of the seeds shows.
fn found(fault: Fault) -> Violation {
    let mut found = FAULT_SEEDS.filter_map(|seed| run(&Plan::of(seed).with(fault)).err());
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no seed shows {fault:?}"));
    eprintln!("{fault:?}: {first}");
    let again = run(&Plan::of(first.seed).with(fault));
    assert_eq!(again.err().as_ref(), Some(&first), "it is shown again");
    first
}

fn is_found(fault: Fault, by: &[&str]) {
    let Violation { what, .. } = found(fault);
    assert!(
        by.iter().any(|by| what.contains(by)),
        "{fault:?} is found by: {what}"
    );
}

#[test]
fn a_store_that_forgets_compares_is_found() {
    found(Fault::ComparesForgotten);
}

#[test]
fn a_store_that_loses_acknowledged_writes_is_found() {
    found(Fault::WritesLost);
}

#[test]
fn a_store_that_does_not_tell_of_changes_is_found() {
    is_found(
        Fault::EventsLost,
        &["is not woken", "no outcome", "got nothing"],
    );
}

#[test]
fn an_owner_that_writes_without_its_token_is_found() {
    is_found(Fault::FencingIgnored, &["came after"]);
}

#[test]
fn clocks_that_lose_more_than_the_margin_are_found() {
    is_found(Fault::ClocksTooSlow, &["the store says no", "still acts"]);
}

#[test]
fn owners_of_values_that_ignore_their_claims_are_found() {
    is_found(Fault::ClaimsIgnored, &["value"]);
}

#[test]
fn reservations_that_overwrite_each_other_are_found() {
    is_found(Fault::LedgersOverwritten, &["reserve"]);
}

#[test]
fn calls_that_come_to_few_nodes_are_spread_over_all() {
    let figures = on_paused_clock(
        Crowd {
            seed: 1,
            nodes: 20,
            places: 8,
            calls: 4000,
            load_permille: 600,
            crowded_permille: 500,
        }
        .run(),
    );
    eprintln!("{figures:?}");
    assert_eq!(figures.ran, 4000);
    // Two of the nodes get half of all calls, which is more than they can do.
    assert!(figures.forwarded > 400, "{figures:?}");
    assert!(figures.busy_max_to_mean < 2.0, "{figures:?}");
}
