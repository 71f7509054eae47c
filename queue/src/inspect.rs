//! What people ask about jobs.

use sqlx::PgConnection;

use crate::job::JobId;

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSummary {
    /// `scheduled`, `ready`, `running`, `retrying`, `done` or `dead`.
    pub state: String,
    /// How often it was started.
    pub attempts: i16,
    /// How often it may be.
    pub max_attempts: i16,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl JobSummary {
    /// Whether it is still to run, or running.
    pub fn is_unfinished(&self) -> bool {
        self.state != "done" && self.state != "dead"
    }
}

/// The job, or `None` if there is none or it was deleted after its retention.
pub async fn find(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Option<JobSummary>> {
    sqlx::query_as!(
        JobSummary,
        r#"
        select case when state <> 'pending' then state
                    when run_at <= now() then 'ready'
                    when attempts > 0 then 'retrying'
                    else 'scheduled' end as "state!",
               attempts, max_attempts, last_error
        from jobs where id = $1
        "#,
        id,
    )
    .fetch_optional(conn)
    .await
}
