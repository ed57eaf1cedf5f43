//! Properties over made-up clusters, and what each policy is for, said in examples.

use std::collections::BTreeMap;

use model::{InvocationId, NodeId};
use proptest::prelude::*;

use crate::*;

const MIB: u64 = 1 << 20;

fn id(n: usize) -> NodeId {
    format!("n{n:04}").parse().unwrap()
}

fn amount(places: u32, mib: u64) -> Resources {
    Resources {
        places,
        memory_bytes: mib * MIB,
    }
}

/// A node of ten places and 10 MiB with `used` of each.
fn load(used: u32) -> Load {
    Load {
        capacity: amount(10, 10),
        used: amount(used, used.into()),
        waiting_max: 4,
        ..Load::default()
    }
}

fn demand(policy: Policy) -> Demand {
    Demand {
        here: id(0),
        version: Tag(7),
        image_bytes: MIB,
        needs: amount(1, 1),
        input_bytes: 100,
        data: Vec::new(),
        run_us: 1_000,
        avoid: Vec::new(),
        policy,
        seed: 1,
    }
}

fn view_of(loads: &[Load]) -> View {
    let mut view = View::new();
    for (n, load) in loads.iter().enumerate() {
        view.put(&id(n), Standing::Serving, load);
    }
    view
}

/// Where the call goes, and what it finds there.
fn chosen(view: &View, demand: &Demand) -> (NodeId, Via) {
    let decision = decide(view, demand, &Weights::default());
    let placement = decision.outcome.unwrap();
    (placement.node, placement.via)
}

fn refused(view: &View, demand: &Demand) -> Refused {
    decide(view, demand, &Weights::default())
        .outcome
        .unwrap_err()
}

#[test]
fn a_node_with_room_keeps_its_calls_though_others_are_emptier_and_warm() {
    let mut warm = load(0);
    warm.warm = vec![(Tag(7), 3)];
    warm.images = vec![Tag(7)];
    let view = view_of(&[load(9), warm.clone()]);
    assert_eq!(chosen(&view, &demand(Policy::Locality)), (id(0), Via::Room));
    let view = view_of(&[load(10), warm]);
    assert_eq!(chosen(&view, &demand(Policy::Locality)), (id(1), Via::Warm));
}

#[test]
fn a_warm_sandbox_needs_a_place_but_no_memory_of_its_own() {
    let mut here = load(9);
    here.used = amount(9, 10);
    here.warm = vec![(Tag(7), 1)];
    let view = view_of(&[here.clone(), load(0)]);
    assert_eq!(chosen(&view, &demand(Policy::Locality)), (id(0), Via::Warm));
    here.used = amount(10, 9);
    let view = view_of(&[here, load(0)]);
    assert_eq!(chosen(&view, &demand(Policy::Locality)), (id(1), Via::Room));
}

#[test]
fn without_room_here_the_image_decides_and_then_the_load() {
    let mut image = load(5);
    image.images = vec![Tag(7)];
    let view = view_of(&[load(10), load(1), image.clone(), load(0)]);
    assert_eq!(chosen(&view, &demand(Policy::Locality)).0, id(2));
    let mut emptier = image.clone();
    emptier.used = amount(1, 1);
    let view = view_of(&[load(10), load(1), image, emptier]);
    assert_eq!(chosen(&view, &demand(Policy::Locality)).0, id(3));
}

#[test]
fn a_call_goes_to_its_data_when_the_data_is_larger() {
    let mut images = load(0);
    images.images = vec![Tag(7)];
    let view = view_of(&[images.clone(), images.clone(), images]);
    let mut demand = demand(Policy::Locality);
    let holds = |node, bytes| Holding { node, bytes };
    demand.data = vec![holds(id(2), 64 * MIB), holds(id(0), MIB)];
    assert_eq!(chosen(&view, &demand).0, id(2));
    demand.input_bytes = 64 * MIB;
    assert_eq!(chosen(&view, &demand).0, id(0));
}

#[test]
fn spread_takes_the_emptiest_and_pack_the_fullest_with_room() {
    let view = view_of(&[load(3), load(10), load(9), load(2)]);
    assert_eq!(chosen(&view, &demand(Policy::Spread)), (id(3), Via::Room));
    assert_eq!(chosen(&view, &demand(Policy::Pack)), (id(2), Via::Room));
}

