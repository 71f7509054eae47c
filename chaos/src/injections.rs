//! Injects and repairs each fault.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};

use crate::{
    faults::Fault,
    members::{CLOCK_OFF, Held, Kind, Member},
    points,
    stage::{Scene, restart},
    weather::{Scope, UnderWay},
};

/// A lease lasts 25 s, and is reclaimed within another second.
const PAST_A_LEASE: Duration = Duration::from_secs(28);
/// By then, one end has noticed the loss and reset the connections.
const UNTIL_RESET: Duration = Duration::from_secs(30);
/// Grace period for responses to requests that began during a fault.
const AFTERMATH: Duration = Duration::from_secs(5);

impl Fault {
    /// Injects and repairs the fault; returns its target. `None` if it could not be injected.
    pub(crate) async fn inject(self, scene: &Scene, dice: &mut StdRng) -> Result<Option<String>> {
        match self {
            Self::Kill(kind) => kill(scene, kind, dice).await,
            Self::KillAt(point) => {
                let (finishes, pause) = (dice.random_bool(0.5), short(dice));
                points::kill_at(scene, point, finishes, pause).await
            }
            Self::Freeze(Kind::Worker) => freeze(scene, Kind::Worker, PAST_A_LEASE, dice).await,
            Self::Freeze(Kind::Api) => {
                let time = Duration::from_secs(dice.random_range(4..9));
                freeze(scene, Kind::Api, time, dice).await
            }
            Self::PostgresKilled => with_postgres_unavailable(scene, dice, async || scene.server.kill()).await,
            Self::PostgresStopped => with_postgres_unavailable(scene, dice, async || scene.server.stop_at_once()).await,
            Self::BackendKilled => {
                with_postgres_unavailable(scene, dice, async || scene.server.kill_a_backend().await).await
            }
            Self::SessionsEnded => {
                let _storm = surroundings(scene);
                Ok(Some(format!("{} of them", scene.server.end_sessions().await?)))
            }
            Self::Cut => {
                let _storm = surroundings(scene);
                let members = some(scene, dice);
                for member in &members {
                    member.proxy.cut();
                }
                Ok(Some(names(&members)))
            }
            Self::Stalled => stall(scene, dice).await,
            Self::Lost => lose(scene, dice).await,
            Self::DiskFull => fill_disk(scene, dice).await,
            Self::ClockMoved => move_clock(scene, dice),
        }
    }
}

fn surroundings(scene: &Scene) -> UnderWay<'_> {
    scene.weather.begin(Scope::Surroundings)
}

fn short(dice: &mut StdRng) -> Duration {
    Duration::from_millis(dice.random_range(50..2_000))
}

/// A process of this kind that no other fault holds.
fn one<'a>(scene: &'a Scene, kind: Kind, dice: &mut StdRng) -> Option<Held<'a>> {
    let of_kind: Vec<&Member> = scene.members.iter().filter(|member| member.kind == kind).collect();
    let first = dice.random_range(0..of_kind.len());
    (0..of_kind.len()).find_map(|step| of_kind[(first + step) % of_kind.len()].try_hold())
}

/// One process, or all of them.
fn some<'a>(scene: &'a Scene, dice: &mut StdRng) -> Vec<&'a Member> {
    if dice.random_bool(0.5) {
        return scene.members.iter().collect();
    }
    scene.members.choose(dice).into_iter().collect()
}

fn names(members: &[&Member]) -> String {
    members.iter().map(|member| member.name()).collect::<Vec<_>>().join(", ")
}

async fn kill(scene: &Scene, kind: Kind, dice: &mut StdRng) -> Result<Option<String>> {
    let Some(mut held) = one(scene, kind, dice) else { return Ok(None) };
    let _storm = scene.weather.begin(Scope::Process(held.member.number));
    held.kill().await?;
    tokio::time::sleep(short(dice)).await;
    restart(scene, &mut held).await?;
    Ok(Some(held.member.name()))
}

