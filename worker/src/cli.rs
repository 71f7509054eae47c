//! The worker's command line: without a command it runs jobs; with one it executes the command and
//! exits.

mod check;
mod clocks;
mod doctor;
mod jobs;
mod limits;
mod migrate;
mod payments;
mod privileges;
mod rollup;
mod stripe_key;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use common::{
    clock::Clock,
    config::{self, Env},
    db,
    jobs::QUEUES,
};
use queue::{JobId, JobState};

pub use check::{Check, CheckStatus};
pub use doctor::examine;

use crate::config::variables;

/// Creates payment links, expires carts and adds up their counts until SIGTERM. With a
/// command, executes it and exits. Both read the same environment variables.
#[derive(Debug, Parser)]
#[command(name = "worker", version, after_long_help = config::help(&variables()))]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists jobs, newest first, or shows one job with its failed and interrupted attempts
    Jobs {
        /// Show only this job
        #[arg(value_parser = parse_job_id)]
        id: Option<JobId>,
        /// Only jobs of this queue
        #[arg(long, value_parser = parse_queue)]
        queue: Option<String>,
        /// Only jobs in this state: scheduled, ready, running, retrying, done or dead
        #[arg(long, value_parser = parse_state)]
        state: Option<JobState>,
        /// Maximum number of jobs to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// Retries one dead job, or all matching dead jobs of a queue
    Retry {
        /// Retry only this job
        #[arg(required_unless_present = "queue", conflicts_with = "queue", value_parser = parse_job_id)]
        id: Option<JobId>,
        /// Retry all dead jobs of this queue
        #[arg(long, value_parser = parse_queue)]
        queue: Option<String>,
        /// Only jobs of this kind
        #[arg(long, requires = "queue")]
        kind: Option<String>,
        /// Only jobs whose last error contains this text (ignoring case)
        #[arg(long, requires = "queue")]
        error: Option<String>,
        /// Only count the jobs
        #[arg(long, requires = "queue")]
        dry_run: bool,
    },
    /// Cancels an unfinished job
    Cancel {
        /// Id of the job
        #[arg(value_parser = parse_job_id)]
        id: JobId,
    },
    /// Lists queues: number of jobs by state, age of the oldest ready job, whether paused
    Queues,
    /// Pauses a queue: workers take no more jobs from it; running jobs continue
    Pause {
        /// Name of the queue
        #[arg(value_parser = parse_queue)]
        queue: String,
    },
    /// Resumes a paused queue
    Resume {
        /// Name of the queue
        #[arg(value_parser = parse_queue)]
        queue: String,
    },
    /// Lists schedules: last and next occurrence, and which are overdue
    Schedules,
    /// Adds up the stored counts of carts, or corrects them
    Rollup {
        /// Rebuild by counting every cart; exact also while api and workers are running
        #[arg(long)]
        all: bool,
    },
    /// Applies pending migrations and exits: for the role that owns the schema, if the processes
    /// use another role
    Migrate,
    /// Checks everything that a worker needs; exits with 1 if there is a problem
    Doctor,
}

fn parse_job_id(text: &str) -> Result<JobId, &'static str> {
    text.parse().map_err(|_| "it takes a job's id, as `worker jobs` lists it")
}

fn parse_queue(text: &str) -> Result<String, String> {
    let known = QUEUES.contains(&text).then(|| text.to_owned());
    known.ok_or_else(|| format!("there are {}", QUEUES.join(", ")))
}

fn parse_state(text: &str) -> Result<JobState, String> {
    text.parse().map_err(|_| "there are scheduled, ready, running, retrying, done, dead".to_owned())
}

impl CommandLine {
    /// Whether a command was given. Without one the process runs jobs.
    pub fn is_command(&self) -> bool {
        self.command.is_some()
    }

    /// Executes the command and prints its result on standard output.
    ///
    /// # Errors
    /// An invalid variable, a database error, or the reason why the command is not possible; each a
    /// message of one line.
    pub async fn answer(self, env: &Env) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let Some(command) = self.command else { return Ok(ExitCode::SUCCESS) };
        if let Command::Doctor = command {
            let config = env.read()?;
            let checks = examine(env, &config, &Clock::system()).await?;
            return Ok(check::print(&checks));
        }
        let database = db::from_env(env, 0)?.database;
        match command {
            Command::Jobs { id: Some(id), .. } => jobs::show(&database, id).await?,
            Command::Jobs { id: None, queue, state, limit } => jobs::list(&database, queue, state, limit).await?,
            Command::Retry { id: Some(id), .. } => jobs::retry(&database, id).await?,
            Command::Retry { id: None, queue, kind, error, dry_run } => {
                jobs::retry_many(&database, queue.unwrap_or_default(), kind, error, dry_run).await?;
            }
            Command::Cancel { id } => jobs::cancel(&database, id).await?,
            Command::Queues => jobs::queues(&database).await?,
            Command::Pause { queue } => jobs::pause(&database, &queue).await?,
            Command::Resume { queue } => jobs::resume(&database, &queue).await?,
            Command::Schedules => jobs::schedules(&database).await?,
            Command::Rollup { all } => rollup::run(&database, all).await?,
            Command::Migrate => migrate::run(&database).await?,
            Command::Doctor => {}
        }
        database.close();
        Ok(ExitCode::SUCCESS)
    }
}
