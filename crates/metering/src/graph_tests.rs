//! Graphs: what is found, what makes room, what is counted.

use model::{Status, TrapKind};
use proptest::prelude::*;

use super::*;

fn id(number: u64) -> InvocationId {
    format!("{number:032x}").parse().expect("an id")
}

fn begun(number: u64, unix_us: u64) -> Begun {
    Begun {
        id: id(number),
        path: format!("a/f{number}").parse().expect("a path"),
        version: Digest::of(b"version"),
        unix_us,
    }
}

fn ok() -> Outcome {
    Outcome {
        status: Status::Ok,
        start: StartKind::Restored,
        usage: Usage {
            cpu_us: 7,
            ..Usage::default()
        },
    }
}

fn graphs(change: impl FnOnce(&mut GraphConfig)) -> Graphs {
    let mut config = GraphConfig::default();
    change(&mut config);
    Graphs::new(config)
}

fn find(graphs: &Graphs, id: InvocationId) -> Option<Graph> {
    graphs.find(id).map(Found::copied)
}

fn ids(graph: &Graph) -> Vec<InvocationId> {
    graph.nodes.iter().map(|node| node.id).collect()
}

#[test]
fn a_tree_is_found_by_any_of_its_invocations() {
    let mut graphs = graphs(|_| {});
    graphs.root(begun(1, 100));
    graphs.child(id(1), id(1), begun(2, 110), false);
    graphs.child(id(1), id(2), begun(3, 120), true);
    graphs.ended(id(1), id(3), &ok(), 150);
    graphs.ended(id(1), id(2), &ok(), 160);
    graphs.ended(id(1), id(1), &ok(), 200);
    let graph = find(&graphs, id(1)).expect("it is kept");
    assert_eq!(ids(&graph), [id(1), id(2), id(3)]);
    for number in [2, 3] {
        assert_eq!(find(&graphs, id(number)).as_ref(), Some(&graph));
    }
    assert_eq!(find(&graphs, id(4)), None);
    let of = |at: usize| {
        let node = &graph.nodes[at];
        let end = node.end.as_ref().expect("it has ended");
        (node.parent, node.detached, end.wall_us, end.usage.cpu_us)
    };
    assert_eq!(of(0), (None, false, 100, 7));
    assert_eq!(of(1), (Some(id(1)), false, 50, 7));
    assert_eq!(of(2), (Some(id(2)), true, 30, 7));
}

#[test]
fn failures_say_why_in_a_few_words() {
    let mut graphs = graphs(|config| config.detail_bytes_max = 24);
    graphs.root(begun(1, 0));
    graphs.child(id(1), id(1), begun(2, 0), false);
    graphs.child(id(1), id(1), begun(3, 0), false);
    let message = "é".repeat(1000);
    let kind = TrapKind::Unreachable;
    let status = Status::Trap { kind, message };
    graphs.ended(id(1), id(2), &Outcome { status, ..ok() }, 5);
    graphs.without(id(1), id(3), "refused", "the queue is full", 6);
    let graph = find(&graphs, id(1)).expect("it is kept");
    let end = |at: usize| graph.nodes[at].end.clone().expect("it has ended");
    assert_eq!(end(1).status, "trap");
    assert_eq!(&*end(1).detail, "the function trapped: é");
    assert_eq!((end(2).status, end(2).start), ("refused", None));
    assert_eq!(&*end(2).detail, "the queue is full");
    assert_eq!(graph.nodes[0].end, None);
}

#[test]
fn an_end_is_recorded_once() {
    let mut graphs = graphs(|_| {});
    graphs.root(begun(1, 0));
    graphs.ended(id(1), id(1), &ok(), 5);
    graphs.ended(id(1), id(1), &ok(), 9);
    let graph = find(&graphs, id(1)).expect("it is kept");
    assert_eq!(graph.nodes[0].end.as_ref().map(|end| end.wall_us), Some(5));
}

