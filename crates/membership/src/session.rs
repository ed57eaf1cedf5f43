//! A node's membership as a state machine: what to ask of the store, and how long it counts.
//!
//! ```text
//!        ┌──────────────── failed: after a while ────────────────┐
//!        ▼                                                        │
//!  ┌── out ──grant──▶ granting ──granted──▶ joining ──joined──▶ member ◀─┐ kept: until =
//!  │     ▲                                     │                │  │     │ sent + ttl − margin
//!  │     │ freed, or after a while             │ taken          │  └keep─┘
//!  │     └──────────── waiting ◀───────────────┘                │
//!  │     ▲                                                      │
//!  │     └──────── its time is over, or its lease is gone ──────┘
//!  └──leave──▶ left
//! ```
//!
//! Each request has a number. An answer counts only for the request that is waited for; of a lease
//! that is granted too late nothing is left but to end it. All times are of the node's own clock.

use std::time::Duration;

use storage::LeaseId;

/// Time since the node's own clock began.
pub type Moment = Duration;

/// Times of a session; see [`crate::Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Time that a lease lasts.
    pub ttl: Duration,
    /// Time by which the node stops before that.
    pub margin: Duration,
    /// From one successful word to the next.
    pub renew_every: Duration,
    /// After one that failed.
    pub retry_after: Duration,
}

/// What a session hears. The number is that of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a lease.
    Granted(u64, LeaseId),
    /// The node's record is put, at this revision.
    Joined(u64, u64),
    /// There is a record of this node already: of its last life, or of another by its name.
    Taken(u64),
    /// The lease lasts longer.
    Kept(u64),
    /// The lease is gone.
    Gone(u64),
    /// The request failed, or was not answered in its time: it may have been done.
    Failed(u64),
    /// The record by this node's name was taken away.
    Freed,
    /// The node wants to leave.
    Leave,
}

/// What a session wants done. The number comes back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for a lease.
    Grant(u64),
    /// Put the node's record under the lease, if there is none.
    Join(u64, LeaseId),
    /// Keep the lease alive.
    Keep(u64, LeaseId),
    /// End the lease; nobody waits for it.
    Revoke(LeaseId),
}

/// Where a member stands: it may act in its own name before `until`, and no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standpoint {
    /// Names this tenure among all.
    pub token: u64,
    /// What it puts is put under this lease.
    pub lease: LeaseId,
    /// The end, unless it is prolonged.
    pub until: Moment,
}

/// A request that is waited for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    sent: Moment,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Asks for a lease at this moment.
    Out {
        at: Moment,
    },
    Granting {
        asked: Asked,
    },
    /// Its lease was asked for at `granted`.
    Joining {
        asked: Asked,
        lease: LeaseId,
        granted: Moment,
    },
    Waiting {
        at: Moment,
    },
    Member {
        standpoint: Standpoint,
        renewal: Renewal,
    },
    Left,
}

#[derive(Clone, Copy, Debug)]
enum Renewal {
    At(Moment),
    Asked(Asked),
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Session {
    terms: Terms,
    phase: Phase,
    number: u64,
}

impl Session {
    /// A session that joins at once.
    pub fn new(terms: Terms) -> Self {
        let phase = Phase::Out { at: Moment::ZERO };
        Self {
            terms,
            phase,
            number: 0,
        }
    }

    /// Where the node stands now; none when it is no member, whatever it was told.
    pub fn standpoint(&self, now: Moment) -> Option<Standpoint> {
        match self.phase {
            Phase::Member { standpoint, .. } if now < standpoint.until => Some(standpoint),
            _ => None,
        }
    }

    /// Whether it has left for good.
    pub fn has_left(&self) -> bool {
        matches!(self.phase, Phase::Left)
    }

    /// When [`Session::handle`] wants to be called though nothing was heard.
    pub fn next_wake(&self) -> Option<Moment> {
        match self.phase {
            Phase::Out { at } | Phase::Waiting { at } => Some(at),
            Phase::Joining { granted, .. } => Some(self.until(granted)),
            Phase::Member {
                standpoint,
                renewal: Renewal::At(at),
            } => Some(at.min(standpoint.until)),
            Phase::Member { standpoint, .. } => Some(standpoint.until),
            Phase::Granting { .. } | Phase::Left => None,
        }
    }

    /// Takes what was heard, if anything, and says what to do.
    pub fn handle(&mut self, now: Moment, event: Option<Event>) -> Vec<Action> {
        let mut actions = Vec::new();
        self.end_if_over(now, &mut actions);
        if let Some(event) = event {
            self.hear(now, event, &mut actions);
        }
        self.go_on(now, &mut actions);
        actions
    }