#[test]
fn queues_are_used_when_there_is_no_room_and_refuse_when_they_are_full() {
    let (mut long, mut short) = (load(10), load(10));
    (long.waiting, short.waiting) = (3, 1);
    for policy in Policy::ALL {
        let view = view_of(&[long.clone(), short.clone()]);
        let mut demand = demand(policy);
        demand.run_us = 1_000_000;
        assert_eq!(chosen(&view, &demand), (id(1), Via::Queue), "{policy}");
        (long.waiting, short.waiting) = (4, 4);
        let view = view_of(&[long.clone(), short.clone()]);
        let full = Refused::Full {
            nodes: 2,
            retry_after_us: 500_000,
        };
        assert_eq!(refused(&view, &demand), full, "{policy}");
        (long.waiting, short.waiting) = (3, 1);
    }
}

#[test]
fn a_refusal_says_whether_waiting_helps() {
    let mut demand = demand(Policy::Locality);
    assert_eq!(refused(&View::new(), &demand), Refused::NoNodes);
    let mut view = view_of(&[load(0), load(0)]);
    view.put(&id(0), Standing::Cordoned, &load(0));
    demand.avoid = vec![id(1)];
    assert_eq!(refused(&view, &demand), Refused::Closed { nodes: 2 });
    demand.needs = amount(1, 11);
    let refused = refused(&view, &demand);
    assert!(
        matches!(refused, Refused::NeverFits { nodes: 2, .. }),
        "{refused:?}"
    );
    assert_eq!(refused.retry_after_us(), None);
}

#[test]
fn what_is_assumed_counts_until_the_node_speaks_again() {
    let mut view = view_of(&[load(10), load(9), load(8)]);
    let demand = demand(Policy::Pack);
    assert_eq!(chosen(&view, &demand).0, id(1));
    assert!(view.assume(&id(1), demand.needs).is_some());
    assert_eq!(chosen(&view, &demand).0, id(2));
    view.put(&id(1), Standing::Serving, &load(9));
    assert_eq!(chosen(&view, &demand).0, id(1));
    assert_eq!(view.assume(&id(9), demand.needs), None);
}

#[test]
fn what_is_assumed_is_taken_off_with_its_call_unless_the_node_spoke() {
    let mut view = view_of(&[load(9), load(8)]);
    let demand = demand(Policy::Pack);
    let first = view.assume(&id(0), demand.needs).unwrap();
    let waiting = view.assume(&id(0), demand.needs).unwrap();
    assert_eq!(chosen(&view, &demand).0, id(1));
    view.release(&waiting);
    assert_eq!(chosen(&view, &demand).0, id(1));
    view.release(&first);
    assert_eq!(chosen(&view, &demand).0, id(0));
    let earlier = view.assume(&id(0), demand.needs).unwrap();
    view.put(&id(0), Standing::Serving, &load(10));
    view.release(&earlier);
    assert_eq!(chosen(&view, &demand).0, id(1));
    assert!(view.remove(&id(0)));
    view.put(&id(0), Standing::Serving, &load(10));
    view.release(&earlier);
    assert_eq!(chosen(&view, &demand).0, id(1));
}

#[test]
fn what_a_node_says_with_its_answer_counts_until_its_next_word() {
    let mut view = view_of(&[load(9), load(8)]);
    let demand = demand(Policy::Pack);
    let assumed = view.assume(&id(0), demand.needs).unwrap();
    let full = Brief {
        used: 10,
        waiting: 3,
    };
    view.hear(&id(0), full);
    assert_eq!(chosen(&view, &demand).0, id(1));
    view.release(&assumed);
    assert_eq!(
        chosen(&view, &demand).0,
        id(1),
        "it counts in what was said"
    );
    // Its memory is free again as well.
    let less = Brief {
        used: 9,
        waiting: 0,
    };
    view.hear(&id(0), less);
    assert_eq!(chosen(&view, &demand).0, id(0));
    view.hear(&id(0), full);
    view.put(&id(0), Standing::Serving, &load(9));
    assert_eq!(chosen(&view, &demand).0, id(0));
    view.hear(&id(7), full);
    assert_eq!(chosen(&view, &demand).0, id(0), "nobody knows it");
}

