//! The life of a sandbox, as a state machine that back-ends embed.

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Equal to its image: may be called.
    Fresh,
    /// In a call.
    Running,
    /// Called: holds what its invocation left.
    Spent,
    /// The same, and meant for the next call of its app.
    Kept,
    /// Never to be called again.
    Retired,
}

/// A step that the state does not allow.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a sandbox that is {from:?} cannot become {to:?}")]
pub struct StateError {
    /// Where it was.
    pub from: State,
    /// Where it was asked to go.
    pub to: State,
}

impl State {
    /// Moves to `to` if that step exists.
    pub fn step(&mut self, to: State) -> Result<(), StateError> {
        let allowed = matches!(
            (*self, to),
            (State::Fresh | State::Kept, State::Running)
                | (State::Running, State::Spent)
                | (State::Spent, State::Kept)
                | (State::Spent | State::Kept, State::Fresh)
                | (
                    State::Fresh | State::Running | State::Spent | State::Kept,
                    State::Retired
                )
        );
        if !allowed {
            return Err(StateError { from: *self, to });
        }
        *self = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [State; 5] = [
        State::Fresh,
        State::Running,
        State::Spent,
        State::Kept,
        State::Retired,
    ];

    #[test]
    fn only_the_steps_of_the_diagram_exist() {
        let mut steps = Vec::new();
        for from in ALL {
            for to in ALL {
                let mut state = from;
                if state.step(to).is_ok() {
                    steps.push((from, to));
                }
            }
        }
        use State::{Fresh, Kept, Retired, Running, Spent};
        let expected = [
            (Fresh, Running),
            (Fresh, Retired),
            (Running, Spent),
            (Running, Retired),
            (Spent, Fresh),
            (Spent, Kept),
            (Spent, Retired),
            (Kept, Fresh),
            (Kept, Running),
            (Kept, Retired),
        ];
        assert_eq!(steps, expected);
    }
}
