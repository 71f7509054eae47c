//! The time from the last fault until nothing is in progress any more.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::PgConnection;

use sandbox::stripe::SessionStatus;

use crate::stage::Scene;

/// The duration of the load after the last fault; errors in the first ten seconds are tolerated.
pub(crate) const FAIR_WEATHER: Duration = Duration::from_secs(16);
/// A job of a process that died returns after its lease. A session that may have been created is
/// searched for again after two minutes, and up to four minutes later if the clock that the attempt
/// was written by was wrong by as much.
const TIMEOUT: Duration = Duration::from_secs(420);

/// Repairs every process, connection and clock.
pub(crate) async fn mend(scene: &Scene) -> Result<()> {
    scene.server.revive().await?;
    for member in &scene.members {
        member.proxy.stall(false);
        if scene.clocks_move {
            member.set_clock(0)?;
        }
        member.becomes_ready(&scene.http, Duration::from_secs(60)).await?;
    }
    Ok(())
}

/// Waits until all Stripe events are delivered, payments without events are found, and all jobs have
/// ended.
pub(crate) async fn settle(scene: &Scene) -> Result<()> {
    let begun = Instant::now();
    let mut session = scene.server.session().await?;
    let mut are_reconciled = false;
    loop {
        // Retries may wait for minutes by now; run them at once.
        sqlx::query(
            "update jobs set run_at = now() where state = 'pending' and queue = 'payment-links' and run_at > now()",
        )
        .execute(&mut session)
        .await?;
        let (waiting, open) = (scene.stripe.mail().waiting, open_jobs(&mut session).await?);
        // A job matches them within a minute.
        let unmatched: i64 = sqlx::query_scalar(
            "select count(*) from payment_reversals reversal join payment_links using (payment_intent) where reversal.cart_id is null",
        )
        .fetch_one(&mut session)
        .await?;
        if waiting == 0 && open.is_empty() && unmatched == 0 {
            if are_reconciled {
                break;
            }
            reconcile(scene, &mut session).await?;
            are_reconciled = true;
        }
        if begun.elapsed() > TIMEOUT {
            bail!(
                "after {TIMEOUT:?} {waiting} events were not taken, {unmatched} refunds are unmatched, and these jobs have not ended: {open:?}"
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    next_expiry(&mut session).await
}

/// Lets the sessions end that shoppers completed, instead of waiting for up to a day, and waits until
/// reconciliation has requested them: some of their events are lost for good.
async fn reconcile(scene: &Scene, session: &mut PgConnection) -> Result<()> {
    let begun = Instant::now();
    let completed = scene.stripe.sessions().into_iter().filter(|session| session.status == SessionStatus::Complete);
    let completed: Vec<String> = completed.map(|session| session.id).collect();
    sqlx::query(
        "update payment_links set session_expires_at = now() - interval '1 minute', updated_at = now() - interval '2 days', asked_at = null
         where session_id = any ($1) and status in ('open', 'closing', 'processing')",
    )
    .bind(&completed)
    .execute(&mut *session)
    .await?;
    loop {
        let left: i64 = sqlx::query_scalar(
            "select count(*) from payment_links
             where session_id = any ($1) and (status in ('open', 'closing') or (status = 'processing' and asked_at is null))",
        )
        .bind(&completed)
        .fetch_one(&mut *session)
        .await?;
        if left == 0 {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            bail!("after {TIMEOUT:?} reconciliation has not requested {left} sessions that shoppers completed");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn open_jobs(session: &mut PgConnection) -> Result<Vec<String>> {
    let jobs = sqlx::query_scalar(
        "select format('%s %s attempt %s: %s', state, payload, attempts, last_error) from jobs
         where queue = 'payment-links' and state in ('pending', 'running') limit 5",
    );
    Ok(jobs.fetch_all(session).await?)
}

/// Waits until an expiry run that begins from now on has ended, so that all carts due by now have
/// expired.
async fn next_expiry(session: &mut PgConnection) -> Result<()> {
    let begun = Instant::now();
    let now: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("select now()").fetch_one(&mut *session).await?;
    loop {
        let done: bool = sqlx::query_scalar(
            "select exists (select from schedule_slots join jobs on jobs.id = schedule_slots.job_id
                            where schedule = 'expire_carts' and schedule_slots.slot > $1 and state = 'done')",
        )
        .bind(now)
        .fetch_one(&mut *session)
        .await
        .context("slots")?;
        if done {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(60) {
            bail!("no expiry has run for a minute");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
