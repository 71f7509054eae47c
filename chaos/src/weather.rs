//! The periods of faults and the processes they affect. Promises for times without faults are
//! checked against these.

use std::{sync::Mutex, time::Instant};

use common::mutex::lock;

/// The processes that a fault affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The process of this number can't respond, because it is killed or frozen.
    Process(usize),
    /// Something that several processes need is impaired.
    Surroundings,
}

#[derive(Debug)]
struct Storm {
    scope: Scope,
    over: Option<Instant>,
}

/// All faults so far.
#[derive(Debug, Default)]
pub(crate) struct Weather(Mutex<Vec<Storm>>);

/// A fault that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a> {
    weather: &'a Weather,
    place: usize,
}

impl Weather {
    pub(crate) fn begin(&self, scope: Scope) -> UnderWay<'_> {
        let mut storms = lock(&self.0);
        storms.push(Storm { scope, over: None });
        UnderWay { weather: self, place: storms.len() - 1 }
    }

    /// Whether the process was unaffected from `since` until now.
    pub(crate) fn was_there(&self, process: usize, since: Instant) -> bool {
        self.none(since, |scope| scope == Scope::Process(process))
    }

    /// Whether there was no fault at all from `since` until now.
    pub(crate) fn was_fair(&self, since: Instant) -> bool {
        self.none(since, |_| true)
    }

    fn none(&self, since: Instant, concerns: impl Fn(Scope) -> bool) -> bool {
        let storms = lock(&self.0);
        let overlaps = |storm: &Storm| storm.over.is_none_or(|over| over >= since);
        !storms.iter().any(|storm| concerns(storm.scope) && overlaps(storm))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut storms = lock(&self.weather.0);
        storms[self.place].over = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_affects_its_scope_while_it_lasts() {
        let weather = Weather::default();
        let before = Instant::now();
        let killed = weather.begin(Scope::Process(1));
        assert!(weather.was_there(0, before) && !weather.was_there(1, before) && !weather.was_fair(before));
        drop(killed);
        assert!(!weather.was_there(1, before), "it was not there the whole time");
        std::thread::yield_now();
        let after = Instant::now();
        drop(weather.begin(Scope::Surroundings));
        assert!(weather.was_there(1, after) && !weather.was_fair(after));
    }
}