#[test]
fn nodes_over_the_bound_are_counted() {
    let mut graphs = graphs(|config| config.nodes_max = 3);
    graphs.root(begun(1, 0));
    for number in 2..10 {
        graphs.child(id(1), id(1), begun(number, 0), false);
    }
    // What is not kept cannot end.
    graphs.ended(id(1), id(9), &ok(), 5);
    let graph = find(&graphs, id(1)).expect("it is kept");
    assert_eq!((graph.nodes.len(), graph.left_out), (3, 6));
}

#[test]
fn the_first_to_end_makes_room_and_open_trees_go_last() {
    let mut graphs = graphs(|config| config.trees_max = 3);
    let kept = |graphs: &Graphs| -> Vec<u64> {
        (1..10)
            .filter(|number| find(graphs, id(*number)).is_some())
            .collect()
    };
    for number in [1, 2, 3] {
        graphs.root(begun(number, 0));
    }
    graphs.ended(id(3), id(3), &ok(), 5);
    graphs.ended(id(2), id(2), &ok(), 6);
    graphs.root(begun(4, 7));
    assert_eq!(kept(&graphs), [1, 2, 4]);
    graphs.root(begun(5, 8));
    assert_eq!(kept(&graphs), [1, 4, 5]);
    graphs.root(begun(6, 9));
    assert_eq!(kept(&graphs), [4, 5, 6], "none has ended: the oldest goes");
}

#[test]
fn another_attempt_begins_its_tree_anew() {
    let mut graphs = graphs(|_| {});
    graphs.root(begun(1, 0));
    graphs.child(id(1), id(1), begun(2, 1), false);
    graphs.root(begun(1, 2));
    assert_eq!(find(&graphs, id(1)).map(|graph| graph.nodes.len()), Some(2));
    graphs.ended(id(1), id(1), &ok(), 5);
    graphs.root(begun(1, 100));
    let graph = find(&graphs, id(1)).expect("it is kept");
    assert_eq!(ids(&graph), [id(1)]);
    assert_eq!(graph.nodes[0].begun_unix_us, 100);
}

#[test]
fn a_tree_that_was_dropped_takes_nothing_more() {
    let mut graphs = graphs(|config| config.trees_max = 1);
    graphs.root(begun(1, 0));
    graphs.root(begun(2, 0));
    graphs.child(id(1), id(1), begun(3, 0), false);
    graphs.ended(id(1), id(1), &ok(), 5);
    assert_eq!(find(&graphs, id(1)), None);
    assert_eq!(find(&graphs, id(3)), None);
}

#[test]
fn a_tree_of_many_pages_is_found_whole_and_what_was_found_stays_as_it_was() {
    let mut graphs = graphs(|_| {});
    graphs.root(begun(1, 100));
    let count = 2 * PAGE_NODES as u64 + 3;
    for number in 2..=count {
        graphs.child(id(1), id(1), begun(number, 110), false);
    }
    let found = graphs.find(id(2)).expect("it is kept");
    for number in 1..=count {
        graphs.ended(id(1), id(number), &ok(), 200);
    }
    graphs.child(id(1), id(1), begun(count + 1, 210), true);
    let before = found.copied();
    assert_eq!(ids(&before), (1..=count).map(id).collect::<Vec<_>>());
    assert!(before.nodes.iter().all(|node| node.end.is_none()));
    let after = find(&graphs, id(1)).expect("it is kept");
    assert_eq!(after.nodes.len() as u64, count + 1);
    let open = after.nodes.iter().filter(|node| node.end.is_none());
    assert_eq!(
        open.map(|node| node.id).collect::<Vec<_>>(),
        [id(count + 1)]
    );
}

