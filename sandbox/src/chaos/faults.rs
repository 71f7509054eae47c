//! What goes wrong, and in which order.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    book::{Book, promises},
    members::{Held, Kind, Member},
    points::{POINTS, Point},
    proxy::Proxy,
    server::Server,
    weather::Weather,
};
use crate::stripe::StandIn;

/// All that there is in a run.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) members: Vec<Member>,
    pub(crate) stripe: StandIn,
    pub(crate) http: reqwest::Client,
    pub(crate) weather: Weather,
    pub(crate) book: Book,
    pub(crate) tally: Tally,
    /// A small disk on which Postgres has its data.
    pub(crate) disk: Option<PathBuf>,
    pub(crate) clocks_move: bool,
    /// By which events come to the apis.
    pub(crate) door: OnceLock<Proxy>,
}

/// How often each fault was injected, and how often what it needs was not to be had.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, Tried>>);

/// Of one fault.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried {
    pub(crate) tried: u64,
    /// The moment did not come, or the process was in use by another fault.
    pub(crate) missed: u64,
}

impl Tally {
    pub(crate) fn count(&self, fault: impl Into<String>, tried: bool) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_fault = tally.entry(fault.into()).or_default();
        if tried { of_fault.tried += 1 } else { of_fault.missed += 1 }
    }

    pub(crate) fn all(&self) -> BTreeMap<String, Tried> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tried(&self) -> u64 {
        self.all().values().map(|fault| fault.tried).sum()
    }
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(Kind),
    KillAt(Point),
    /// Longer than a lease, and then goes on.
    Freeze(Kind),
    PostgresKilled,
    PostgresStopped,
    BackendKilled,
    SessionsEnded,
    Cut,
    Stalled,
    /// Connections swallow everything without a word.
    Lost,
    DiskFull,
    ClockMoved,
}

impl Fault {
    /// Each kind once; what can't be done here is left out.
    fn deck(scene: &Scene) -> Vec<Self> {
        let mut deck = vec![
            Self::Kill(Kind::Api),
            Self::Kill(Kind::Worker),
            Self::Freeze(Kind::Worker),
            Self::Freeze(Kind::Api),
            Self::PostgresKilled,
            Self::PostgresStopped,
            Self::BackendKilled,
            Self::SessionsEnded,
            Self::Cut,
            Self::Stalled,
            Self::Lost,
        ];
        deck.extend(POINTS.map(Self::KillAt));
        if scene.disk.is_some() {
            deck.push(Self::DiskFull);
        }
        if scene.clocks_move {
            deck.extend([Self::ClockMoved; 2]);
        }
        deck
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Kill(kind) => format!("{} killed (SIGKILL)", kind.name()),
            Self::KillAt(point) => point.name.to_owned(),
            Self::Freeze(Kind::Worker) => "worker frozen past its leases (SIGSTOP, SIGCONT)".to_owned(),
            Self::Freeze(Kind::Api) => "api frozen (SIGSTOP, SIGCONT)".to_owned(),
            Self::PostgresKilled => "Postgres killed, all of its processes (SIGKILL)".to_owned(),
            Self::PostgresStopped => "Postgres stopped at once (`-m immediate`)".to_owned(),
            Self::BackendKilled => "a process of Postgres killed (SIGKILL)".to_owned(),
            Self::SessionsEnded => "all sessions ended (`pg_terminate_backend`)".to_owned(),
            Self::Cut => "connections to Postgres cut".to_owned(),
            Self::Stalled => "connections to Postgres stalled".to_owned(),
            Self::Lost => "connections to Postgres lost without a word".to_owned(),
            Self::DiskFull => "disk of Postgres full".to_owned(),
            Self::ClockMoved => "clock of a process moved by up to 4 minutes".to_owned(),
        }
    }

    /// Those that take long go on while others come and go.
    fn takes_long(self) -> bool {
        matches!(self, Self::Freeze(Kind::Worker) | Self::Lost)
    }
}

/// Injects faults until it is time to stop, one after the other as the seed
/// says; waits until what was broken is mended.
pub(crate) async fn run(scene: Arc<Scene>, seed: u64, stop: Arc<AtomicBool>) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut long: Vec<(Fault, tokio::task::JoinHandle<()>)> = Vec::new();
    'run: loop {
        let mut deck = Fault::deck(&scene);
        deck.shuffle(&mut dice);
        // A freeze is the longest: with it first a short run has room for it.
        deck.sort_by_key(|fault| !fault.takes_long());
        for fault in deck {
            // The dice fall before anything depends on what happens.
            let (own, pause) = (StdRng::from_rng(&mut dice), Duration::from_millis(dice.random_range(200..2_500)));
            if stop.load(Ordering::Acquire) {
                break 'run;
            }
            long.retain(|(_, task)| !task.is_finished());
            if fault.takes_long() {
                if !long.iter().any(|(under_way, _)| *under_way == fault) {
                    long.push((fault, tokio::spawn(inject(scene.clone(), fault, own))));
                }
            } else {
                inject(scene.clone(), fault, own).await;
            }
            tokio::time::sleep(pause).await;
        }
    }
    for (_, task) in long {
        let _ = task.await;
    }
}

async fn inject(scene: Arc<Scene>, fault: Fault, mut dice: StdRng) {
    let begun = Instant::now();
    let outcome = fault.inject(&scene, &mut dice).await;
    let took = begun.elapsed().as_secs_f64();
    match &outcome {
        Ok(Some(what)) => eprintln!("  {}: {what} ({took:.1} s)", fault.name()),
        Ok(None) => eprintln!("  {}: there was no occasion ({took:.1} s)", fault.name()),
        Err(error) => eprintln!("  {}: could not be done: {error:#} ({took:.1} s)", fault.name()),
    }
    scene.tally.count(fault.name(), matches!(outcome, Ok(Some(_))));
}

/// Starts a process that was killed, as whoever runs it would, and waits until it is ready.
pub(crate) async fn restart(scene: &Scene, held: &mut Held<'_>) -> Result<()> {
    held.start()?;
    // Postgres may be away meanwhile, and take its time to come back.
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
