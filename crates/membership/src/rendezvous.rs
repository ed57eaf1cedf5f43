//! Rendezvous hashing (Thaler and Ravishankar, 1998): each key goes to the node that scores highest
//! with it, so that a node which comes or goes moves no key but those that it gets or had.

use model::NodeId;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Which of `nodes` a key belongs to; none when there are none.
pub fn owner<'a>(key: &[u8], nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<&'a NodeId> {
    let key = xxh3_64(key);
    let score = |node: &NodeId| xxh3_64_with_seed(node.as_str().as_bytes(), key);
    // The id decides between equal scores, so that the order of nodes has no say.
    nodes.into_iter().max_by_key(|node| (score(node), *node))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count)
            .map(|n| format!("n{n}").parse().unwrap())
            .collect()
    }

    #[test]
    fn nobody_owns_anything_where_there_is_nobody() {
        assert_eq!(owner(b"a", &[]), None);
    }

    #[test]
    fn keys_are_shared_evenly() {
        const KEYS: usize = 10_000;
        let nodes = nodes(10);
        let mut counts = vec![0; nodes.len()];
        for key in 0..KEYS {
            let owner = owner(&key.to_le_bytes(), &nodes).unwrap();
            counts[nodes.iter().position(|node| node == owner).unwrap()] += 1;
        }
        for count in counts {
            assert!((850..1150).contains(&count), "{count} of {KEYS} by ten");
        }
    }

    proptest! {
        #[test]
        fn a_node_that_comes_or_goes_moves_only_its_own_keys(
            count in 2..20usize,
            which in any::<prop::sample::Index>(),
            keys in prop::collection::vec(any::<u64>(), 1..50),
        ) {
            let all = nodes(count);
            let gone = which.index(count);
            let mut rest = all.clone();
            let gone = rest.remove(gone);
            rest.reverse();
            for key in keys {
                let key = key.to_le_bytes();
                let (before, after) = (owner(&key, &all).unwrap(), owner(&key, &rest).unwrap());
                prop_assert!(before == after || *before == gone);
                prop_assert!(*after != gone);
            }
        }
    }
}
