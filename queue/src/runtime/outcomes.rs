//! The statements that write outcomes of jobs.

use std::{collections::HashSet, time::Duration};

use uuid::Uuid;

use crate::{
    db::{Connection, Database},
    job::JobId,
    outcome::{ERROR_CHARACTERS, Ended, Outcome},
    sql::has_sql_state,
};

/// The error of an attempt that its worker's shutdown ended.
const WORKER_STOPPED: &str = "interrupted: the worker stopped before it ended";

/// Writes all outcomes. Fails after 200 ms if another session has one of the jobs locked; see
/// [`is_locked`].
pub(crate) async fn write(database: &Database, batch: &[Ended]) -> sqlx::Result<()> {
    let mut conn = database.acquire().await?;
    write_all(&mut conn, batch.iter()).await?;
    conn.commit().await
}

/// Writes the outcomes of jobs that no other session has locked. Returns the ids and lease tokens
/// of the locked ones.
pub(crate) async fn write_unlocked(database: &Database, batch: &[Ended]) -> sqlx::Result<HashSet<(JobId, Uuid)>> {
    let mut tx = database.begin().await?;
    let (ids, tokens) = keys(batch.iter());
    let locked = sqlx::query!(
        r#"
        with ours as materialized (
            select jobs.id, jobs.lease_token from unnest($1::uuid[], $2::uuid[]) as ended (id, token)
            join jobs on jobs.id = ended.id and jobs.lease_token = ended.token
        ), free as (
            select id from jobs where id = any (array(select id from ours)) order by id for no key update skip locked
        )
        select id as "id!", lease_token as "token!" from ours where id not in (select id from free)
        "#,
        &ids,
        &tokens,
    )
    .fetch_all(&mut tx)
    .await?;
    let locked: HashSet<(JobId, Uuid)> = locked.into_iter().map(|job| (job.id, job.token)).collect();
    write_all(&mut tx, batch.iter().filter(|ended| !locked.contains(&(ended.id, ended.token)))).await?;
    tx.commit().await?;
    Ok(locked)
}

/// Whether the statement failed because another session has a job locked.
pub(crate) fn is_locked(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["55P03", "40P01"])
}

fn keys<'a>(batch: impl Iterator<Item = &'a Ended>) -> (Vec<JobId>, Vec<Uuid>) {
    batch.map(|ended| (ended.id, ended.token)).unzip()
}

async fn write_all<'a>(conn: &mut Connection, batch: impl Iterator<Item = &'a Ended>) -> sqlx::Result<()> {
    let (done, other): (Vec<&Ended>, Vec<&Ended>) = batch.partition(|ended| matches!(ended.outcome, Outcome::Done));
    if !done.is_empty() {
        write_done(conn, &done).await?;
    }
    if !other.is_empty() {
        write_other(conn, &other).await?;
    }
    Ok(())
}

/// Finds jobs by primary key and checks the lease token. (With a condition on `state`, Postgres
/// scanned the index of running jobs for every batch.)
async fn write_done(conn: &mut Connection, batch: &[&Ended]) -> sqlx::Result<()> {
    let (ids, tokens) = keys(batch.iter().copied());
    sqlx::query!(
        r#"
        with briefly as materialized (select set_config('lock_timeout', '200ms', true))
        update jobs
        set state = 'done', finished_at = now(), lease_token = null, lease_until = null
        from unnest($1::uuid[], $2::uuid[]) as ended (id, token)
        where jobs.id = ended.id and jobs.lease_token = ended.token and (select true from briefly)
        "#,
        &ids,
        &tokens,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_other(conn: &mut Connection, batch: &[&Ended]) -> sqlx::Result<()> {
    let mut columns = Columns::default();
    for ended in batch {
        columns.push(ended);
    }
    sqlx::query!(
        r#"
        with briefly as materialized (select set_config('lock_timeout', '200ms', true))
        update jobs
        set state = case when ended.dead or (ended.error is not null and ended.refund = 0 and jobs.attempts >= jobs.max_attempts)
                         then 'dead' else 'pending' end,
            finished_at = case when ended.dead or (ended.error is not null and ended.refund = 0 and jobs.attempts >= jobs.max_attempts)
                         then now() end,
            attempts = jobs.attempts - ended.refund,
            run_at = now() + ended.delay_ms * interval '1 millisecond',
            lease_token = null, lease_until = null,
            last_error = coalesce(ended.error, ended.note, jobs.last_error),
            attempt_log = case when ended.error is null then jobs.attempt_log
                else jobs.attempt_log || jsonb_build_object(
                    'attempt', jobs.attempts, 'startedAt', jobs.started_at, 'endedAt', now(),
                    'worker', jobs.worker, 'error', ended.error) end
        from unnest($1::uuid[], $2::uuid[], $3::bool[], $4::smallint[], $5::bigint[], $6::text[], $7::text[])
            as ended (id, token, dead, refund, delay_ms, error, note)
        where jobs.id = ended.id and jobs.lease_token = ended.token and (select true from briefly)
        "#,
        &columns.ids,
        &columns.tokens,
        &columns.dead,
        &columns.refunds,
        &columns.delays,
        &columns.errors as &[Option<String>],
        &columns.notes as &[Option<String>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    tokens: Vec<Uuid>,
    dead: Vec<bool>,
    refunds: Vec<i16>,
    delays: Vec<i64>,
    errors: Vec<Option<String>>,
    /// The reason of a snooze: stored as the last error, but not as a failed attempt.
    notes: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, ended: &Ended) {
        let (dead, refund, delay, error) = match &ended.outcome {
            Outcome::Retry { error, delay } => (false, 0, *delay, Some(error.as_str())),
            Outcome::Dead { error } => (true, 0, Duration::ZERO, Some(error.as_str())),
            Outcome::Interrupted => (false, 1, Duration::ZERO, Some(WORKER_STOPPED)),
            Outcome::NotBegun => (false, 1, Duration::ZERO, None),
            Outcome::Snoozed { delay, .. } => (false, 1, *delay, None),
            Outcome::Done => return,
        };
        self.ids.push(ended.id);
        self.tokens.push(ended.token);
        self.dead.push(dead);
        self.refunds.push(refund);
        self.delays.push(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        // Postgres rejects NUL in text.
        let text = |text: &str| text.replace('\0', "").chars().take(ERROR_CHARACTERS).collect();
        self.errors.push(error.map(text));
        self.notes.push(match &ended.outcome {
            Outcome::Snoozed { why, .. } => Some(text(why)),
            _ => None,
        });
    }
}
