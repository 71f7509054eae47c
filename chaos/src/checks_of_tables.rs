//! Checks the consistency of the tables.

use anyhow::{Context, Result};
use common::{analytics, db::Database};
use queue::Cron;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::{API_KEY, members::Kind, report::Report, stage::Scene};

pub(crate) async fn all(scene: &Scene, session: &mut PgConnection, report: &mut Report) -> Result<()> {
    final_states(session, report).await?;
    slots(session, report).await?;
    jobs(session, report).await?;
    expiry(session, report).await?;
    counts(scene, session, report).await
}

async fn texts(session: &mut PgConnection, sql: &'static str) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(sql).fetch_all(session).await?)
}

async fn count(session: &mut PgConnection, sql: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_one(session).await?)
}

/// Compares the rows with the run's audit, which triggers wrote.
async fn final_states(session: &mut PgConnection, report: &mut Report) -> Result<()> {
    let found = texts(
        session,
        "select format('%s %s: %s became %s', what, id, was, became) from chaos.changes
         where was = 'paid' or (what = 'cart' and was = 'recovered')
            or (was in ('closed', 'failed', 'payment_failed') and became <> 'paid')
            or (became = 'open' and was <> 'pending')
         union all
         select format('%s %s became %s %s times', what, id, became, count(*)) from chaos.changes
         where became in ('recovered', 'open', 'paid') group by what, id, became having count(*) > 1",
    )
    .await?;
    let changes = count(session, "select count(*) from chaos.changes").await?;
    report.check(
        "what is final stays final, and is reached once",
        format!("{changes} changes of carts and links"),
        &found,
    );
    Ok(())
}

async fn slots(session: &mut PgConnection, report: &mut Report) -> Result<()> {
    let mut found = texts(
        session,
        "select format('the slot %s of %s became no job', slot, schedule) from schedule_slots
         where job_id is null or not exists (select from jobs where jobs.id = job_id)
         union all
         select format('job %s of %s stands for the slot %s, which schedule_slots does not contain', id, kind, slot) from jobs
         where slot is not null and not exists (select from schedule_slots where job_id = jobs.id and schedule_slots.slot = jobs.slot)
         union all
         select format('the slot %s of roll_up_days shares its job', min(slot)) from schedule_slots
         where schedule = 'roll_up_days' group by job_id having count(*) > 1
         union all
         -- The product reports a schedule as overdue after two minutes.
         select format('%s of %s has not ended: %s', kind, slot, state) from jobs
         where slot < now() - interval '2 minutes' and state in ('pending', 'running')",
    )
    .await?;
    // This schedule catches up on every missed run.
    let (cron, slots): (String, Vec<chrono::DateTime<chrono::Utc>>) = sqlx::query_as(
        "select cron, array(select slot from schedule_slots where schedule = name order by slot) from schedules where name = 'roll_up_days'",
    )
    .fetch_one(&mut *session)
    .await?;
    let cron: Cron = cron.parse().context("the schedule of rollups")?;
    if let (Some(first), Some(last)) = (slots.first(), slots.last()) {
        let expected = 1 + cron.after(first).take_while(|slot| slot <= last).count();
        if expected != slots.len() {
            found.push(format!("roll_up_days has {} slots between {first} and {last}, not {expected}", slots.len()));
        }
    }
    let all = count(session, "select count(*) from schedule_slots").await?;
    report.check("every slot of a schedule runs, once", format!("{all} slots"), &found);
    Ok(())
}

async fn jobs(session: &mut PgConnection, report: &mut Report) -> Result<()> {
    let found = texts(
        session,
        "select format('job %s was done %s times', job_id, count(*)) from chaos.runs where ended_as = 'done' group by job_id having count(*) > 1
         union all
         -- Outcomes written under an outdated token.
         select format('run %s of job %s was acknowledged after run %s had begun', run.token, run.job_id, later.token)
         from chaos.runs run join chaos.runs later on later.job_id = run.job_id and later.taken_at > run.taken_at
         where run.ended_at > later.taken_at
         union all
         select format('%s %s is dead after %s attempts: %s', kind, payload, attempts, last_error) from jobs
         where state = 'dead' and last_error not like 'Stripe refused it:%'",
    )
    .await?;
    let (runs, again): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where ended_as = 'pending' or ended_as is null) from chaos.runs",
    )
    .fetch_one(&mut *session)
    .await?;
    let counted = format!("{runs} runs, {again} of them interrupted or tried again");
    report.check("every job is done once, and none by who lost it", counted, &found);
    Ok(())
}

