//! Whose turn it is: the locks of one key, without clock, tasks or channels.
//!
//! ```text
//!  Ask ──▶ compatible and nobody waits ──▶ held ──Release, Cancel, time over──▶ free
//!      └─▶ waiting, first come first served ──turn──▶ held
//!              └─Cancel, time over──▶ gone
//! ```

use std::collections::VecDeque;

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Beside others that share it.
    Shared,
    /// Alone.
    Exclusive,
}

/// A request for the lock. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub ticket: u64,
    pub owner: u128,
    pub mode: Mode,
    pub wait_until: u64,
    pub hold: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Ask(Ask),
    /// Who asked is gone; what it was granted is freed.
    Cancel {
        ticket: u64,
    },
    Release {
        owner: u128,
    },
    Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    TimedOut,
    Full,
    Upgrade,
    /// The locks are another node's by now.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Grant { ticket: u64, owner: u128 },
    Refuse { ticket: u64, why: Refusal },
    Freed { owner: u128, in_time: bool },
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    ticket: u64,
    owner: u128,
    mode: Mode,
    until: u64,
}

/// Holders and those who wait. An owner holds the lock once, however often it asked.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    holders: Vec<Holder>,
    waiting: VecDeque<Ask>,
}

impl Turns {
    /// What follows from the event. `waiters_max` bounds those who wait.
    pub fn handle(&mut self, now: u64, event: Event, waiters_max: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        self.pass_time(now, &mut actions);
        match event {
            Event::Ask(ask) => self.ask(now, ask, waiters_max, &mut actions),
            Event::Cancel { ticket } => {
                self.waiting.retain(|ask| ask.ticket != ticket);
                self.free(|holder| holder.ticket == ticket, true, &mut actions);
            }
            Event::Release { owner } => {
                self.free(|holder| holder.owner == owner, true, &mut actions);
            }
            Event::Tick => {}
        }
        self.take_turns(now, &mut actions);
        actions
    }

    /// When something happens by itself that somebody waits for.
    pub fn wake_at(&self) -> Option<u64> {
        let waits = self.waiting.iter().map(|ask| ask.wait_until).min()?;
        let holds = self.holders.iter().map(|holder| holder.until).min();
        Some(holds.map_or(waits, |holds| holds.min(waits)))
    }

    /// Whether nobody holds it or waits.
    pub fn is_free(&self) -> bool {
        self.holders.is_empty() && self.waiting.is_empty()
    }

    fn pass_time(&mut self, now: u64, actions: &mut Vec<Action>) {
        self.free(|holder| holder.until <= now, false, actions);
        self.take_turns(now, actions);
        self.waiting.retain(|ask| {
            let in_time = ask.wait_until > now;
            if !in_time {
                let (ticket, why) = (ask.ticket, Refusal::TimedOut);
                actions.push(Action::Refuse { ticket, why });
            }
            in_time
        });
        self.take_turns(now, actions);
    }

    fn ask(&mut self, now: u64, ask: Ask, waiters_max: usize, actions: &mut Vec<Action>) {
        let ticket = ask.ticket;
        let mut refuse = |why| actions.push(Action::Refuse { ticket, why });
        if self.is_upgrade(&ask) && !self.fits(&ask) {
            return refuse(Refusal::Upgrade);
        }
        if self.holds(ask.owner) || (self.waiting.is_empty() && self.fits(&ask)) {
            return self.grant(now, &ask, actions);
        }
        if ask.wait_until <= now {
            return refuse(Refusal::TimedOut);
        }
        if self.waiting.len() >= waiters_max {
            return refuse(Refusal::Full);
        }
        self.waiting.push_back(ask);
    }

    fn take_turns(&mut self, now: u64, actions: &mut Vec<Action>) {
        while let Some(ask) = self.waiting.front().copied() {
            let upgrade = self.is_upgrade(&ask);
            let fits = self.fits(&ask);
            if !fits && !upgrade && !self.holds(ask.owner) {
                return;
            }
            self.waiting.pop_front();
            if fits || !upgrade {
                self.grant(now, &ask, actions);
            } else {
                let (ticket, why) = (ask.ticket, Refusal::Upgrade);
                actions.push(Action::Refuse { ticket, why });
            }
        }
    }

    fn grant(&mut self, now: u64, ask: &Ask, actions: &mut Vec<Action>) {
        let until = now.saturating_add(ask.hold);
        let held = self.holders.iter_mut().find(|held| held.owner == ask.owner);
        match held {
            Some(held) => {
                held.until = held.until.max(until);
                if ask.mode == Mode::Exclusive {
                    held.mode = Mode::Exclusive;
                }
            }
            None => self.holders.push(Holder {
                ticket: ask.ticket,
                owner: ask.owner,
                mode: ask.mode,
                until,
            }),
        }
        actions.push(Action::Grant {
            ticket: ask.ticket,
            owner: ask.owner,
        });
    }

    fn free(&mut self, which: impl Fn(&Holder) -> bool, in_time: bool, actions: &mut Vec<Action>) {
        self.holders.retain(|holder| {
            let goes = which(holder);
            if goes {
                let owner = holder.owner;
                actions.push(Action::Freed { owner, in_time });
            }
            !goes
        });
    }

    fn holds(&self, owner: u128) -> bool {
        self.holders.iter().any(|holder| holder.owner == owner)
    }

    /// Whether the owner shares the lock and wants it alone. Two of these would wait for each
    /// other.
    fn is_upgrade(&self, ask: &Ask) -> bool {
        let shares = |held: &Holder| held.owner == ask.owner && held.mode == Mode::Shared;
        ask.mode == Mode::Exclusive && self.holders.iter().any(shares)
    }

    /// Whether all other holders bear it.
    fn fits(&self, ask: &Ask) -> bool {
        let both_share = |held: &Holder| held.mode == Mode::Shared && ask.mode == Mode::Shared;
        let bears = |held: &Holder| held.owner == ask.owner || both_share(held);
        self.holders.iter().all(bears)
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
