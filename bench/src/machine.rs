//! Describes the machine and the versions, so that figures of different machines aren't compared.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::Result;

use crate::figures::{median, milliseconds};

/// The facts known before the run.
#[derive(Debug)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    memory: String,
    rustc: String,
    commit: String,
}

impl Machine {
    /// Reads the facts.
    pub(crate) fn look() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let value = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let kibibytes: Option<u64> =
            value(&memory, "MemTotal").and_then(|text| text.split_whitespace().next()?.parse().ok());
        let changed = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: value(&cpus, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory: kibibytes.map_or_else(String::new, |kibibytes| format!("{} GiB", kibibytes.div_ceil(1024 * 1024))),
            rustc: output("rustc", &["--version"]),
            commit: output("git", &["rev-parse", "--short=10", "HEAD"]) + if changed { " with changes" } else { "" },
        }
    }

    /// Describes the machine in one line.
    pub(crate) fn describe(&self, postgres: &str) -> String {
        let Self { cores, processor, memory, rustc, commit } = self;
        format!("{cores} cores ({processor}), {memory}; {postgres}; {rustc}; commit {commit}")
    }
}

/// The output of a program run in the repository's folder.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Measures how long the storage takes to make 8 KiB durable, in milliseconds; the median of 100.
pub(crate) fn fdatasync(folder: &Path) -> Result<f64> {
    let path = folder.join("fdatasync");
    let file = File::create(&path)?;
    let mut waits = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        file.write_all_at(&[120; 8192], 0)?;
        file.sync_data()?;
        waits.push(milliseconds(begun.elapsed()));
    }
    fs::remove_file(path)?;
    Ok(median(&waits))
}