async fn expiry(session: &mut PgConnection, report: &mut Report) -> Result<()> {
    let found = texts(
        session,
        "select format('%s was left at %s and is still abandoned', id, abandoned_at) from carts
         where status = 'abandoned' and abandoned_at < now() - interval '1 day 1 hour'
           and not exists (select from recovery_links where cart_id = carts.id and expires_at > now())
           and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
           -- Carts reopened since the last run wait for the next one.
           and updated_at < now() - interval '1 minute'
         union all
         select format('%s was left at %s and expired of age', id, abandoned_at) from carts
         where status_reason = 'age' and abandoned_at > expired_at - interval '23 hours'",
    )
    .await?;
    let expired = count(session, "select count(*) from carts where status_reason = 'age'").await?;
    report.check("what is due expires, and nothing else", format!("{expired} expired of age"), &found);
    Ok(())
}

/// Compares the stored counts with the tables, and the API's counts with both.
async fn counts(scene: &Scene, session: &mut PgConnection, report: &mut Report) -> Result<()> {
    let mut found = Vec::new();
    // Read the API's counts before the stored ones are corrected.
    for member in scene.members.iter().filter(|member| member.kind == Kind::Api) {
        let ask = async |path: &str| -> Result<Value> {
            let url = format!("http://{}{path}", member.address);
            let answer = scene.http.get(url).header("x-api-key", API_KEY).send().await?;
            Ok(answer.error_for_status()?.json().await?)
        };
        let analytics = ask("/api/analytics?period=90d").await?["data"]["summary"].clone();
        let said: Vec<String> =
            ["totalAbandoned", "totalRecovered", "totalAbandonedValue", "totalRecoveredValue", "refundedValue"]
                .map(|field| analytics[field].to_string())
                .to_vec();
        let counted: (i64, i64, i64, i64, i64) = sqlx::query_as(
            "select count(*), count(*) filter (where status = 'recovered'), coalesce(sum(total_minor), 0)::bigint,
                    coalesce(sum(total_minor) filter (where status = 'recovered'), 0)::bigint,
                    coalesce(sum(refunded_minor), 0)::bigint from carts",
        )
        .fetch_one(&mut *session)
        .await?;
        let cents =
            |text: &str| text.parse::<rust_decimal::Decimal>().ok().map(|sum| sum * rust_decimal::Decimal::from(100));
        let equal = said[0] == counted.0.to_string()
            && said[1] == counted.1.to_string()
            && cents(&said[2]) == Some(counted.2.into())
            && cents(&said[3]) == Some(counted.3.into())
            && cents(&said[4]) == Some(counted.4.into());
        if !equal {
            found.push(format!("{} answers {said:?}, and a count is {counted:?}", member.name()));
        }
        for status in ["abandoned", "recovered", "expired"] {
            let total =
                ask(&format!("/api/carts?limit=1&status={status}")).await?["data"]["pagination"]["total"].as_i64();
            let counted: i64 = sqlx::query_scalar("select count(*) from carts where status = $1")
                .bind(status)
                .fetch_one(&mut *session)
                .await?;
            if total != Some(counted) {
                found.push(format!("{} lists {total:?} {status}, and a count is {counted}", member.name()));
            }
        }
    }
    let database = Database::from(PgPool::connect(&scene.server.url).await?);
    let mut conn = database.begin().await?;
    let corrected = analytics::correct(&mut conn).await?;
    conn.commit().await?;
    database.close();
    if corrected.corrected > 0 {
        found.push(format!("the stored counts were wrong: {corrected:?}"));
    }
    report.check(
        "analytics and totals equal a count",
        format!("{} carts, {} counts", corrected.carts, corrected.periods),
        &found,
    );
    Ok(())
}
