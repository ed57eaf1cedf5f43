//! Turns against what a lock must be, whatever happens in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const WAITERS_MAX: usize = 4;

/// What a lock looks like from outside.
#[derive(Default)]
struct Seen {
    asked: BTreeMap<u64, Ask>,
    /// Owner: `(mode, until)`.
    held: BTreeMap<u128, (Mode, u64)>,
    waiting: Vec<u64>,
}

impl Seen {
    fn follow(&mut self, now: u64, asked: Option<u64>, actions: &[Action]) {
        let mut answered = BTreeSet::new();
        for action in actions {
            match *action {
                Action::Grant { ticket, owner } => {
                    assert!(answered.insert(ticket), "answered twice");
                    self.grant(now, asked, ticket, owner);
                }
                Action::Refuse { ticket, why } => {
                    assert!(answered.insert(ticket), "answered twice");
                    if why == Refusal::Full {
                        assert!(self.waiting.len() >= WAITERS_MAX);
                    }
                    if why == Refusal::TimedOut {
                        assert!(self.asked[&ticket].wait_until <= now);
                    }
                    self.waiting.retain(|other| *other != ticket);
                }
                Action::Freed { owner, .. } => {
                    assert!(self.held.remove(&owner).is_some(), "freed what nobody held");
                }
            }
        }
        if let Some(ticket) = asked.filter(|ticket| !answered.contains(ticket)) {
            self.waiting.push(ticket);
        }
        self.check(now);
    }

    fn grant(&mut self, now: u64, asked: Option<u64>, ticket: u64, owner: u128) {
        let ask = self.asked[&ticket];
        assert_eq!(ask.owner, owner);
        if asked != Some(ticket) {
            assert_eq!(self.waiting.first(), Some(&ticket), "not in turn");
            self.waiting.remove(0);
        } else if !self.held.contains_key(&owner) {
            assert!(self.waiting.is_empty(), "before those who wait");
        }
        let held = self.held.entry(owner).or_insert((ask.mode, 0));
        held.1 = held.1.max(now + ask.hold);
        if ask.mode == Mode::Exclusive {
            held.0 = Mode::Exclusive;
        }
    }

    fn check(&self, now: u64) {
        let alone = self.held.values().any(|(mode, _)| *mode == Mode::Exclusive);
        assert!(
            !alone || self.held.len() == 1,
            "an exclusive lock is shared"
        );
        assert!(
            self.held.values().all(|(_, until)| *until > now),
            "held too long"
        );
        let in_time = |ticket: &u64| self.asked[ticket].wait_until > now;
        assert!(self.waiting.iter().all(in_time), "waited too long");
        assert!(self.waiting.len() <= WAITERS_MAX);
        if let Some(first) = self.waiting.first() {
            let wants = self.asked[first].mode;
            let free = self.held.is_empty() || (!alone && wants == Mode::Shared);
            assert!(!free, "somebody waits for a free lock");
        }
    }
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Shared), Just(Mode::Exclusive)]
}

#[derive(Clone, Debug)]
enum Act {
    Ask {
        owner: u128,
        mode: Mode,
        wait: u64,
        hold: u64,
    },
    Cancel(prop::sample::Index),
    Release {
        owner: u128,
    },
    Tick,
}

fn act() -> impl Strategy<Value = Act> {
    let ask = (0..6u128, mode(), 0..20u64, 1..20u64);
    prop_oneof![
        5 => ask.prop_map(|(owner, mode, wait, hold)| Act::Ask { owner, mode, wait, hold }),
        1 => any::<prop::sample::Index>().prop_map(Act::Cancel),
        2 => (0..6u128).prop_map(|owner| Act::Release { owner }),
        1 => Just(Act::Tick),
    ]
}

proptest! {
    #[test]
    fn a_lock_is_exclusive_fair_and_free_in_time(
        acts in prop::collection::vec((act(), 0..6u64), 1..80),
    ) {
        let (mut turns, mut seen, mut now) = (Turns::default(), Seen::default(), 1);
        for (number, (act, passed)) in acts.into_iter().enumerate() {
            now += passed;
            let mut asked = None;
            let event = match act {
                Act::Ask { owner, mode, wait, hold } => {
                    let (ticket, wait_until) = (number as u64, now + wait);
                    let ask = Ask { ticket, owner, mode, wait_until, hold };
                    asked = Some(ticket);
                    seen.asked.insert(ticket, ask);
                    Event::Ask(ask)
                }
                Act::Cancel(index) => {
                    if seen.waiting.is_empty() {
                        continue;
                    }
                    // As who asked: time passes first, which may answer it.
                    let actions = turns.handle(now, Event::Tick, WAITERS_MAX);
                    seen.follow(now, None, &actions);
                    if seen.waiting.is_empty() {
                        continue;
                    }
                    let at = index.index(seen.waiting.len());
                    let ticket = seen.waiting.remove(at);
                    Event::Cancel { ticket }
                }
                Act::Release { owner } => Event::Release { owner },
                Act::Tick => Event::Tick,
            };
            let actions = turns.handle(now, event, WAITERS_MAX);
            seen.follow(now, asked, &actions);
            prop_assert_eq!(turns.is_free(), seen.held.is_empty() && seen.waiting.is_empty());
            prop_assert_eq!(turns.wake_at().is_some(), !seen.waiting.is_empty());
        }
    }
}

fn ask(ticket: u64, owner: u128, mode: Mode) -> Event {
    Event::Ask(Ask {
        ticket,
        owner,
        mode,
        wait_until: 100,
        hold: 50,
    })
}

#[test]
fn two_that_share_cannot_both_become_exclusive() {
    let mut turns = Turns::default();
    for (ticket, owner) in [(1, 1), (2, 2)] {
        let granted = turns.handle(0, ask(ticket, owner, Mode::Shared), 9);
        assert_eq!(granted, [Action::Grant { ticket, owner }]);
    }
    let why = Refusal::Upgrade;
    let refused = turns.handle(0, ask(3, 1, Mode::Exclusive), 9);
    assert_eq!(refused, [Action::Refuse { ticket: 3, why }]);
    turns.handle(0, Event::Release { owner: 2 }, 9);
    let granted = turns.handle(0, ask(4, 1, Mode::Exclusive), 9);
    assert_eq!(
        granted,
        [Action::Grant {
            ticket: 4,
            owner: 1
        }]
    );
}

#[test]
fn who_was_granted_and_never_knew_frees_it() {
    let mut turns = Turns::default();
    turns.handle(0, ask(1, 1, Mode::Exclusive), 9);
    turns.handle(0, ask(2, 2, Mode::Exclusive), 9);
    turns.handle(0, Event::Release { owner: 1 }, 9);
    let (owner, in_time) = (2, true);
    let freed = turns.handle(0, Event::Cancel { ticket: 2 }, 9);
    assert_eq!(freed, [Action::Freed { owner, in_time }]);
    assert!(turns.is_free());
}
