//! Runs wrk with a script of `bench/wrk/` on an HTTP service.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::kit::Kit;

/// A load: the requests and the number of connections.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The script, in `bench/wrk/`.
    pub(crate) script: &'static str,
    /// The path and query, if the script has no paths of its own.
    pub(crate) path: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) connections: u32,
}

impl Load {
    /// Repeats the same GET.
    pub(crate) fn of_path(path: impl Into<String>, connections: u32) -> Self {
        Self { script: "fixed.lua", path: path.into(), arguments: Vec::new(), connections }
    }

    /// GETs random carts: `path` followed by an id from the file `ids`.
    pub(crate) fn by_id(path: &str, ids: &std::path::Path, connections: u32) -> Self {
        let arguments = vec![path.to_owned(), ids.display().to_string()];
        Self { script: "by_id.lua", path: String::new(), arguments, connections }
    }

    /// POSTs carts; `body` has USER in the address.
    pub(crate) fn creating(path: &str, body: &str, connections: u32) -> Self {
        let word = sandbox::postgres::random_word()[..8].to_owned();
        let arguments = vec![path.to_owned(), body.to_owned(), word];
        Self { script: "create.lua", path: String::new(), arguments, connections }
    }
}

/// The output of `report.lua`.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    seconds: f64,
    /// Broken connections, error responses, and responses after [`TIMEOUT`].
    failed: u64,
    p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Report {
    pub(crate) fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no run has 2^52 requests")]
        let requests = self.requests as f64;
        requests / self.seconds
    }
}

const TIMEOUT: &str = "20s";

/// Runs the load for this many seconds; fails if one response is not a success.
pub(crate) async fn run(kit: &Kit, address: &str, load: &Load, seconds: u32) -> Result<Report> {
    let output = Command::new(kit.wrk()?)
        .args(["--threads", "2", "--timeout", TIMEOUT, "--header", "x-api-key: bench"])
        .args(["--connections", &load.connections.to_string(), "--duration", &format!("{seconds}s")])
        .args(["--script", load.script, &format!("http://{address}{}", load.path), "--"])
        .args(&load.arguments)
        .current_dir(kit.folder.join("wrk"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("wrk can't be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().rfind(|line| line.starts_with('{'));
    let report: Report = match report {
        Some(line) if output.status.success() => serde_json::from_str(line)?,
        _ => anyhow::bail!("wrk: {}{text}", String::from_utf8_lossy(&output.stderr)),
    };
    ensure!(report.failed == 0, "{} of {} requests failed ({})", report.failed, report.requests, load.script);
    ensure!(report.requests > 0, "nothing was answered ({})", load.script);
    eprintln!(
        "    {:.0}/s, p50 {:.2} ms, p99 {:.2} ms ({address}, {} {})",
        report.per_second(),
        report.p50_ms,
        report.p99_ms,
        load.script,
        load.path
    );
    Ok(report)
}
