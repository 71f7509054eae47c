//! Runs the product's release binaries and the peers as processes.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, StatusCode};
use tokio::process::{Child, Command};

/// More than any start needs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// The time just before the start.
    begun: Instant,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with exactly these variables; its output goes to a file in `folder`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        variables: &[(&str, String)],
        folder: &Path,
        name: &str,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let log_file = fs::File::create(&log)?;
        let begun = Instant::now();
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", program.display()))?;
        Ok(Self { child, begun, name: name.to_owned(), log })
    }

    /// Waits until `path` at `address` returns 200; returns the time since the start.
    pub(crate) async fn answers(
        &mut self,
        client: &Client,
        address: &str,
        path: &str,
        look_every: Duration,
    ) -> Result<Duration> {
        let mut ticks = tokio::time::interval(look_every);
        loop {
            ticks.tick().await;
            let answer = client.get(format!("http://{address}{path}")).header("x-api-key", "bench").send().await;
            if answer.is_ok_and(|response| response.status() == StatusCode::OK) {
                return Ok(self.begun.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.said());
            }
            ensure!(self.begun.elapsed() < TIMEOUT, "{} does not answer: {}", self.name, self.said());
        }
    }

    /// The last lines of its output.
    fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// The process id, while it runs.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended: {}", self.name, self.said()))
    }

    /// The peak memory, in MiB.
    pub(crate) fn peak_memory(&self) -> Result<f64> {
        let pid = self.id()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes: f64 = peak
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .context("this system does not tell the peak of a process' memory")?;
        Ok(kibibytes / 1024.0)
    }

    /// Ends the process and waits for it.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("{} can't be ended", self.name))
    }
}

/// A free address on loopback.
pub(crate) fn free_address() -> Result<String> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.to_string())
}
