//! The possible states of a cart, derived from acknowledged and unacknowledged changes.

use std::fmt;

/// A state of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Abandoned,
    Recovered,
    Expired,
    /// Deleted.
    Gone,
}

const ALL: [State; 4] = [State::Abandoned, State::Recovered, State::Expired, State::Gone];

impl State {
    /// Parses the API's value; `None` if it is unknown.
    pub(crate) fn parse(status: &str) -> Option<Self> {
        match status {
            "abandoned" => Some(Self::Abandoned),
            "recovered" => Some(Self::Recovered),
            "expired" => Some(Self::Expired),
            _ => None,
        }
    }

    fn may_become(self, other: Self) -> bool {
        match (self, other) {
            (Self::Gone, _) | (Self::Abandoned, Self::Abandoned) => false,
            (_, Self::Gone) => true,
            (Self::Recovered, _) => false, // final
            (Self::Abandoned | Self::Expired, _) => true,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of states.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct States(u8);

impl States {
    pub(crate) fn of(state: State) -> Self {
        Self(state.bit())
    }

    pub(crate) fn has(self, state: State) -> bool {
        self.0 & state.bit() != 0
    }

    fn with(self, state: State) -> Self {
        Self(self.0 | state.bit())
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(ALL.into_iter().filter(|state| self.has(*state))).finish()
    }
}

/// The knowledge about a cart's state.
///
/// An acknowledged change has happened. A change without a response may have happened or may happen
/// later: a frozen process continues with it when it thaws.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The states at the last response.
    said: States,
    /// The states that unacknowledged changes may lead to.
    may_come: States,
}

impl Known {
    pub(crate) fn new(state: State) -> Self {
        Self { said: States::of(state), may_come: States::default() }
    }

    /// Records the state in a response, which was current at some moment after the request was
    /// sent.
    pub(crate) fn said(&mut self, state: State) {
        self.said = States::of(state);
    }

    /// Records that a change to `state` may happen from now on.
    pub(crate) fn may_come(&mut self, state: State) {
        self.may_come = self.may_come.with(state);
    }

    /// Whether a change to `state` may be acknowledged.
    pub(crate) fn can_become(&self, state: State) -> bool {
        let possible = self.possible();
        ALL.into_iter().any(|from| {
            let stays = from == state && state != State::Gone; // nothing changes
            possible.has(from) && (stays || from.may_become(state))
        })
    }

    /// The possible states now.
    pub(crate) fn possible(&self) -> States {
        let mut possible = self.said;
        loop {
            let mut more = possible;
            for from in ALL.into_iter().filter(|from| possible.has(*from)) {
                for to in ALL.into_iter().filter(|to| self.may_come.has(*to) && from.may_become(*to)) {
                    more = more.with(to);
                }
            }
            if more == possible {
                return possible;
            }
            possible = more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_change_leaves_one_state() {
        let mut known = Known::new(State::Abandoned);
        assert_eq!(known.possible(), States::of(State::Abandoned));
        assert!(known.can_become(State::Gone) && known.can_become(State::Abandoned));
        known.said(State::Recovered);
        known.may_come(State::Expired);
        assert!(known.can_become(State::Recovered) && !known.can_become(State::Expired));
        assert_eq!(known.possible(), States::of(State::Recovered), "which is final");
    }

    #[test]
    fn an_unacknowledged_change_leaves_several_states() {
        let mut known = Known::new(State::Abandoned);
        known.may_come(State::Expired);
        known.may_come(State::Abandoned);
        let possible = known.possible();
        assert!(possible.has(State::Abandoned) && possible.has(State::Expired) && !possible.has(State::Gone));
        known.may_come(State::Gone);
        known.said(State::Gone);
        assert_eq!(known.possible(), States::of(State::Gone));
        assert!(!known.can_become(State::Gone), "nobody deletes it twice");
    }
}
