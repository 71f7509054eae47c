//! The worker's command line: without a command it works; with one it answers
//! an operator and ends.

mod check;
mod doctor;
mod jobs;
mod migrate;
mod payments;
mod privileges;
mod rollup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use common::{clock::Clock, config::Env, db, jobs::QUEUES};
use queue::{JobId, JobState};

pub use check::{Check, CheckStatus};
pub use doctor::examine;

use crate::WorkerConfig;

/// Makes payment links, expires carts and rolls up days until SIGTERM. With a
/// command it answers that and ends; both read the same environment.
#[derive(Debug, Parser)]
#[command(name = "worker", version)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Jobs, newest first; or one of them with the history of its attempts
    Jobs {
        /// Only this one
        #[arg(value_parser = parse_job_id)]
        id: Option<JobId>,
        /// Only of this queue
        #[arg(long, value_parser = parse_queue)]
        queue: Option<String>,
        /// Only in this state: scheduled, ready, running, retrying, done or dead
        #[arg(long, value_parser = parse_state)]
        state: Option<JobState>,
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
    /// Brings dead jobs back: one, or all of a queue that fit
    Retry {
        /// Only this one
        #[arg(required_unless_present = "queue", conflicts_with = "queue", value_parser = parse_job_id)]
        id: Option<JobId>,
        /// All dead jobs of this queue
        #[arg(long, value_parser = parse_queue)]
        queue: Option<String>,
        /// … of this kind
        #[arg(long, requires = "queue")]
        kind: Option<String>,
        /// … whose last error has this in it
        #[arg(long, requires = "queue")]
        error: Option<String>,
        /// Only count them
        #[arg(long, requires = "queue")]
        dry_run: bool,
    },
    /// Gives an unfinished job up
    Cancel {
        /// Which
        #[arg(value_parser = parse_job_id)]
        id: JobId,
    },
    /// Queues: how many jobs in which state, how long the oldest waits, whether paused
    Queues,
    /// No worker takes jobs of this queue any more; what runs goes on
    Pause {
        /// Which
        #[arg(value_parser = parse_queue)]
        queue: String,
    },
    /// Workers take jobs of this queue again
    Resume {
        /// Which
        #[arg(value_parser = parse_queue)]
        queue: String,
    },
    /// What runs by the clock: last and next slot, and what is overdue
    Schedules,
    /// Folds the ledger of counts, or builds it from nothing
    Rollup {
        /// Count every cart anew; exact while everything goes on
        #[arg(long)]
        all: bool,
    },
    /// Brings the schema up to date and ends: for the role that owns it, where processes run under another
    Migrate,
    /// Looks at everything a worker needs; ends with 1 if something is wrong
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
    /// Whether there is something to answer, instead of work to be done.
    pub fn is_command(&self) -> bool {
        self.command.is_some()
    }

    /// Answers the command on standard output.
    ///
    /// # Errors
    /// What the command can't do, in one line.
    pub async fn answer(self, env: &Env) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let Some(command) = self.command else { return Ok(ExitCode::SUCCESS) };
        if let Command::Doctor = command {
            let config = WorkerConfig::from_env(env)?;
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
