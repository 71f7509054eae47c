//! The state of a run, for faults, load and checks.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use common::mutex::lock;
use sandbox::{proxy::Proxy, stripe::FakeStripe};

use crate::{
    book::{Book, promises},
    members::{Held, Member},
    server::Server,
    weather::Weather,
};

/// The state of a run.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) members: Vec<Member>,
    pub(crate) stripe: FakeStripe,
    pub(crate) http: reqwest::Client,
    pub(crate) weather: Weather,
    pub(crate) book: Book,
    pub(crate) tally: Tally,
    /// The small disk that holds Postgres' data.
    pub(crate) disk: Option<PathBuf>,
    pub(crate) clocks_move: bool,
    /// The proxy that delivers events to the apis.
    pub(crate) door: OnceLock<Proxy>,
}

/// Counts the injected faults and those that could not be injected.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, Tried>>);

/// The counts of one fault.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried {
    pub(crate) tried: u64,
    /// The moment did not occur, or another fault held the process.
    pub(crate) missed: u64,
}

impl Tally {
    pub(crate) fn count(&self, fault: impl Into<String>, tried: bool) {
        let mut tally = lock(&self.0);
        let of_fault = tally.entry(fault.into()).or_default();
        if tried { of_fault.tried += 1 } else { of_fault.missed += 1 }
    }

    pub(crate) fn all(&self) -> BTreeMap<String, Tried> {
        lock(&self.0).clone()
    }

    pub(crate) fn tried(&self) -> u64 {
        self.all().values().map(|fault| fault.tried).sum()
    }
}

/// Restarts a killed process, as a supervisor would, and waits until it is ready.
pub(crate) async fn restart(scene: &Scene, held: &mut Held<'_>) -> Result<()> {
    held.start()?;
    // Postgres may be unavailable meanwhile and take time to return.
    let begun = Instant::now();
    while !held.member.is_ready(&scene.http).await {
        if let Some(how) = held.ended()? {
            scene.book.violation(promises::PROCESSES, format!("{} ended at its start: {how}", held.member.name()));
            held.start()?;
        }
        ensure!(begun.elapsed() < Duration::from_secs(120), "{} does not become ready", held.member.name());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
