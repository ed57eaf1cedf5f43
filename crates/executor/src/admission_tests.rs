//! Admission against a model: places are never over-granted, never lost, and fairly shared.

use proptest::prelude::*;

use super::*;

const NODE: Bound = Bound {
    running_max: 5,
    queued_max: 12,
};
const APP: Bound = Bound {
    running_max: 4,
    queued_max: 8,
};

fn path(index: usize) -> FunctionPath {
    let text = format!("app{}/f{}", index % 3, index / 3);
    text.parse().expect("a name")
}

#[derive(Clone, Debug)]
enum Step {
    Ask { function: usize, running_max: u32 },
    Release(usize),
    Abandon(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6usize, 1..4u32)
            .prop_map(|(function, running_max)| Step::Ask { function, running_max }),
        3 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Abandon),
    ];
    proptest::collection::vec(step, 1..400)
}

/// Who runs and waits, by the rules and nothing else.
#[derive(Default)]
struct Model {
    /// Function of each who runs.
    running: Vec<usize>,
    /// Function, its limit and waiter of each who waits, in order of arrival.
    waiting: Vec<(usize, u32, Waiter, u64)>,
    arrivals: u64,
}

impl Model {
    fn running_of(&self, function: usize) -> u32 {
        self.running.iter().filter(|&&f| f == function).count() as u32
    }

    fn running_of_app(&self, function: usize) -> u32 {
        let same = |f: &&usize| **f % 3 == function % 3;
        self.running.iter().filter(same).count() as u32
    }

    fn fits(&self, function: usize, running_max: u32) -> bool {
        (self.running.len() as u32) < NODE.running_max
            && self.running_of_app(function) < APP.running_max
            && self.running_of(function) < running_max
    }

    fn first_of(&self, function: usize) -> Option<&(usize, u32, Waiter, u64)> {
        self.waiting.iter().find(|waiting| waiting.0 == function)
    }

