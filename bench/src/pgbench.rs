//! Measures Postgres itself: pgbench with a script of `bench/peers/`.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::kit::Kit;

/// The items that the scripts insert.
const ITEMS: &str = r#"[{"sku":"SKU-1001","name":"Blue T-shirt","qty":2,"price":"19.90"},{"sku":"SKU-2002","name":"Running shoes","qty":1,"price":"89.00"}]"#;

/// Runs `script` with this many clients; returns transactions per second.
pub(crate) async fn run(kit: &Kit, url: &str, script: &str, clients: u32, seconds: u32) -> Result<f64> {
    let output = Command::new(kit.pgbench()?)
        .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2"])
        .args(["--client", &clients.to_string(), "--time", &seconds.to_string()])
        .args(["--define", &format!("items={ITEMS}"), "--define", "name=Ada Lovelace", "--define", "st=active"])
        .args(["--file", script, url])
        .current_dir(kit.folder.join("peers"))
        .env_remove("PGOPTIONS")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("pgbench can't be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench: {errors}{text}");
    let after = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    if let Some(failed) = after("number of failed transactions: ") {
        ensure!(failed.starts_with("0 "), "pgbench: {failed} transactions failed");
    }
    let rate = after("tps = ").and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let rate: f64 = rate.with_context(|| format!("pgbench says no rate: {errors}{text}"))?;
    eprintln!("    {rate:.0}/s (pgbench, {script})");
    Ok(rate)
}