    /// What is past its time is over before anything that was heard counts.
    fn end_if_over(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let (lease, until) = match self.phase {
            Phase::Member { standpoint, .. } => (standpoint.lease, standpoint.until),
            Phase::Joining { lease, granted, .. } => (lease, self.until(granted)),
            _ => return,
        };
        if until <= now {
            actions.push(Action::Revoke(lease));
            self.phase = Phase::Out { at: now };
        }
    }

    fn hear(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        let later = now + self.terms.retry_after;
        match (self.phase, event) {
            (_, Event::Leave) => self.leave(actions),
            (Phase::Granting { asked }, Event::Granted(n, lease)) if n == asked.number => {
                self.granted(now, asked, lease, actions);
            }
            (_, Event::Granted(_, lease)) => actions.push(Action::Revoke(lease)),
            (
                Phase::Joining {
                    asked,
                    lease,
                    granted,
                },
                Event::Joined(n, token),
            ) if n == asked.number => {
                let standpoint = Standpoint {
                    token,
                    lease,
                    until: self.until(granted),
                };
                let renewal = Renewal::At(granted + self.terms.renew_every);
                self.phase = Phase::Member {
                    standpoint,
                    renewal,
                };
            }
            (Phase::Joining { asked, lease, .. }, Event::Taken(n)) if n == asked.number => {
                actions.push(Action::Revoke(lease));
                self.phase = Phase::Waiting { at: later };
            }
            (Phase::Granting { asked }, Event::Failed(n)) if n == asked.number => {
                self.phase = Phase::Out { at: later };
            }
            // The record may be there: it goes with its lease.
            (Phase::Joining { asked, lease, .. }, Event::Failed(n) | Event::Gone(n))
                if n == asked.number =>
            {
                actions.push(Action::Revoke(lease));
                self.phase = Phase::Out { at: later };
            }
            (Phase::Waiting { .. }, Event::Freed) => self.phase = Phase::Out { at: now },
            (
                Phase::Member {
                    standpoint,
                    renewal,
                },
                event,
            ) => {
                self.renewed(now, standpoint, renewal, event);
            }
            // An answer that nobody waits for any more.
            _ => (),
        }
    }

    fn granted(&mut self, now: Moment, grant: Asked, lease: LeaseId, actions: &mut Vec<Action>) {
        if self.until(grant.sent) <= now {
            actions.push(Action::Revoke(lease));
            self.phase = Phase::Out { at: now };
            return;
        }
        let asked = self.ask(now);
        actions.push(Action::Join(asked.number, lease));
        self.phase = Phase::Joining {
            asked,
            lease,
            granted: grant.sent,
        };
    }

    fn renewed(&mut self, now: Moment, mut standpoint: Standpoint, of: Renewal, event: Event) {
        let Renewal::Asked(asked) = of else {
            return;
        };
        let at = match event {
            Event::Kept(n) if n == asked.number => {
                standpoint.until = standpoint.until.max(self.until(asked.sent));
                asked.sent + self.terms.renew_every
            }
            Event::Failed(n) if n == asked.number => now + self.terms.retry_after,
            Event::Gone(n) if n == asked.number => {
                self.phase = Phase::Out { at: now };
                return;
            }
            _ => return,
        };
        let renewal = Renewal::At(at);
        self.phase = Phase::Member {
            standpoint,
            renewal,
        };
    }

    fn leave(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Member { standpoint, .. } => actions.push(Action::Revoke(standpoint.lease)),
            Phase::Joining { lease, .. } => actions.push(Action::Revoke(lease)),
            _ => (),
        }
        self.phase = Phase::Left;
    }

    /// Asks for what it is time for.
    fn go_on(&mut self, now: Moment, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Out { at } | Phase::Waiting { at } if at <= now => {
                let asked = self.ask(now);
                actions.push(Action::Grant(asked.number));
                self.phase = Phase::Granting { asked };
            }
            Phase::Member {
                standpoint,
                renewal: Renewal::At(at),
            } if at <= now => {
                let asked = self.ask(now);
                actions.push(Action::Keep(asked.number, standpoint.lease));
                let renewal = Renewal::Asked(asked);
                self.phase = Phase::Member {
                    standpoint,
                    renewal,
                };
            }
            _ => (),
        }
    }

    fn ask(&mut self, now: Moment) -> Asked {
        self.number += 1;
        Asked {
            number: self.number,
            sent: now,
        }
    }

    /// The store had the request no sooner than it was sent, and so the lease ends no sooner than
    /// its time after that.
    fn until(&self, sent: Moment) -> Moment {
        sent + self.terms.ttl.saturating_sub(self.terms.margin)
    }
}
