//! The faults and their order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    members::Kind,
    points::{POINTS, Point},
    stage::Scene,
};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill(Kind),
    KillAt(Point),
    /// A process is frozen for longer than a lease, then resumed.
    Freeze(Kind),
    PostgresKilled,
    PostgresStopped,
    BackendKilled,
    SessionsEnded,
    Cut,
    Stalled,
    /// Packets are dropped silently.
    Lost,
    DiskFull,
    ClockMoved,
}

impl Fault {
    /// Each kind of fault once, without those that this machine can't inject.
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

    /// Whether the fault lasts long; others are injected meanwhile.
    fn takes_long(self) -> bool {
        matches!(self, Self::Freeze(Kind::Worker) | Self::Lost)
    }
}

/// Injects faults one after the other, in an order chosen by the seed, until `stop` is set. Returns
/// once all faults have been repaired.
pub(crate) async fn run(scene: Arc<Scene>, seed: u64, stop: Arc<AtomicBool>) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut long: Vec<(Fault, tokio::task::JoinHandle<()>)> = Vec::new();
    'run: loop {
        let mut deck = Fault::deck(&scene);
        deck.shuffle(&mut dice);
        // Longest faults first, so that a short run has time for them.
        deck.sort_by_key(|fault| !fault.takes_long());
        for fault in deck {
            // Draw random numbers before anything depends on timing.
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
