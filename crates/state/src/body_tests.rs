//! Any changes of a value, wherever its bytes are, against a plain vector; and where they are.

use proptest::prelude::*;

use super::*;
use crate::Config;
use crate::budget::{AppBudget, NodeBudget};

const LONG_BYTES: usize = 3 * WHOLE_BYTES_MIN;

#[derive(Clone, Debug)]
enum Step {
    Give(usize),
    Lend(usize),
    Write(usize, usize),
    Add(usize),
    Resize(usize),
    Map,
    Unmap,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    // Below, at and above every border between two places.
    let length = || {
        prop_oneof![
            0..64usize,
            SMALL_BYTES_MAX - 1..SMALL_BYTES_MAX + 2,
            WHOLE_BYTES_MIN - 1..WHOLE_BYTES_MIN + 2,
            0..LONG_BYTES,
        ]
    };
    prop_oneof![
        3 => length().prop_map(Step::Give),
        2 => length().prop_map(Step::Lend),
        2 => (length(), 0..100usize).prop_map(|(at, bytes)| Step::Write(at, bytes)),
        1 => length().prop_map(Step::Add),
        2 => length().prop_map(Step::Resize),
        1 => Just(Step::Map),
        1 => Just(Step::Unmap),
        1 => Just(Step::Clear),
    ]
}

fn budget() -> Arc<AppBudget> {
    let config = Config::default();
    let node = Arc::new(NodeBudget::new(&config));
    Arc::new(AppBudget::new(&config, node))
}

fn body(budget: &Arc<AppBudget>) -> Body {
    Body::new(Charge::new(budget.clone()), LONG_BYTES)
}

/// Bytes that are others each time.
fn some(seed: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 + seed * 7 + 1) as u8)
        .collect()
}

proptest! {
    #[test]
    fn a_value_is_the_same_wherever_it_is(steps in prop::collection::vec(step(), 1..20)) {
        let budget = budget();
        let mut body = body(&budget);
        let (mut model, mut mapped) = (Vec::new(), None);
        for (seed, step) in steps.into_iter().enumerate() {
            let size = model.len();
            match step {
                Step::Give(length) => {
                    model = some(seed, length);
                    let given = Data::Given(model.clone().into());
                    body.replace(size, &given).unwrap();
                }
                Step::Lend(length) => {
                    model = some(seed, length);
                    body.replace(size, &Data::Lent(&model)).unwrap();
                }
                Step::Write(at, bytes) => {
                    let at = at.min(size);
                    let data = some(seed, bytes.min(size - at));
                    body.write(at, &data).unwrap();
                    model[at..at + data.len()].copy_from_slice(&data);
                }
                Step::Add(at) => {
                    let number = at / WORD_BYTES;
                    let at = number * WORD_BYTES;
                    if let Some(word) = model.get_mut(at..at + WORD_BYTES) {
                        let before = u64::from_le_bytes((&*word).try_into().unwrap());
                        let sum = before.wrapping_add(seed as u64);
                        word.copy_from_slice(&sum.to_le_bytes());
                        prop_assert_eq!(body.add_to_word(number, seed as u64).unwrap(), sum);
                    }
                }
                Step::Resize(new) => {
                    match new > size {
                        true => body.extend(size, new).unwrap(),
                        false => body.cut(size, new).unwrap(),
                    }
                    model.resize(new, 0);
                }
                Step::Map => mapped = Some(body.region(size).unwrap().clone()),
                Step::Unmap => mapped = None,
                Step::Clear => {
                    body.clear();
                    (model, mapped) = (Vec::new(), None);
                }
            }
            prop_assert!(body.copy(0, model.len()).unwrap() == model);
            let mut out = vec![0; model.len() / 2];
            body.read(model.len() - out.len(), &mut out).unwrap();
            prop_assert!(model.ends_with(&out));
            if let Some(region) = &mapped {
                let region: &Region = region;
                let seen = region.copy(0, model.len()).unwrap();
                prop_assert!(seen == model, "a guest sees what the value is");
            }
            prop_assert!(budget.bytes.used() >= model.len());
        }
        drop((body, mapped));
        prop_assert_eq!(budget.bytes.used(), 0);
        prop_assert_eq!(budget.node.regions.used(), 0);
    }
}

#[test]
fn a_long_value_that_is_given_is_kept_as_it_came_and_read_without_a_copy() {
    let budget = budget();
    let mut body = body(&budget);
    let given = Bytes::from(some(1, LONG_BYTES));
    body.replace(0, &given.clone().into()).unwrap();
    let read = body.copy(8, 100).unwrap();
    assert_eq!(read.as_ptr(), given[8..].as_ptr());
    assert_eq!(budget.bytes.used(), LONG_BYTES);
    assert_eq!(budget.node.regions.used(), 0);
    // What was read stays as it was, whatever becomes of the value.
    body.write(8, b"other").unwrap();
    assert_eq!(read, given[8..108]);
    assert_eq!(budget.node.regions.used(), 1);
    // Once nobody maps it, it is kept as it comes again.
    let again = Bytes::from(some(2, LONG_BYTES));
    body.replace(LONG_BYTES, &again.clone().into()).unwrap();
    assert_eq!(body.copy(0, 1).unwrap().as_ptr(), again.as_ptr());
    assert_eq!(budget.node.regions.used(), 0);
}

#[test]
fn what_is_given_past_the_bounds_leaves_the_value_as_it_was() {
    let config = Config {
        app_bytes_max: LONG_BYTES - 1,
        ..Config::default()
    };
    let budget = Arc::new(AppBudget::new(&config, Arc::new(NodeBudget::new(&config))));
    let mut body = body(&budget);
    let given = Bytes::from(some(1, WHOLE_BYTES_MIN));
    body.replace(0, &given.clone().into()).unwrap();
    let more = Bytes::from(some(2, LONG_BYTES));
    let refused = body.replace(given.len(), &more.into());
    assert!(
        matches!(refused, Err(StateError::Full { .. })),
        "{refused:?}"
    );
    assert_eq!(body.copy(0, given.len()).unwrap(), given);
    assert_eq!(budget.bytes.used(), given.len());
}