async fn freeze(scene: &Scene, kind: Kind, time: Duration, dice: &mut StdRng) -> Result<Option<String>> {
    let Some(held) = one(scene, kind, dice) else { return Ok(None) };
    let _storm = scene.weather.begin(Scope::Process(held.member.number));
    held.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(time).await;
    held.signal(Signal::SIGCONT)?;
    held.member.becomes_ready(&scene.http, Duration::from_secs(60)).await?;
    tokio::time::sleep(AFTERMATH).await;
    Ok(Some(held.member.name()))
}

async fn with_postgres_unavailable(
    scene: &Scene,
    dice: &mut StdRng,
    end: impl AsyncFnOnce() -> Result<()>,
) -> Result<Option<String>> {
    let _storm = surroundings(scene);
    end().await?;
    tokio::time::sleep(short(dice)).await;
    let came_back = scene.server.revive().await?;
    Ok(Some(format!("it came back in {:.1} s", came_back.as_secs_f64())))
}

async fn stall(scene: &Scene, dice: &mut StdRng) -> Result<Option<String>> {
    let _storm = surroundings(scene);
    let members = some(scene, dice);
    for member in &members {
        member.proxy.stall(true);
    }
    tokio::time::sleep(Duration::from_millis(dice.random_range(1_000..7_000))).await;
    for member in &members {
        member.proxy.stall(false);
    }
    Ok(Some(names(&members)))
}

async fn lose(scene: &Scene, dice: &mut StdRng) -> Result<Option<String>> {
    let _storm = surroundings(scene);
    let members = some(scene, dice);
    for member in &members {
        member.proxy.lose();
    }
    tokio::time::sleep(UNTIL_RESET).await;
    for member in &members {
        member.proxy.cut();
    }
    tokio::time::sleep(AFTERMATH).await;
    Ok(Some(names(&members)))
}

/// Fills the disk, makes Postgres write, and frees the space again.
async fn fill_disk(scene: &Scene, dice: &mut StdRng) -> Result<Option<String>> {
    let disk = scene.disk.as_ref().context("there is no small disk")?;
    let ballast = disk.join("ballast");
    let _storm = surroundings(scene);
    let full = Duration::from_millis(dice.random_range(2_000..6_000));
    let begun = Instant::now();
    while begun.elapsed() < full {
        let (ballast, size) = (ballast.clone(), disk_size(disk));
        tokio::task::spawn_blocking(move || fill(&ballast, size)).await??;
        // Postgres can't continue without a new WAL segment.
        let _ = tokio::time::timeout(Duration::from_secs(1), switch_log(scene)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fs::remove_file(&ballast)?;
    let came_back = scene.server.revive().await?;
    Ok(Some(format!("it came back in {:.1} s", came_back.as_secs_f64())))
}

fn disk_size(disk: &Path) -> u64 {
    nix::sys::statvfs::statvfs(disk).map_or(0, |disk| disk.blocks() * disk.fragment_size())
}

/// Writes until the disk is full.
fn fill(ballast: &Path, at_most: u64) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(ballast)?;
    let mut piece = vec![0_u8; 64 * 1024];
    let mut written = 0;
    while written < at_most && piece.len() >= 4_096 {
        match file.write(&piece) {
            Ok(more) if more > 0 => written += u64::try_from(more)?,
            _ => piece.truncate(piece.len() / 2), // part of the piece may still fit
        }
    }
    Ok(())
}

async fn switch_log(scene: &Scene) -> Result<()> {
    let mut session = scene.server.session().await?;
    sqlx::query("select pg_switch_wal()").execute(&mut session).await?;
    Ok(())
}

fn move_clock(scene: &Scene, dice: &mut StdRng) -> Result<Option<String>> {
    let Some(member) = scene.members.choose(dice) else { return Ok(None) };
    let seconds = dice.random_range(-CLOCK_OFF..=CLOCK_OFF);
    member.set_clock(seconds)?;
    Ok(Some(format!("{} by {seconds} s", member.name())))
}
