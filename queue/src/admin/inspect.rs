//! Lists and counts of jobs and queues for operators.

use std::collections::BTreeMap;
use strum::{EnumString, IntoStaticStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;

use crate::{db::Connection, job::JobId};

/// Counting stops here, so that a count costs a bounded time.
pub const COUNT_LIMIT: i64 = 100_000;

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, EnumString, IntoStaticStr, ToSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum JobState {
    /// Due later, not attempted yet.
    Scheduled,
    /// Due now; runs as soon as a worker is free.
    Ready,
    /// A worker runs it.
    Running,
    /// Failed; runs again later.
    Retrying,
    /// Succeeded.
    Done,
    /// Failed permanently, ran out of attempts, or was cancelled.
    Dead,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] = [Self::Scheduled, Self::Ready, Self::Running, Self::Retrying, Self::Done, Self::Dead];

    /// The name of the state, as in JSON.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the job waits or runs.
    pub fn is_unfinished(self) -> bool {
        !matches!(self, Self::Done | Self::Dead)
    }
}

/// A job and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSummary {
    /// Id of the job.
    pub id: JobId,
    /// Name of the queue.
    pub queue: String,
    /// Kind of job; selects the handler.
    pub kind: String,
    /// Id of what the job is about; `None` if it is about nothing in particular.
    pub subject: Option<String>,
    /// The payload, as JSON.
    pub payload: String,
    /// State of the job.
    pub state: JobState,
    /// Number of attempts so far. Attempts that a shutdown or the loss of a worker interrupted do not
    /// count.
    pub attempts: i16,
    /// Maximum number of attempts.
    pub max_attempts: i16,
    /// Time at which the job is, or was, due.
    pub run_at: DateTime<Utc>,
    /// Time of the schedule's occurrence; `None` for jobs without a schedule.
    pub slot: Option<DateTime<Utc>>,
    /// Most recent error; `None` if there was none.
    pub last_error: Option<String>,
    /// Time at which the job was queued.
    pub created_at: DateTime<Utc>,
    /// Time at which the job became done or dead; `None` until then.
    pub finished_at: Option<DateTime<Utc>>,
}

impl JobSummary {
    /// Whether the job waits or runs.
    pub fn is_unfinished(&self) -> bool {
        self.state.is_unfinished()
    }
}

struct Row {
    id: JobId,
    queue: String,
    kind: String,
    state: String,
    attempts: i16,
    max_attempts: i16,
    run_at: DateTime<Utc>,
    slot: Option<DateTime<Utc>>,
    last_error: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    subject: Option<String>,
    payload: String,
}

impl TryFrom<Row> for JobSummary {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            queue: row.queue,
            kind: row.kind,
            state: parse_state(&row.state)?,
            attempts: row.attempts,
            max_attempts: row.max_attempts,
            run_at: row.run_at,
            slot: row.slot,
            last_error: row.last_error,
            created_at: row.created_at,
            finished_at: row.finished_at,
            subject: row.subject,
            payload: row.payload,
        })
    }
}

fn parse_state(text: &str) -> sqlx::Result<JobState> {
    text.parse().map_err(|_| sqlx::Error::Decode(format!("unknown state of a job: {text}").into()))
}

/// Finds a job; `None` if it does not exist, or was deleted after its retention.
pub async fn find(conn: &mut Connection, id: JobId) -> sqlx::Result<Option<JobSummary>> {
    sqlx::query_as!(
        Row,
        r#"
        select id, queue, kind, attempts, max_attempts, run_at, slot, last_error, created_at, finished_at,
               subject, payload::text as "payload!",
               case when state <> 'pending' then state when run_at <= now() then 'ready'
                    when attempts > 0 then 'retrying' else 'scheduled' end as "state!"
        from jobs where id = $1
        "#,
        id,
    )
    .fetch_optional(conn)
    .await?
    .map(JobSummary::try_from)
    .transpose()
}