/// A call whose sandbox takes no time to speak of, from a node that takes none itself.
fn brief_call(here: usize) -> Demand {
    let (here, version) = (id(here), Tag(7));
    Demand {
        run_us: 10,
        seed: habit(&here, version),
        avoid: vec![here.clone()],
        here,
        version,
        ..demand(Policy::Locality)
    }
}

#[test]
fn calls_one_by_one_have_one_favourite_and_calls_at_once_are_dealt_out() {
    let mut view = view_of(&[const { 0 }; 9].map(load));
    let demand = brief_call(0);
    let (favourite, _) = chosen(&view, &demand);
    for _ in 0..20 {
        let sent = view.assume(&favourite, demand.needs).unwrap();
        assert_ne!(chosen(&view, &demand).0, favourite);
        // What it says meanwhile is no reason to forget that a call is there.
        view.put(&favourite, Standing::Serving, &load(0));
        assert_ne!(chosen(&view, &demand).0, favourite);
        view.release(&sent);
        assert_eq!(chosen(&view, &demand).0, favourite);
    }
    let mut dealt = BTreeMap::new();
    for _ in 0..24 {
        let (node, _) = chosen(&view, &demand);
        view.assume(&node, demand.needs).unwrap();
        *dealt.entry(node).or_insert(0) += 1;
    }
    assert_eq!(dealt.into_values().collect::<Vec<_>>(), [3; 8]);
}

#[test]
fn each_node_that_decides_has_its_own_favourite() {
    let view = view_of(&[const { 0 }; 100].map(load));
    let mut favoured = BTreeMap::new();
    for here in 0..100 {
        let (node, _) = chosen(&view, &brief_call(here));
        *favoured.entry(node).or_insert(0) += 1;
    }
    let most = favoured.values().max().unwrap();
    assert!(favoured.len() > 50 && *most < 8, "{favoured:?}");
}

#[test]
fn calls_of_a_node_that_was_away_do_not_count_when_it_is_back() {
    let mut view = view_of(&[load(0), load(0), load(0)]);
    let demand = brief_call(0);
    let (favourite, _) = chosen(&view, &demand);
    let before = view.assume(&favourite, demand.needs).unwrap();
    assert!(view.remove(&favourite));
    view.put(&favourite, Standing::Serving, &load(0));
    assert_eq!(chosen(&view, &demand).0, favourite);
    let after = view.assume(&favourite, demand.needs).unwrap();
    view.release(&before);
    assert_ne!(chosen(&view, &demand).0, favourite);
    view.release(&after);
    assert_eq!(chosen(&view, &demand).0, favourite);
}

#[test]
fn what_a_node_no_longer_has_is_off_the_lists() {
    let mut warm = load(0);
    warm.warm = vec![(Tag(7), 1), (Tag(8), 1)];
    let mut view = view_of(&[load(10), warm, load(0)]);
    assert_eq!(chosen(&view, &demand(Policy::Locality)), (id(1), Via::Warm));
    assert!(view.remove(&id(1)) && !view.remove(&id(1)));
    // Its slot is another's now.
    view.put(&id(3), Standing::Serving, &load(0));
    assert_eq!(view.len(), 3);
    let (_, via) = chosen(&view, &demand(Policy::Locality));
    assert_eq!(via, Via::Room);
}

#[test]
fn an_explanation_shows_every_node_and_why_not() {
    let mut view = view_of(&[load(10), load(2), load(0)]);
    view.put(&id(2), Standing::Draining, &load(0));
    let text = explain(&view, &demand(Policy::Locality), &Weights::default()).to_string();
    let golden = "\
n0001 by locality: room; 6398 µs = hop 100 + start 6098 + move 0 + wait 0 + crowd 200; of 3: 1 \
closed, 0 full, 0 too small
▶ n0001  room; 6398 µs = hop 100 + start 6098 + move 0 + wait 0 + crowd 200
  n0000  a place in the queue; 7198 µs = hop 0 + start 6098 + move 0 + wait 100 + crowd 1000
✗ n0002  draining
";
    assert_eq!(text, golden);
}

fn group(n: u64) -> InvocationId {
    format!("{n:032x}").parse().unwrap()
}