proptest! {
    #[test]
    fn whatever_happens_the_bounds_hold_and_the_filter_knows_the_open(
        steps in proptest::collection::vec((0_u8..4, 1_u64..12, 1_u64..40), 0..200),
    ) {
        let (trees_max, nodes_max, bytes_max) = (4, 5, TREE_BYTES * 3 + NODE_BYTES * 12);
        let mut graphs = graphs(|config| {
            config.trees_max = trees_max;
            config.nodes_max = nodes_max;
            config.bytes_max = bytes_max;
        });
        for (step, root, node) in steps {
            let node_id = 100 * root + node;
            match step {
                0 => drop(graphs.root(begun(root, 0))),
                1 => drop(graphs.child(id(root), id(root), begun(node_id, 0), false)),
                2 => graphs.ended(id(root), id(node_id), &ok(), 1),
                _ => graphs.ended(id(root), id(root), &ok(), 1),
            }
            prop_assert!(graphs.trees.len() <= trees_max);
            prop_assert!(graphs.bytes <= bytes_max);
            let bytes: usize = graphs.trees.values().map(|tree| tree.bytes).sum();
            prop_assert_eq!(bytes, graphs.bytes);
            prop_assert_eq!(graphs.open.len() + graphs.ended.len(), graphs.trees.len());
            for number in 1..12 {
                let tree = graphs.trees.get(&id(number));
                let open = tree.is_some_and(|tree| tree.pages.iter().flat_map(|page| page.iter()).any(|n| n.end.is_none()));
                prop_assert_eq!(graphs.filter.may_hold(id(number)), open);
                prop_assert!(tree.is_none_or(|tree| tree.len() <= nodes_max));
            }
        }
    }
}

#[test]
fn a_part_of_a_tree_is_over_when_all_that_was_sent_here_has_ended_and_opens_again() {
    let mut graphs = graphs(|config| config.trees_max = 2);
    let root = id(9);
    graphs.part(root, root, begun(1, 100));
    graphs.part(root, root, begun(1, 100));
    graphs.child(root, id(1), begun(2, 110), false);
    let node = "n3".parse().expect("a name");
    graphs.sent(root, id(2), &node);
    let graph = find(&graphs, id(2)).expect("it is kept");
    assert_eq!((graph.root, ids(&graph)), (root, vec![id(1), id(2)]));
    assert_eq!(graph.nodes[0].parent, Some(root));
    assert_eq!(graph.nodes[1].node, Some(node));
    graphs.ended(root, id(2), &ok(), 120);
    graphs.ended(root, id(1), &ok(), 130);
    assert!(!graphs.filter().may_hold(root));
    // Another call of the same tree comes here, before there is need of room.
    graphs.part(root, id(7), begun(3, 140));
    assert!(graphs.filter().may_hold(root));
    graphs.root(begun(4, 150));
    graphs.ended(id(4), id(4), &ok(), 160);
    graphs.root(begun(5, 170));
    assert_eq!(find(&graphs, id(4)), None, "the part is open again");
    graphs.ended(root, id(3), &ok(), 180);
    let graph = find(&graphs, root).expect("it is kept");
    assert!(graph.nodes.iter().all(|node| node.end.is_some()));
    graphs.root(begun(6, 190));
    assert_eq!(find(&graphs, root), None, "it was the first to end");
}

#[test]
fn what_comes_back_to_the_node_of_its_root_is_in_the_same_tree() {
    let mut graphs = graphs(|_| {});
    graphs.root(begun(1, 0));
    graphs.child(id(1), id(1), begun(2, 1), false);
    // 2 was sent away, and called 3, which was sent back.
    graphs.part(id(1), id(2), begun(3, 2));
    graphs.ended(id(1), id(3), &ok(), 3);
    let graph = find(&graphs, id(3)).expect("it is kept");
    assert_eq!(ids(&graph), [id(1), id(2), id(3)]);
    assert_eq!(graph.nodes[2].parent, Some(id(2)));
    graphs.without(id(1), id(2), "lost", "n2 is gone", 4);
    let graph = find(&graphs, id(1)).expect("it is kept");
    let end = graph.nodes[1].end.as_ref().expect("it has ended");
    assert_eq!((end.status, &*end.detail), ("lost", "n2 is gone"));
}