/// A failed or interrupted attempt of a job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JobAttempt)]
pub struct FailedAttempt {
    /// Number of the attempt, from 1. The attempt after an interrupted one has the same number.
    pub attempt: i64,
    /// Time at which a worker started the attempt.
    #[schema(required)]
    pub started_at: Option<DateTime<Utc>>,
    /// Time at which the attempt ended.
    pub ended_at: DateTime<Utc>,
    /// Name of the worker.
    #[schema(required)]
    pub worker: Option<String>,
    /// Error message; begins with `interrupted` if the attempt does not count.
    #[schema(required)]
    pub error: Option<String>,
}

/// The failed and interrupted attempts of a job, oldest first; `None` if the job does not exist.
pub async fn history(conn: &mut Connection, id: JobId) -> sqlx::Result<Option<Vec<FailedAttempt>>> {
    let log = sqlx::query_scalar!(
        r#"select attempt_log as "attempt_log: Json<Vec<FailedAttempt>>" from jobs where id = $1"#,
        id
    );
    Ok(log.fetch_optional(conn).await?.map(|log| log.0))
}

/// Selects jobs.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Name of the queue; `None` means all.
    pub queue: Option<String>,
    /// State of the job; `None` means all.
    pub state: Option<JobState>,
    /// Kind of job; `None` means all.
    pub kind: Option<String>,
    /// Substring of the last error, ignoring case; `None` means all.
    pub error: Option<String>,
    /// Id of what the job is about; `None` means all.
    pub subject: Option<String>,
}

/// A page of jobs, newest first.
pub async fn list(conn: &mut Connection, filter: &JobFilter, offset: i64, limit: i64) -> sqlx::Result<Vec<JobSummary>> {
    // Needs a custom plan (not a generic one), so that a state uses its partial index.
    sqlx::query_as!(
        Row,
        r#"
        select id, queue, kind, attempts, max_attempts, run_at, slot, last_error, created_at, finished_at,
               subject, payload::text as "payload!",
               case when state <> 'pending' then state when run_at <= now() then 'ready'
                    when attempts > 0 then 'retrying' else 'scheduled' end as "state!"
        from jobs
        where ($1::text is null or queue = $1)
          and ($2::text is null or state = $2)
          and ($3::text is null or $3 = case when run_at <= now() then 'ready' when attempts > 0 then 'retrying' else 'scheduled' end)
          and ($6::text is null or kind = $6) and ($7::text is null or strpos(lower(last_error), lower($7)) > 0)
          and ($8::text is null or subject = $8)
        order by id desc
        offset $4 limit $5
        "#,
        filter.queue,
        filter.state.map(stored_state),
        filter.state.and_then(phase),
        offset,
        limit,
        filter.kind,
        filter.error,
        filter.subject,
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(JobSummary::try_from)
    .collect()
}

/// The number of matching jobs, at most [`COUNT_LIMIT`].
pub async fn count(conn: &mut Connection, filter: &JobFilter) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from (
            select from jobs
            where ($1::text is null or queue = $1)
              and ($2::text is null or state = $2)
              and ($3::text is null or $3 = case when run_at <= now() then 'ready' when attempts > 0 then 'retrying' else 'scheduled' end)
              and ($5::text is null or kind = $5) and ($6::text is null or strpos(lower(last_error), lower($6)) > 0)
              and ($7::text is null or subject = $7)
            limit $4
        ) counted
        "#,
        filter.queue,
        filter.state.map(stored_state),
        filter.state.and_then(phase),
        COUNT_LIMIT,
        filter.kind,
        filter.error,
        filter.subject,
    )
    .fetch_one(conn)
    .await
}

/// The number of matching jobs in each state, at most [`COUNT_LIMIT`] in each of the stored states.
/// The state of the filter does not count.
pub async fn count_by_state(conn: &mut Connection, filter: &JobFilter) -> sqlx::Result<BTreeMap<JobState, i64>> {
    let mut counts: BTreeMap<JobState, i64> = JobState::ALL.map(|state| (state, 0)).into();
    for ((_, state), count) in count_by_queue_and_state(conn, filter).await? {
        *counts.entry(state).or_default() += count;
    }
    Ok(counts)
}

/// The value of the column `jobs.state` for `state`.
fn stored_state(state: JobState) -> &'static str {
    match state {
        JobState::Scheduled | JobState::Ready | JobState::Retrying => "pending",
        JobState::Running | JobState::Done | JobState::Dead => state.as_str(),
    }
}

