//! `scheduler`: what it costs to decide where a call runs, by the number of nodes.

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use model::NodeId;
use scheduler::{
    Demand, Holding, Load, Policy, Resources, Standing, Tag, View, Weights, decide, decide_group,
    explain,
};

use crate::Setting;
use crate::measure::{median, process_cpu_us};
use crate::report::Report;

/// Rounds, and decisions in a round.
const ROUNDS: usize = 21;
const DECISIONS: u32 = 500;

/// Members of a group.
const MEMBERS: u32 = 64;

const MIB: u64 = 1 << 20;
const VERSION: Tag = Tag(7);

/// Clusters that are measured, and the figure that bounds the decision in them, if one does.
const CLUSTERS: [(usize, Option<&str>); 3] = [
    (10, Some("decide_10_us")),
    (100, None),
    (1000, Some("decide_1000_us")),
];

/// Times decisions that look at every node: where the call was made there is no room.
pub fn run(_setting: &Setting) -> Result<Report> {
    let head = [
        "nodes",
        "locality µs",
        "spread µs",
        "pack µs",
        "kept here µs",
        "group of 64 µs",
        "explained µs",
    ];
    let mut report = Report::new("scheduler", &head);
    for (nodes, figure) in CLUSTERS {
        let (view, demand) = cluster(nodes)?;
        let policies = Policy::ALL.map(|policy| Demand {
            policy,
            ..demand.clone()
        });
        let [locality, spread, pack] = {
            let mut took = [0.0; 3];
            for (took, demand) in took.iter_mut().zip(&policies) {
                *took = decisions(&view, demand)?;
            }
            took
        };
        let roomy = Demand {
            here: name(1)?,
            data: Vec::new(),
            ..demand.clone()
        };
        let kept = decisions(&view, &roomy)?;
        let group = model::InvocationId::new(0);
        let weights = Weights::default();
        let grouped = timed(|seed| {
            let demand = with_seed(&demand, seed);
            let decision = decide_group(&view, group, MEMBERS, &demand, &weights);
            decision.outcome.is_ok()
        })?;
        let explained = timed(|seed| {
            let demand = with_seed(&demand, seed);
            explain(&view, &demand, &weights).candidates.len() == nodes
        })?;
        let row = [locality, spread, pack, kept, grouped, explained];
        report.row(&nodes.to_string(), row.map(|us| format!("{us:.2}")));
        if let Some(figure) = figure {
            report.figure(figure, locality.max(spread).max(pack));
        }
    }
    Ok(report)
}

/// The cost of one decision that finds a node.
fn decisions(view: &View, demand: &Demand) -> Result<f64> {
    let weights = Weights::default();
    timed(|seed| {
        let demand = with_seed(demand, seed);
        decide(black_box(view), black_box(&demand), &weights)
            .outcome
            .is_ok()
    })
}

fn with_seed(demand: &Demand, seed: u64) -> Demand {
    Demand {
        seed,
        ..demand.clone()
    }
}

/// Median of the processor time of one `decide`, which says whether it found what it should.
fn timed(mut decide: impl FnMut(u64) -> bool) -> Result<f64> {
    let mut samples = Vec::new();
    // The first round warms up and is not counted.
    for round in 0..=ROUNDS {
        let begun = process_cpu_us();
        for seed in 0..DECISIONS {
            ensure!(
                black_box(decide(seed.into())),
                "the scheduler found nothing"
            );
        }
        if round > 0 {
            samples.push((process_cpu_us() - begun) / f64::from(DECISIONS));
        }
    }
    Ok(median(&samples))
}

fn name(n: usize) -> Result<NodeId> {
    format!("node-{n:04}").parse().context("a node's name")
}

/// Nodes of many loads; every fourth has the image, every tenth a warm sandbox, and the first,
/// where the call is, is full. Each holds 50 other images, as nodes do.
fn cluster(nodes: usize) -> Result<(View, Demand)> {
    let mut view = View::new();
    let amount = |places: u32| Resources {
        places,
        memory_bytes: u64::from(places) * 64 * MIB,
    };
    for n in 0..nodes {
        let used = if n == 0 { 64 } else { (n as u32 * 37) % 60 };
        let other = |k: usize| Tag((n * 13 + k * 101) as u64 + 1000);
        let mut images: Vec<Tag> = (0..50).map(other).collect();
        images.extend((n % 4 == 1).then_some(VERSION));
        let load = Load {
            capacity: amount(64),
            used: amount(used),
            waiting: 0,
            waiting_max: 100,
            warm: (n % 10 == 5).then_some((VERSION, 2)).into_iter().collect(),
            images,
        };
        view.put(&name(n)?, Standing::Serving, &load);
    }
    let demand = Demand {
        here: name(0)?,
        version: VERSION,
        image_bytes: MIB,
        needs: amount(1),
        input_bytes: 1024,
        data: vec![Holding {
            node: name(nodes / 2)?,
            bytes: 64 << 10,
        }],
        run_us: 1_000,
        avoid: vec![name(nodes - 1)?],
        policy: Policy::Locality,
        seed: 0,
    };
    Ok((view, demand))
}
