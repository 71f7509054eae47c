//! The Postgres of the run, and its faults.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use sandbox::postgres::{Durability, PrivatePostgres};

const DATABASE: &str = "checkout";
/// More than any recovery in a run needs.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A durable server used only by this run.
#[derive(Debug)]
pub(crate) struct Server {
    postgres: Mutex<PrivatePostgres>,
    data: PathBuf,
    pub(crate) port: u16,
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let settings = [
            // Killed processes leave sessions behind for a moment.
            ("max_connections", "400"),
            // Small, so that checkpoints are frequent and the WAL fits a small disk.
            ("min_wal_size", "32MB"),
            ("max_wal_size", "64MB"),
            ("checkpoint_timeout", "30s"),
            ("deadlock_timeout", "200ms"),
            ("log_min_messages", "warning"),
        ];
        let postgres = PrivatePostgres::start_with(folder, Durability::Full, &settings).await?;
        postgres.ensure_database(DATABASE).await?;
        let (data, port, url) = (postgres.data_folder().to_owned(), postgres.port(), postgres.url(DATABASE));
        Ok(Self { postgres: Mutex::new(postgres), data, port, url })
    }

    /// The URL of the same database through another port.
    pub(crate) fn url_by_way_of(&self, port: u16) -> String {
        self.url.replace(&format!(":{}/", self.port), &format!(":{port}/"))
    }

    /// A session of the run's own, without a proxy.
    pub(crate) async fn session(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.url).await
    }

    /// Sends SIGKILL to the postmaster and all its children at once.
    pub(crate) fn kill(&self) -> Result<()> {
        let postmaster = self.postmaster().context("Postgres does not run")?;
        let children = children_of(postmaster);
        for pid in std::iter::once(postmaster).chain(children) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // the process may have ended meanwhile
        }
        Ok(())
    }

    /// Stops at once, like `pg_ctl stop -m immediate`: no checkpoint, recovery at the next start.
    pub(crate) fn stop_at_once(&self) -> Result<()> {
        let postmaster = self.postmaster().context("Postgres does not run")?;
        Ok(kill(Pid::from_raw(postmaster), Signal::SIGQUIT)?)
    }

    /// Sends SIGKILL to one backend; Postgres restarts all backends and recovers.
    pub(crate) async fn kill_a_backend(&self) -> Result<()> {
        let mut session = self.session().await?;
        let pid: Option<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity
             where backend_type = 'client backend' and pid <> pg_backend_pid() order by random() limit 1",
        )
        .fetch_optional(&mut session)
        .await?;
        kill(Pid::from_raw(pid.context("nobody is connected")?), Signal::SIGKILL)?;
        Ok(())
    }

    /// Ends all sessions except the run's own.
    pub(crate) async fn end_sessions(&self) -> Result<i64> {
        let mut session = self.session().await?;
        let ended = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where backend_type = 'client backend' and pid <> pg_backend_pid() and datname = current_database()",
        );
        Ok(ended.fetch_one(&mut session).await?)
    }

    /// Waits until Postgres responds, and starts it again if it has ended.
    pub(crate) async fn revive(&self) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            if !self.is_running() {
                // The start fails while old processes hold the shared memory; try again.
                let _ = self.postgres.lock().await.start_again().await;
            }
            if tokio::time::timeout(Duration::from_secs(3), self.answers()).await.unwrap_or(false) {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > TIMEOUT {
                bail!("Postgres does not come back; its log is {}", self.data.join("start.log").display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(mut session) = self.session().await else { return false };
        sqlx::query("select 1").execute(&mut session).await.is_ok()
    }

    /// The process id in the first line of its pid file, if that process lives.
    fn postmaster(&self) -> Option<i32> {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid: i32 = file.lines().next()?.trim().parse().ok()?;
        is_alive(pid).then_some(pid)
    }

    fn is_running(&self) -> bool {
        self.postmaster().is_some()
    }
}

/// Whether the process exists and is not a zombie.
fn is_alive(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children_of(parent: i32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| state_and_parent(*pid).is_some_and(|(_, of)| of == parent)).collect()
}