/// The phase of a pending job, which the queries compute from `run_at` and `attempts`; `None` for
/// other states.
fn phase(state: JobState) -> Option<&'static str> {
    (stored_state(state) == "pending").then_some(state.as_str())
}

/// A queue and its job counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Queue)]
pub struct QueueSummary {
    /// Name of the queue.
    #[schema(example = "payment-links")]
    pub name: String,
    /// Whether the queue is paused.
    #[schema(example = false)]
    pub paused: bool,
    /// Time at which the queue was paused; null if it is not.
    #[schema(required)]
    pub paused_at: Option<DateTime<Utc>>,
    /// Number of jobs by state. Counting stops at 100,000 jobs of all queues together.
    #[schema(value_type = BTreeMap<String, i64>, example = json!({"dead": 0, "done": 12, "ready": 1, "retrying": 0, "running": 2, "scheduled": 0}))]
    pub counts: BTreeMap<&'static str, i64>,
    /// Seconds that the oldest ready job has waited; null if none is ready.
    #[schema(required)]
    pub oldest_ready_age_seconds: Option<i64>,
}

/// The named queues, in the order of `names`.
pub async fn queues(conn: &mut Connection, names: &[&str]) -> sqlx::Result<Vec<QueueSummary>> {
    let counted = count_by_queue_and_state(conn, &JobFilter::default()).await?;
    let rows = sqlx::query!(
        r#"
        select named.name as "name!", queues.paused_at as "paused_at?",
               (select extract(epoch from now() - min(run_at))::bigint from jobs
                where jobs.queue = named.name and state = 'pending' and run_at <= now()) as oldest_ready
        from unnest($1::text[]) with ordinality as named (name, place)
        left join queues on queues.name = named.name
        order by named.place
        "#,
        names as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let count = |state: JobState| counted.get(&(row.name.clone(), state)).copied().unwrap_or(0);
            QueueSummary {
                paused: row.paused_at.is_some(),
                paused_at: row.paused_at,
                counts: JobState::ALL.map(|state| (state.as_str(), count(state))).into(),
                oldest_ready_age_seconds: row.oldest_ready,
                name: row.name,
            }
        })
        .collect())
}

/// Counts the matching jobs of each state through its partial index, at most [`COUNT_LIMIT`] per
/// stored state. The state of the filter does not count.
async fn count_by_queue_and_state(
    conn: &mut Connection,
    filter: &JobFilter,
) -> sqlx::Result<BTreeMap<(String, JobState), i64>> {
    let rows = sqlx::query!(
        r#"
        select queue as "queue!", phase as "phase!", count(*) as "count!"
        from (
            (select queue, case when run_at <= now() then 'ready' when attempts > 0 then 'retrying' else 'scheduled' end as phase
             from jobs
             where state = 'pending' and ($2::text is null or queue = $2) and ($3::text is null or kind = $3)
               and ($4::text is null or strpos(lower(last_error), lower($4)) > 0) and ($5::text is null or subject = $5)
             limit $1)
            union all
            (select queue, 'running' from jobs
             where state = 'running' and ($2::text is null or queue = $2) and ($3::text is null or kind = $3)
               and ($4::text is null or strpos(lower(last_error), lower($4)) > 0) and ($5::text is null or subject = $5)
             limit $1)
            union all
            (select queue, 'done' from jobs
             where state = 'done' and ($2::text is null or queue = $2) and ($3::text is null or kind = $3)
               and ($4::text is null or strpos(lower(last_error), lower($4)) > 0) and ($5::text is null or subject = $5)
             limit $1)
            union all
            (select queue, 'dead' from jobs
             where state = 'dead' and ($2::text is null or queue = $2) and ($3::text is null or kind = $3)
               and ($4::text is null or strpos(lower(last_error), lower($4)) > 0) and ($5::text is null or subject = $5)
             limit $1)
        ) counted
        group by queue, phase
        "#,
        COUNT_LIMIT,
        filter.queue,
        filter.kind,
        filter.error,
        filter.subject,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(|row| Ok(((row.queue, parse_state(&row.phase)?), row.count))).collect()
}
