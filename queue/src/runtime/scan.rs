//! Where a fetch begins to read the index of pending jobs.
//!
//! A job that was taken leaves an entry in the index, which Postgres can't remove while a snapshot
//! is open (a backup). A fetch that begins at the first entry would read the entries of all jobs
//! that were taken since. So it begins where the last fetch ended, if there were more ready jobs than
//! it could take, otherwise shortly before the last job that was taken, and at most [`SLACK`] ago.
//! Older jobs (their transaction took longer to commit, or another session had them locked) are found
//! by polling (`poll.rs`), each second those of [`SLACK`], and all in the whole index, less often if
//! that takes long.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{job::JobId, mutex::lock};

/// A fetch begins at most this long before now.
pub(crate) const SLACK: Duration = Duration::from_secs(2);
/// A fetch begins this long before the last job that was taken, because transactions that began
/// earlier may commit later.
const OVERLAP: TimeDelta = TimeDelta::milliseconds(200);

/// Where to begin in the index of a queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// The `run_at` to begin with, or [`SLACK`] ago if that is earlier. `None` means `recent`.
    pub(crate) run_at: Option<DateTime<Utc>>,
    /// The job to begin with, the last one that was taken. `None` means the first one.
    pub(crate) id: Option<JobId>,
    /// [`OVERLAP`] before the last job that was taken. If this is earlier than [`SLACK`] ago, or
    /// `None`, begin there.
    pub(crate) recent: Option<DateTime<Utc>>,
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

    /// These jobs were taken, each with its queue and `run_at`. If more may be ready, the next fetch
    /// continues behind them.
    pub(crate) fn took<'a>(&self, jobs: impl Iterator<Item = (&'a str, DateTime<Utc>, JobId)>, more: bool) {
        let mut last: HashMap<&str, (DateTime<Utc>, JobId)> = HashMap::new();
        for (queue, run_at, id) in jobs {
            let last = last.entry(queue).or_insert((run_at, id));
            *last = (run_at, id).max(*last);
        }
        let mut starts = lock(&self.0);
        for (queue, (run_at, id)) in last {
            let start = starts.entry(queue.to_owned()).or_insert(Start::FIRST);
            start.recent = start.recent.max(Some(run_at - OVERLAP));
            if more {
                (start.run_at, start.id) = (Some(run_at), Some(id));
            }
        }
    }

    /// All ready jobs of `queues` behind their starts were taken. Returns whether one of the starts
    /// was a job: then jobs may be ready that were committed late, and the next fetch finds those of
    /// [`OVERLAP`].
    pub(crate) fn all_taken(&self, queues: &[String]) -> bool {
        let mut starts = lock(&self.0);
        let mut was_job = false;
        for queue in queues {
            let start = starts.entry(queue.clone()).or_default();
            was_job |= start.id.is_some();
            *start = Start { recent: start.recent, ..Start::default() };
        }
        was_job
    }

    /// A ready job of `queue` was found at `run_at`: the next fetch begins there, or earlier.
    pub(crate) fn found(&self, queue: &str, run_at: DateTime<Utc>) {
        let mut starts = lock(&self.0);
        let start = starts.entry(queue.to_owned()).or_insert(Start::FIRST);
        if start.run_at.is_none_or(|start| run_at < start) {
            (start.run_at, start.id) = (Some(run_at), None);
        }
    }
}

impl Start {
    /// Before all jobs.
    const FIRST: Self = Self { run_at: Some(DateTime::UNIX_EPOCH), id: None, recent: None };
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
        let ids: Vec<JobId> = (0..3).map(|_| JobId::now_v7()).collect();
        let shortly_before = |seconds| Some(at(seconds) - OVERLAP);
        assert_eq!(starts.of(&queues), [Start::FIRST; 2], "nothing is known");
        let jobs = [("one", at(5), ids[1]), ("one", at(5), ids[2]), ("one", at(4), ids[0])];
        starts.took(jobs.into_iter(), true);
        let behind = Start { run_at: Some(at(5)), id: Some(ids[2]), recent: shortly_before(5) };
        assert_eq!(starts.of(&queues), [behind, Start::FIRST]);
        // Polling finds a job that was passed over, and one that was not.
        starts.found("one", at(6));
        assert_eq!(starts.of(&queues[..1]), [behind]);
        starts.found("one", at(3));
        assert_eq!(starts.of(&queues[..1]), [Start { run_at: Some(at(3)), id: None, recent: shortly_before(5) }]);

        starts.took([("one", at(7), ids[0])].into_iter(), true);
        assert!(starts.all_taken(&queues), "jobs may have been passed over");
        let further_back = Start { recent: shortly_before(7), ..Start::default() };
        assert_eq!(starts.of(&queues), [further_back, Start::default()], "so the next fetch looks further back");
        starts.took([("one", at(7), ids[0]), ("one", at(8), ids[1])].into_iter(), false);
        assert!(!starts.all_taken(&queues));
        assert_eq!(starts.of(&queues), [Start { recent: shortly_before(8), ..Start::default() }, Start::default()]);
        starts.found("two", at(9));
        assert_eq!(starts.of(&queues[1..]), [Start { run_at: Some(at(9)), ..Start::default() }]);
    }
}
