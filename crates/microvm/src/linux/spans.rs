//! Sets of addresses, as spans that do not touch each other.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans(BTreeMap<u64, u64>);

impl Spans {
    /// Adds a span.
    pub fn insert(&mut self, span: Range<u64>) {
        if span.is_empty() {
            return;
        }
        let (mut start, mut end) = (span.start, span.end);
        let before = self.0.range(..=start).next_back();
        if let Some((from, to)) = before.map(|(from, to)| (*from, *to))
            && to >= start
        {
            start = from;
            end = end.max(to);
            self.0.remove(&from);
        }
        while let Some((from, to)) = self.0.range(start..=end).next().map(|(a, b)| (*a, *b)) {
            end = end.max(to);
            self.0.remove(&from);
        }
        self.0.insert(start, end);
    }

    /// Takes a span away.
    pub fn remove(&mut self, span: Range<u64>) {
        for part in self.within(span) {
            let Some((from, to)) = self.0.range(..=part.start).next_back() else {
                continue;
            };
            let (from, to) = (*from, *to);
            self.0.remove(&from);
            if from < part.start {
                self.0.insert(from, part.start);
            }
            if part.end < to {
                self.0.insert(part.end, to);
            }
        }
    }

    /// Whether all of `span` is in the set.
    pub fn covers(&self, span: Range<u64>) -> bool {
        let before = self.0.range(..=span.start).next_back();
        before.is_some_and(|(_, end)| *end >= span.end)
    }

    /// The parts of `span` that are in the set.
    pub fn within(&self, span: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        let before = self.0.range(..span.start).next_back();
        let all = before.into_iter().chain(self.0.range(span.start..span.end));
        for (from, to) in all {
            let part = (*from).max(span.start)..(*to).min(span.end);
            if !part.is_empty() {
                parts.push(part);
            }
        }
        parts
    }

    /// The parts of `span` that are not in the set.
    pub fn missing(&self, span: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        let mut at = span.start;
        for part in self.within(span.clone()) {
            if at < part.start {
                parts.push(at..part.start);
            }
            at = part.end;
        }
        if at < span.end {
            parts.push(at..span.end);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_of_spans_is_a_set(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..12), 1..60),
            asked in (0u64..40, 0u64..20),
        ) {
            let (mut spans, mut model) = (Spans::default(), BTreeSet::new());
            for (add, start, length) in steps {
                let span = start..start + length;
                if add {
                    spans.insert(span.clone());
                    model.extend(span);
                } else {
                    spans.remove(span.clone());
                    model.retain(|at| !span.contains(at));
                }
            }
            let asked = asked.0..asked.0 + asked.1;
            let in_set: Vec<u64> = spans.within(asked.clone()).into_iter().flatten().collect();
            let not: Vec<u64> = spans.missing(asked.clone()).into_iter().flatten().collect();
            let expected: Vec<u64> = model.range(asked.clone()).copied().collect();
            prop_assert_eq!(&in_set, &expected);
            let missing: Vec<u64> = asked.filter(|at| !model.contains(at)).collect();
            prop_assert_eq!(not, missing);
        }
    }
}