fn shares(view: &View, members: u32, policy: Policy) -> Vec<(NodeId, u32)> {
    let decision = decide_group(
        view,
        group(1),
        members,
        &demand(policy),
        &Weights::default(),
    );
    let shares = decision.outcome.unwrap();
    shares.into_iter().map(|s| (s.node, s.members)).collect()
}

#[test]
fn a_group_is_kept_together_spread_or_packed() {
    let view = view_of(&[load(6), load(0), load(8)]);
    assert_eq!(shares(&view, 4, Policy::Locality), [(id(0), 4)]);
    assert_eq!(
        shares(&view, 12, Policy::Locality),
        [(id(1), 10), (id(0), 2)]
    );
    assert_eq!(shares(&view, 4, Policy::Pack), [(id(2), 2), (id(0), 2)]);
    assert_eq!(shares(&view, 8, Policy::Spread), [(id(0), 1), (id(1), 7)]);
    let refused = |members| {
        let demand = demand(Policy::Spread);
        let decision = decide_group(&view, group(1), members, &demand, &Weights::default());
        assert_eq!(decision.reservations, []);
        decision.outcome.unwrap_err()
    };
    let (members, room, retry_after_us) = (17, 16, 100);
    let full = Refused::GroupFull {
        members,
        room,
        retry_after_us,
    };
    assert_eq!(refused(17), full);
    let (members, room) = (31, 30);
    assert_eq!(refused(31), Refused::GroupNeverFits { members, room });
}

#[test]
fn policies_are_read_by_their_names() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    assert!("random".parse::<Policy>().is_err());
}

/// A node of a made-up cluster.
#[derive(Clone, Debug)]
struct Made {
    standing: Standing,
    load: Load,
    reserved: Resources,
}

fn resources(places: u32, mib: u64) -> impl Strategy<Value = Resources> {
    (0..=places, 0..=mib).prop_map(|(places, mib)| amount(places, mib))
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        6 => Just(Standing::Serving),
        1 => Just(Standing::Cordoned),
        1 => Just(Standing::Draining),
        1 => Just(Standing::Lost),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let lists = (
        prop::collection::vec((0..4u64, 1..3u32), 0..3),
        prop::collection::vec(0..4u64, 0..3),
    );
    let amounts = (resources(8, 8), resources(8, 8), resources(3, 3));
    (standing(), amounts, 0..3u32, 0..3u32, lists).prop_map(
        |(standing, (capacity, used, reserved), waiting, waiting_max, (warm, images))| Made {
            standing,
            load: Load {
                capacity,
                used,
                waiting,
                waiting_max,
                warm: warm
                    .into_iter()
                    .map(|(tag, count)| (Tag(tag), count))
                    .collect(),
                images: images.into_iter().map(Tag).collect(),
            },
            reserved,
        },
    )
}

fn demands() -> impl Strategy<Value = Demand> {
    let data = prop::collection::vec((0..12usize, 0..4 * MIB), 0..3);
    let avoid = prop::collection::vec(0..12usize, 0..3);
    let policy = prop::sample::select(&Policy::ALL[..]);
    let needs = (1..3u32, 0..3u64).prop_map(|(places, mib)| amount(places, mib));
    (
        0..12usize,
        0..4u64,
        needs,
        0..MIB,
        data,
        avoid,
        policy,
        any::<u64>(),
    )
        .prop_map(
            |(here, version, needs, input_bytes, data, avoid, policy, seed)| Demand {
                here: id(here),
                version: Tag(version),
                needs,
                input_bytes,
                data: data
                    .into_iter()
                    .map(|(n, bytes)| Holding { node: id(n), bytes })
                    .collect(),
                avoid: avoid.into_iter().map(id).collect(),
                seed,
                ..demand(policy)
            },
        )
}

/// The cluster as a view, its nodes taken in from the last to the first if `backwards`.
fn build(made: &[Made], backwards: bool) -> View {
    let mut view = View::new();
    let mut order: Vec<usize> = (0..made.len()).collect();
    if backwards {
        order.reverse();
    }
    for n in order {
        let Made {
            standing,
            load,
            reserved,
        } = &made[n];
        view.put(&id(n), *standing, load);
        let ledger = Ledger {
            revision: n as u64 + 1,
            ..Ledger::default()
        };
        view.reserve(&id(n), &ledger, *reserved);
    }
    view
}

