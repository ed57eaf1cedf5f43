//! What goes wrong when: known from the beginning, so that it depends on nothing that happens.

use std::time::Duration;

use crate::Plan;
use crate::dice::{Dice, Throw};

/// Longest time that one trouble takes.
const TROUBLE_MAX: Duration = Duration::from_secs(8);
/// How long a message takes at most, usually.
const DELAY_MAX: Duration = Duration::from_millis(4);
/// And when it is late.
const LATE_MAX: Duration = Duration::from_millis(400);
/// How long a slow disk takes at most for one write.
const DISK_MAX: Duration = Duration::from_millis(700);

#[derive(Clone, Copy, Debug)]
struct Trouble {
    from: Duration,
    to: Duration,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Cut {
        node: usize,
        asks: bool,
        answers: bool,
    },
    /// Nodes below it, and the others.
    Split(usize),
    Outage,
    SlowDisk,
    FullDisk,
    SlowNode(usize),
}

/// Something that happens to a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mishap {
    pub node: usize,
    pub at: Duration,
    /// When it starts again.
    pub back: Duration,
    /// Whether it is told before, rather than killed.
    pub is_told: bool,
}

/// The way of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It arrives then.
    Arrives(Duration),
    Lost,
}

#[derive(Debug)]
pub(crate) struct Weather {
    dice: Dice,
    troubles: Vec<Trouble>,
    pub mishaps: Vec<Mishap>,
    span: Duration,
    loss_permille: u64,
    late_permille: u64,
    is_direct: bool,
}

impl Weather {
    pub fn of(plan: &Plan, dice: Dice) -> Self {
        let of = &plan.troubles;
        let mut weather = Self {
            dice,
            troubles: Vec::new(),
            mishaps: Vec::new(),
            span: plan.span,
            loss_permille: of.loss_permille,
            late_permille: of.late_permille,
            is_direct: false,
        };
        let nodes = plan.nodes;
        weather.add("cut", of.cuts, |throw| {
            let which = throw.below(3);
            What::Cut {
                node: throw.index(nodes),
                asks: which != 0,
                answers: which != 1,
            }
        });
        weather.add("split", of.splits, |throw| What::Split(throw.index(nodes)));
        weather.add("outage", of.outages, |_| What::Outage);
        weather.add("slow disk", of.slow_disks, |_| What::SlowDisk);
        weather.add("full disk", of.full_disks, |_| What::FullDisk);
        weather.add("slow node", of.slow_nodes, |throw| {
            What::SlowNode(throw.index(nodes))
        });
        for (count, is_told) in [(of.kills, false), (of.stops, true)] {
            for n in 0..count {
                let mut throw = dice.throw("mishap", &[n.into(), is_told.into()]);
                let at = throw.time(plan.span);
                weather.mishaps.push(Mishap {
                    node: throw.index(nodes),
                    at,
                    back: (at + throw.time(TROUBLE_MAX)).min(plan.span),
                    is_told,
                });
            }
        }
        weather
    }

    /// Without trouble and with hardly any delay.
    pub fn fair(dice: Dice) -> Self {
        Self {
            dice,
            troubles: Vec::new(),
            mishaps: Vec::new(),
            span: Duration::ZERO,
            loss_permille: 0,
            late_permille: 0,
            is_direct: true,
        }
    }

    fn add(&mut self, name: &str, count: u32, what: impl Fn(&mut Throw) -> What) {
        for n in 0..count {
            let mut throw = self.dice.throw(name, &[n.into()]);
            let from = throw.time(self.span);
            self.troubles.push(Trouble {
                from,
                to: (from + throw.time(TROUBLE_MAX)).min(self.span),
                what: what(&mut throw),
            });
        }
    }

    /// The end of the last trouble of a kind at `now`, if there is one.
    fn until(&self, now: Duration, is_meant: impl Fn(What) -> bool) -> Option<Duration> {
        let present = self
            .troubles
            .iter()
            .filter(|trouble| trouble.from <= now && now < trouble.to && is_meant(trouble.what));
        present.map(|trouble| trouble.to).max()
    }

    /// Whether some nodes did not reach the store, or each other, at any time in between.
    pub fn was_troubled(&self, from: Duration, to: Duration) -> bool {
        let mut troubles = self.troubles.iter();
        troubles.any(|trouble| {
            let is_of_one = matches!(trouble.what, What::SlowNode(_));
            !is_of_one && trouble.from < to && from < trouble.to
        })
    }

    /// A message of a node to the store.
    pub fn asks(&self, now: Duration, number: u64, node: usize) -> Way {
        let cut = self.until(
            now,
            |what| matches!(what, What::Cut { node: of, asks: true, .. } if of == node),
        );
        self.way(now, number, cut)
    }

    /// A message of the store to a node.
    pub fn answers(&self, now: Duration, number: u64, node: usize) -> Way {
        let cut = self.until(
            now,
            |what| matches!(what, What::Cut { node: of, answers: true, .. } if of == node),
        );
        self.way(now, number, cut)
    }

    /// A message between two nodes.
    pub fn between(&self, now: Duration, number: u64, one: usize, other: usize) -> Way {
        let cut = self.until(
            now,
            |what| matches!(what, What::Split(at) if (one < at) != (other < at)),
        );
        self.way(now, number, cut)
    }

    /// A message on a connection of two nodes, which sends again what is lost: all that loses one
    /// is a cut.
    pub fn connected(&self, now: Duration, number: u64, one: usize, other: usize) -> Way {
        let way = self.between(now, number, one, other);
        let is_cut = |what| matches!(what, What::Split(at) if (one < at) != (other < at));
        match way {
            Way::Lost if self.until(now, is_cut).is_none() => Way::Arrives(now + LATE_MAX),
            way => way,
        }
    }

    /// What is sent into a cut is lost, or sent again until the cut is over.
    fn way(&self, now: Duration, number: u64, cut: Option<Duration>) -> Way {
        let mut throw = self.dice.throw("way", &[number, now.as_micros() as u64]);
        if self.is_direct {
            return Way::Arrives(now + throw.time(DELAY_MAX) / 4);
        }
        let is_rough = now < self.span;
        if is_rough && throw.chance(self.loss_permille) || cut.is_some() && throw.chance(500) {
            return Way::Lost;
        }
        let is_late = is_rough && throw.chance(self.late_permille);
        let most = if is_late { LATE_MAX } else { DELAY_MAX };
        Way::Arrives(cut.unwrap_or(now) + Duration::from_micros(100) + throw.time(most))
    }

    /// Whether the store does not hear anybody.
    pub fn is_out(&self, now: Duration) -> bool {
        self.until(now, |what| matches!(what, What::Outage))
            .is_some()
    }

    pub fn is_full(&self, now: Duration) -> bool {
        self.until(now, |what| matches!(what, What::FullDisk))
            .is_some()
    }

    /// How long the disks take for a write.
    pub fn disk(&self, now: Duration, number: u64) -> Duration {
        match self.until(now, |what| matches!(what, What::SlowDisk)) {
            Some(_) => self.dice.throw("disk", &[number]).time(DISK_MAX),
            None => Duration::ZERO,
        }
    }

    /// How many times longer a node takes than usually.
    pub fn slowness(&self, now: Duration, node: usize) -> u32 {
        let slow = self.until(now, |what| matches!(what, What::SlowNode(of) if of == node));
        if slow.is_some() { 20 } else { 1 }
    }
}