    /// Checks that those granted were first in their queues, and that no one waits who fits.
    fn granted(&mut self, granted: Vec<u64>) {
        for arrival in granted {
            let at = self.waiting.iter().position(|waiting| waiting.3 == arrival);
            let (function, running_max, ..) = self.waiting[at.expect("it waited")];
            assert_eq!(self.first_of(function).expect("it waited").3, arrival);
            assert!(self.fits(function, running_max), "over-granted");
            self.waiting.remove(at.expect("it waited"));
            self.running.push(function);
        }
        for function in 0..6 {
            if let Some(first) = self.first_of(function) {
                assert!(!self.fits(function, first.1), "it waits, but could run");
            }
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut admission = Admission::new(NODE, APP);
    let keys: Vec<FunctionKey> = (0..6).map(|i| admission.register(&path(i))).collect();
    let mut model = Model::default();
    for step in steps {
        let mut granted = Vec::new();
        match step {
            Step::Ask {
                function,
                running_max,
            } => ask(
                &mut admission,
                &mut model,
                keys[function],
                function,
                running_max,
            ),
            Step::Release(which) if !model.running.is_empty() => {
                let function = model.running.swap_remove(which % model.running.len());
                admission.release(keys[function], &mut granted);
            }
            Step::Abandon(which) if !model.waiting.is_empty() => {
                let at = which % model.waiting.len();
                let (function, _, waiter, _) = model.waiting.remove(at);
                admission.abandon(keys[function], waiter, &mut granted);
            }
            Step::Release(_) | Step::Abandon(_) => {}
        }
        model.granted(granted);
        assert_eq!(admission.running() as usize, model.running.len());
        assert_eq!(admission.queued() as usize, model.waiting.len());
    }
    // Nothing is lost: everything ends, and all places are free again.
    while let Some(function) = model.running.pop() {
        let mut granted = Vec::new();
        admission.release(keys[function], &mut granted);
        model.granted(granted);
    }
    assert!(model.waiting.is_empty());
    assert_eq!((admission.running(), admission.queued()), (0, 0));
    for key in keys {
        admission.unregister(key);
    }
    assert!(admission.by_path.is_empty() && admission.by_name.is_empty());
}

fn ask(
    admission: &mut Admission<u64>,
    model: &mut Model,
    key: FunctionKey,
    function: usize,
    running_max: u32,
) {
    let bound = Bound {
        running_max,
        queued_max: 5,
    };
    match admission.ask(key, bound) {
        Answer::Admitted => {
            assert!(model.fits(function, running_max) && model.first_of(function).is_none());
            model.running.push(function);
        }
        Answer::MayWait => {
            assert!(!model.fits(function, running_max) || model.first_of(function).is_some());
            model.arrivals += 1;
            let waiter = admission.wait(key, running_max, model.arrivals);
            let arrival = model.arrivals;
            model.waiting.push((function, running_max, waiter, arrival));
        }
        Answer::Full(scope) => {
            let of = |same: &dyn Fn(usize) -> bool| {
                model
                    .waiting
                    .iter()
                    .filter(|waiting| same(waiting.0))
                    .count()
            };
            let expected = if of(&|f| f == function) >= 5 {
                Scope::Function
            } else if of(&|f| f % 3 == function % 3) >= APP.queued_max as usize {
                Scope::App
            } else {
                assert!(model.waiting.len() >= NODE.queued_max as usize);
                Scope::Node
            };
            assert_eq!(scope, expected);
        }
        Answer::Closed => panic!("it was not closed"),
    }
}

proptest! {
    #[test]
    fn no_place_is_over_granted_or_lost_and_nobody_waits_in_vain(steps in steps()) {
        run(steps);
    }
}

fn one_place() -> Admission<&'static str> {
    let one = Bound {
        running_max: 1,
        queued_max: 100,
    };
    Admission::new(one, one)
}

const WIDE: Bound = Bound {
    running_max: 10,
    queued_max: 10,
};

#[test]
fn apps_take_turns_however_long_their_queues_are() {
    let mut admission = one_place();
    let busy = admission.register(&"busy/f".parse().expect("a name"));
    let calm = admission.register(&"calm/f".parse().expect("a name"));
    assert_eq!(admission.ask(busy, WIDE), Answer::Admitted);
    for _ in 0..5 {
        assert_eq!(admission.ask(busy, WIDE), Answer::MayWait);
        admission.wait(busy, 10, "busy");
    }
    assert_eq!(admission.ask(calm, WIDE), Answer::MayWait);
    admission.wait(calm, 10, "calm");
    let mut order = Vec::new();
    admission.release(busy, &mut order);
    assert_eq!(order, ["calm"]);
    admission.release(calm, &mut order);
    assert_eq!(order, ["calm", "busy"]);
}

#[test]
fn who_is_dismissed_gives_nothing_back() {
    let mut admission = one_place();
    let key = admission.register(&"a/f".parse().expect("a name"));
    assert_eq!(admission.ask(key, WIDE), Answer::Admitted);
    assert_eq!(admission.ask(key, WIDE), Answer::MayWait);
    let waiter = admission.wait(key, 10, "w");
    admission.close();
    assert_eq!(admission.dismiss(), ["w"]);
    let mut granted = Vec::new();
    admission.abandon(key, waiter, &mut granted);
    assert_eq!((admission.running(), admission.queued()), (1, 0));
    admission.release(key, &mut granted);
    assert_eq!((admission.running(), granted.len()), (0, 0));
    assert_eq!(admission.ask(key, WIDE), Answer::Closed);
}

#[test]
fn a_slot_of_a_function_that_left_is_clean_for_the_next() {
    let mut admission = one_place();
    let gone = admission.register(&"a/gone".parse().expect("a name"));
    let stays = admission.register(&"a/stays".parse().expect("a name"));
    assert_eq!(admission.ask(stays, WIDE), Answer::Admitted);
    assert_eq!(admission.ask(gone, WIDE), Answer::MayWait);
    let waiter = admission.wait(gone, 10, "gone");
    let mut granted = Vec::new();
    admission.abandon(gone, waiter, &mut granted);
    admission.unregister(gone);
    let new = admission.register(&"b/new".parse().expect("a name"));
    assert_eq!(new, gone, "the slot is used again");
    assert_eq!(admission.ask(new, WIDE), Answer::MayWait);
    admission.wait(new, 10, "new");
    admission.release(stays, &mut granted);
    assert_eq!(granted, ["new"]);
}