fn made_of<'a>(made: &'a [Made], node: &NodeId) -> &'a Made {
    let n = (0..made.len()).find(|n| id(*n) == *node);
    &made[n.expect("a node of the view")]
}

fn free(made: &Made) -> Resources {
    made.load.capacity.minus(made.load.used.plus(made.reserved))
}

fn is_open(made: &Made, node: &NodeId, demand: &Demand) -> bool {
    made.standing == Standing::Serving && !demand.avoid.contains(node)
}

fn has_warm(made: &Made, demand: &Demand) -> bool {
    made.load
        .warm
        .iter()
        .any(|(tag, count)| *tag == demand.version && *count > 0)
}

fn has_room(made: &Made, demand: &Demand) -> bool {
    let fits = demand.needs.fits_in(made.load.capacity);
    let is_warm = has_warm(made, demand) && demand.needs.places <= free(made).places;
    fits && (is_warm || demand.needs.fits_in(free(made)))
}

proptest! {
    #[test]
    fn a_call_is_placed_where_it_fits_and_refused_only_where_nobody_can(
        made in prop::collection::vec(made(), 0..12),
        demand in demands(),
    ) {
        let view = build(&made, false);
        let decision = decide(&view, &demand, &Weights::default());
        let nodes = || (0..made.len()).map(id);
        let open = |node: &NodeId| is_open(made_of(&made, node), node, &demand);
        let roomy = nodes().filter(|n| open(n) && has_room(made_of(&made, n), &demand)).count();
        match decision.outcome {
            Ok(Placement { node, via, .. }) => {
                let it = made_of(&made, &node);
                prop_assert!(is_open(it, &node, &demand), "{node} is closed");
                match via {
                    Via::Warm => {
                        prop_assert!(has_warm(it, &demand));
                        prop_assert!(demand.needs.places <= free(it).places);
                    }
                    Via::Room => prop_assert!(demand.needs.fits_in(free(it))),
                    Via::Queue => {
                        prop_assert!(it.load.waiting < it.load.waiting_max);
                        prop_assert_eq!(roomy, 0, "room comes before queues");
                    }
                }
            }
            Err(refused) => {
                prop_assert_eq!(roomy, 0, "{}", refused);
                let queue = |it: &Made| it.load.waiting < it.load.waiting_max
                    && demand.needs.fits_in(it.load.capacity);
                let queues = nodes().any(|n| open(&n) && queue(made_of(&made, &n)));
                prop_assert!(!queues, "{}", refused);
                if let Refused::NeverFits { .. } = refused {
                    let any = made.iter().any(|it| demand.needs.fits_in(it.load.capacity));
                    prop_assert!(!any);
                }
            }
        }
    }

    #[test]
    fn a_seed_decides_alike_in_any_order_of_arrival_and_as_explained(
        made in prop::collection::vec(made(), 0..12),
        demand in demands(),
    ) {
        let (view, turned) = (build(&made, false), build(&made, true));
        let weights = Weights::default();
        let decision = decide(&view, &demand, &weights);
        prop_assert_eq!(&decision, &decide(&turned, &demand, &weights));
        let explanation = explain(&view, &demand, &weights);
        prop_assert_eq!(&explanation, &explain(&turned, &demand, &weights));
        prop_assert_eq!(&explanation.decision, &decision);
        prop_assert_eq!(explanation.candidates.len(), made.len());
        let best = explanation.candidates.first().filter(|c| c.verdict.is_ok());
        let placed = decision.outcome.as_ref().ok().map(|placement| &placement.node);
        prop_assert_eq!(best.map(|candidate| &candidate.node), placed);
        let members = 1 + (demand.seed % 20) as u32;
        let groups = [&view, &turned]
            .map(|view| decide_group(view, group(1), members, &demand, &weights));
        prop_assert_eq!(&groups[0], &groups[1]);
    }

    #[test]
    fn a_node_with_room_keeps_a_call_whose_data_is_not_elsewhere(
        made in prop::collection::vec(made(), 1..12),
        demand in demands(),
    ) {
        let view = build(&made, false);
        let demand = Demand { policy: Policy::Locality, data: Vec::new(), ..demand };
        let here = (0..made.len()).map(id).find(|n| *n == demand.here);
        let keeps = here.is_some_and(|here| {
            let it = made_of(&made, &here);
            is_open(it, &here, &demand) && has_room(it, &demand)
        });
        if keeps {
            let outcome = decide(&view, &demand, &Weights::default()).outcome;
            prop_assert_eq!(outcome.unwrap().node, demand.here);
        }
    }

    #[test]
    fn a_group_is_placed_whole_within_what_is_free_or_not_at_all(
        made in prop::collection::vec(made(), 0..12),
        demand in demands(),
        members in 1..30u32,
    ) {
        let view = build(&made, false);
        let decision = decide_group(&view, group(9), members, &demand, &Weights::default());
        let room = |n: usize| {
            let fits = is_open(&made[n], &id(n), &demand);
            let count = demand.needs.count_in(free(&made[n]), members);
            if fits { u64::from(count) } else { 0 }
        };
        let room: u64 = (0..made.len()).map(room).sum();
        prop_assert_eq!(decision.outcome.is_ok(), room >= u64::from(members));
        let Ok(shares) = decision.outcome else {
            prop_assert!(decision.reservations.is_empty());
            return Ok(());
        };
        prop_assert_eq!(shares.iter().map(|share| share.members).sum::<u32>(), members);
        let mut by_node = BTreeMap::new();
        for (share, reservation) in shares.iter().zip(&decision.reservations) {
            let it = made_of(&made, &share.node);
            prop_assert!(is_open(it, &share.node, &demand));
            prop_assert!(demand.needs.times(share.members).fits_in(free(it)));
            prop_assert_eq!((&share.node, share.members), (&reservation.node, reservation.members));
            prop_assert_eq!(reservation.amount(), demand.needs.times(share.members));
            prop_assert!(by_node.insert(share.node.clone(), ()).is_none(), "a node once");
        }
        prop_assert_eq!(decision.reservations.len(), shares.len());
    }

    /// Holders come, reserve by what they last read, and die; a commit goes through only at the
    /// revision that it was decided by.
    #[test]
    fn reservations_that_race_never_exceed_capacity(
        steps in prop::collection::vec((0..4u64, 1..6u32, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let capacity = amount(8, 8);
        let mut now = Ledger::default();
        let mut read = vec![Ledger::default(); 4];
        let mut dead = [false; 4];
        for (n, (who, members, reads, dies)) in steps.into_iter().enumerate() {
            let at = who as usize;
            let alive = |holder: &Holder| !dead[holder.token as usize];
            if reads {
                read[at] = now.clone();
            }
            let reservation = Reservation {
                node: id(0),
                group: group(n as u64),
                members,
                each: amount(1, 1),
                against: read[at].revision,
            };
            let holder = Holder { node: id(at), token: who };
            let made = now.with(&reservation, holder, capacity, alive);
            match made {
                Ok(mut next) => {
                    prop_assert_eq!(read[at].revision, now.revision);
                    next.revision += 1;
                    now = next;
                }
                Err(ReserveError::Stale { against, revision, .. }) => {
                    prop_assert!(against < revision);
                }
                Err(ReserveError::OverCapacity { left, asked, .. }) => {
                    prop_assert!(!asked.fits_in(left));
                }
                Err(ReserveError::Twice { .. }) => prop_assert!(false, "each group is new"),
            }
            prop_assert!(now.held(alive).fits_in(capacity));
            if dies && who > 0 {
                dead[at] = true;
            }
        }
    }
}

#[test]
fn a_group_holds_a_node_once_and_gives_it_back() {
    let holder = || Holder {
        node: id(0),
        token: 1,
    };
    let reservation = Reservation {
        node: id(3),
        group: group(1),
        members: 2,
        each: amount(1, 1),
        against: 0,
    };
    let ledger = Ledger::default();
    let held = ledger
        .with(&reservation, holder(), amount(8, 8), |_| true)
        .unwrap();
    assert_eq!(held.held(|_| true), amount(2, 2));
    let twice = held.with(&reservation, holder(), amount(8, 8), |_| true);
    assert!(
        matches!(twice, Err(ReserveError::Twice { .. })),
        "{twice:?}"
    );
    assert_eq!(held.without(group(1)), ledger);
}
