//! Where a fetch begins to read the index of pending jobs.
//!
//! A job that was taken leaves an entry in the index, which Postgres can't remove while a snapshot
//! is open (a backup). A fetch that begins at the first entry would read the entries of all jobs
//! that were taken since. So it begins where the last fetch ended, if there were more ready jobs than
//! it could take, otherwise [`SLACK`] ago. Older jobs (their transaction took longer to commit, or
//! another session had them locked) are found by polling (`poll.rs`), which reads the whole index
//! each second, or less often if that takes long.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use chrono::{DateTime, Utc};

use crate::{job::JobId, mutex::lock};

/// A fetch begins this long before now, because transactions that began earlier may commit later.
pub(crate) const SLACK: Duration = Duration::from_secs(10);

/// Where to begin in the index of a queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// The `run_at` to begin with; `None` means [`SLACK`] ago.
    pub(crate) run_at: Option<DateTime<Utc>>,
    /// The job to begin with, the last one that was taken. `None` means the first of `run_at`, and
    /// that of [`SLACK`] ago if `run_at` is later.
    pub(crate) id: Option<JobId>,
}

/// The start of the next fetch by queue. The first fetch of a queue reads the whole index.
#[derive(Debug, Default)]
pub(crate) struct Starts(Mutex<HashMap<String, Start>>);

impl Starts {
    /// The starts of `queues`.
    pub(crate) fn of(&self, queues: &[String]) -> Vec<Start> {
        let starts = lock(&self.0);
        queues.iter().map(|queue| starts.get(queue).copied().unwrap_or(Start::FIRST)).collect()
    }

    /// More jobs may be ready than were taken: the next fetch continues behind `taken`, the jobs
    /// with their queue and `run_at`.
    pub(crate) fn continue_behind<'a>(&self, taken: impl Iterator<Item = (&'a str, DateTime<Utc>, JobId)>) {
        let mut last: HashMap<&str, (DateTime<Utc>, JobId)> = HashMap::new();
        for (queue, run_at, id) in taken {
            let last = last.entry(queue).or_insert((run_at, id));
            *last = (run_at, id).max(*last);
        }
        let mut starts = lock(&self.0);
        for (queue, (run_at, id)) in last {
            starts.insert(queue.to_owned(), Start { run_at: Some(run_at), id: Some(id) });
        }
    }

    /// All ready jobs of `queues` behind their starts were taken. Returns whether one of the starts
    /// was a job: then jobs may be ready that were committed late, and the next fetch finds them.
    pub(crate) fn all_taken(&self, queues: &[String]) -> bool {
        let mut starts = lock(&self.0);
        let befores = queues.iter().map(|queue| starts.insert(queue.clone(), Start::default()));
        befores.fold(false, |is_one, before| is_one | before.is_some_and(|before| before.id.is_some()))
    }

    /// A ready job of `queue` was found at `run_at`: the next fetch begins there, or earlier.
    pub(crate) fn found(&self, queue: &str, run_at: DateTime<Utc>) {
        let mut starts = lock(&self.0);
        let start = starts.entry(queue.to_owned()).or_insert(Start::FIRST);
        if start.run_at.is_none_or(|start| run_at < start) {
            *start = Start { run_at: Some(run_at), id: None };
        }
    }
}

impl Start {
    /// Before all jobs.
    const FIRST: Self = Self { run_at: Some(DateTime::UNIX_EPOCH), id: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_fetch_continues_where_the_last_one_ended() {
        let (starts, queues) = (Starts::default(), ["one".to_owned(), "two".to_owned()]);
        let start = |run_at, id| Start { run_at: Some(at(run_at)), id };
        assert_eq!(starts.of(&queues), [Start::FIRST; 2], "nothing is known");
        let ids: Vec<JobId> = (0..3).map(|_| JobId::now_v7()).collect();
        starts.continue_behind([("one", at(5), ids[1]), ("one", at(5), ids[2]), ("one", at(4), ids[0])].into_iter());
        assert_eq!(starts.of(&queues), [start(5, Some(ids[2])), Start::FIRST]);
        // Polling finds a job that was passed over, and one that was not.
        starts.found("one", at(6));
        assert_eq!(starts.of(&queues[..1]), [start(5, Some(ids[2]))]);
        starts.found("one", at(3));
        assert_eq!(starts.of(&queues[..1]), [start(3, None)]);

        starts.continue_behind([("one", at(7), ids[0])].into_iter());
        assert!(starts.all_taken(&queues), "jobs may have been passed over");
        assert_eq!(starts.of(&queues), [Start::default(); 2]);
        assert!(!starts.all_taken(&queues));
        starts.found("two", at(9));
        assert_eq!(starts.of(&queues), [Start::default(), start(9, None)]);
    }
}
