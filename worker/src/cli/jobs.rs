//! Jobs, queues and schedules on the command line.

use std::error::Error;

use common::{db::Database, jobs::QUEUES};
use queue::{ActionOutcome, JobFilter, JobId, JobState, JobSummary};

type Answered = Result<(), Box<dyn Error>>;

pub(super) async fn list(database: &Database, queue: Option<String>, state: Option<JobState>, limit: i64) -> Answered {
    let filter = JobFilter { queue, state, ..JobFilter::default() };
    let mut conn = database.acquire().await?;
    let total = queue::count(&mut conn, &filter).await?;
    let jobs = queue::list(&mut conn, &filter, 0, limit).await?;
    for job in &jobs {
        println!("{}", line(job));
    }
    println!("{} of {total}", jobs.len());
    Ok(())
}

fn line(job: &JobSummary) -> String {
    format!(
        "{}  {:13}  {:20}  {:9}  {:>3}/{:<3}  {}  {}",
        job.id,
        job.queue,
        job.kind,
        job.state.as_str(),
        job.attempts,
        job.max_attempts,
        job.run_at.format("%F %T"),
        job.last_error.as_deref().unwrap_or_default(),
    )
}

pub(super) async fn show(database: &Database, id: JobId) -> Answered {
    let mut conn = database.acquire().await?;
    let job = queue::find(&mut conn, id).await?.ok_or("there is no such job (any more)")?;
    println!("{}", line(&job));
    for attempt in queue::history(&mut conn, id).await?.unwrap_or_default() {
        let started_at = attempt.started_at.map(|at| at.to_rfc3339());
        println!(
            "  attempt {}: {} to {} by {}: {}",
            attempt.attempt,
            started_at.as_deref().unwrap_or("?"),
            attempt.ended_at.to_rfc3339(),
            attempt.worker.as_deref().unwrap_or("?"),
            attempt.error.as_deref().unwrap_or("?"),
        );
    }
    Ok(())
}

pub(super) async fn retry(database: &Database, id: JobId) -> Answered {
    let mut tx = database.begin().await?;
    let job = changed(queue::retry(&mut tx, id).await?, "only a dead one can be retried")?;
    tx.commit().await?;
    println!("{}", line(&job));
    Ok(())
}

pub(super) async fn cancel(database: &Database, id: JobId) -> Answered {
    let mut tx = database.begin().await?;
    let job = changed(queue::cancel(&mut tx, id).await?, "only an unfinished one can be cancelled")?;
    tx.commit().await?;
    println!("{}", line(&job));
    Ok(())
}

fn changed(outcome: ActionOutcome, rule: &str) -> Result<JobSummary, String> {
    match outcome {
        ActionOutcome::Done(job) => Ok(job),
        ActionOutcome::NotFound => Err("there is no such job (any more)".to_owned()),
        ActionOutcome::WrongState(state) => Err(format!("the job is {}: {rule}", state.as_str())),
        ActionOutcome::AlreadyQueued => Err("the same job is queued already".to_owned()),
    }
}

pub(super) async fn retry_many(
    database: &Database,
    queue: String,
    kind: Option<String>,
    error: Option<String>,
    dry_run: bool,
) -> Answered {
    let mut tx = database.begin().await?;
    let filter = JobFilter { queue: Some(queue), kind, error, ..JobFilter::default() };
    let many = queue::retry_dead(&mut tx, &filter, dry_run).await?;
    tx.commit().await?;
    if dry_run {
        println!("{} dead jobs would be retried", many.matched);
    } else {
        println!("{} of {} dead jobs are ready again", many.retried, many.matched);
        if many.already_queued > 0 {
            println!("{} stay dead, because the same job is queued already", many.already_queued);
        }
    }
    Ok(())
}

pub(super) async fn queues(database: &Database) -> Answered {
    for queue in queue::queues(&mut database.acquire().await?, &QUEUES).await? {
        let counts: Vec<String> =
            JobState::ALL.iter().map(|state| format!("{} {}", queue.counts[state.as_str()], state.as_str())).collect();
        let oldest =
            queue.oldest_ready_age_seconds.map(|age| format!(", oldest ready for {age} s")).unwrap_or_default();
        let paused = queue.paused_at.map(|at| format!(", PAUSED since {}", at.format("%F %T"))).unwrap_or_default();
        println!("{:13}  {}{oldest}{paused}", queue.name, counts.join(", "));
    }
    Ok(())
}

pub(super) async fn pause(database: &Database, queue: &str) -> Answered {
    let mut tx = database.begin().await?;
    queue::pause(&mut tx, queue).await?;
    tx.commit().await?;
    println!("{queue} is paused; `worker resume {queue}` lets its jobs through again");
    Ok(())
}

pub(super) async fn resume(database: &Database, queue: &str) -> Answered {
    let mut tx = database.begin().await?;
    queue::resume(&mut tx, queue).await?;
    tx.commit().await?;
    println!("{queue} is not paused");
    Ok(())
}

pub(super) async fn schedules(database: &Database) -> Answered {
    for schedule in queue::schedules(&mut database.acquire().await?).await? {
        let slot = |slot: Option<chrono::DateTime<chrono::Utc>>| {
            slot.map_or_else(|| "never".to_owned(), |slot| slot.format("%F %T").to_string())
        };
        let overdue = schedule.overdue_slot.map(|at| format!(", OVERDUE: {}", slot(Some(at)))).unwrap_or_default();
        println!(
            "{:18}  {:18}  last {}, next {}{overdue}",
            schedule.name,
            schedule.cron,
            slot(schedule.last_slot),
            slot(schedule.next_slot),
        );
    }
    Ok(())
}
