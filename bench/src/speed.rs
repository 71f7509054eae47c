//! The full run: all preparation first, then the rounds.

use anyhow::{Context, Result};
use clap::Args;
use common::clock::Clock;
use sandbox::postgres::PrivatePostgres;

use crate::{
    fastify, http_rows, import_row,
    kit::Kit,
    link,
    machine::{Machine, fdatasync},
    memory, queue_rows,
    results::{Results, Sample, Trouble},
    rows::{self, Part, Row},
    scene::Scene,
    table, webhooks,
};

/// The options of a run.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Only these rows, by name or by how names begin: post,get,fastify
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    pub(crate) only: Vec<String>,
    /// How often each pair is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long each load lasts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
}

/// A prepared run.
pub(crate) struct Run {
    options: Options,
    rows: Vec<&'static Row>,
    machine: Machine,
    kit: Kit,
}

/// The results of a run.
pub(crate) struct Report {
    pub(crate) rows: Vec<&'static Row>,
    pub(crate) results: Results,
    /// The machine, time and settings.
    pub(crate) heading: String,
}

impl Run {
    /// Prepares the run while the process still has root.
    pub(crate) fn plan(options: Options, folder: &std::path::Path) -> Result<Self> {
        let rows = rows::select(&options.only).map_err(anyhow::Error::msg)?;
        let machine = Machine::look();
        let kit = Kit::pack(folder, &parts(&rows))?;
        Ok(Self { options, rows, machine, kit })
    }

    pub(crate) async fn measure(self, postgres: PrivatePostgres) -> Result<Report> {
        let Self { options, rows, machine, kit } = self;
        let mut scene = Scene::new(postgres, kit, rows.clone(), options.seconds)?;
        let version = scene.postgres_version().await?;
        let (mut results, mut parts) = (Results::new(), parts(&rows));
        let give_up = |results: &mut Results, part: Part, error: &anyhow::Error| {
            eprintln!("{part:?}: {error:#}");
            for row in rows.iter().filter(|row| row.part == part) {
                results.entry(row.name).or_default().trouble = Some(trouble(error));
            }
        };
        let mut prepared = Vec::new();
        for part in parts.drain(..) {
            match prepare(part, &mut scene).await {
                Ok(()) => prepared.push(part),
                Err(error) => give_up(&mut results, part, &error),
            }
        }
        let mut weather = Vec::new();
        for round in 1..=options.rounds {
            weather.push(fdatasync(&scene.kit.folder)?);
            let mut left = Vec::new();
            for part in prepared {
                eprintln!("round {round} of {}: {part:?}", options.rounds);
                match take_round(part, &scene, round).await {
                    Ok(samples) => {
                        for (row, sample) in samples {
                            results.entry(row).or_default().samples.push(sample);
                        }
                        left.push(part);
                    }
                    Err(error) => give_up(&mut results, part, &error),
                }
            }
            prepared = left;
        }
        let heading = heading(&options, &machine.describe(&version), &weather);
        scene.end().await?;
        Ok(Report { rows, results, heading })
    }
}

impl Report {
    /// The heading, the table, and the failures.
    pub(crate) fn markdown(&self) -> String {
        let mut page = format!("{}\n\n{}", self.heading, table::markdown(&self.rows, &self.results));
        for failure in self.failures() {
            page.push_str(&format!("\nFailed: {}\n", failure.replace('\n', " ")));
        }
        page
    }

    /// The reasons why rows have no results.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failure = |(row, outcome): (&&str, &crate::results::Outcome)| match &outcome.trouble {
            Some(Trouble::Failed(why)) => Some(format!("{row}: {why}")),
            _ => None,
        };
        self.results.iter().filter_map(failure).collect()
    }
}

fn parts(rows: &[&'static Row]) -> Vec<Part> {
    let mut parts: Vec<Part> = rows.iter().map(|row| row.part).collect();
    parts.dedup();
    parts
}

fn trouble(error: &anyhow::Error) -> Trouble {
    match error.downcast_ref::<Trouble>() {
        Some(trouble) => trouble.clone(),
        None => Trouble::Failed(format!("{error:#}")),
    }
}

fn heading(options: &Options, machine: &str, weather: &[f64]) -> String {
    let weather: Vec<String> = weather.iter().map(|milliseconds| format!("{milliseconds:.2} ms")).collect();
    format!(
        "{}.\n{machine}.\nRounds: {}, of {} s a load; fdatasync, median by round: {}.\nThe api runs with \
         `RATE_LIMIT_PER_MINUTE=0` and `RUST_LOG=warn`, the worker with `STRIPE_RATE=0`.",
        Clock::system().now().format("%Y-%m-%d %H:%M UTC"),
        options.rounds,
        options.seconds,
        weather.join(", ")
    )
}

async fn prepare(part: Part, scene: &mut Scene) -> Result<()> {
    match part {
        Part::Post => http_rows::prepare_post(scene).await,
        Part::Get | Part::List | Part::Pages => http_rows::prepare_million(scene).await,
        Part::Analytics => http_rows::prepare_analytics(scene).await,
        Part::Queue => queue_rows::prepare(scene).await,
        Part::Link => link::prepare(scene).await,
        Part::Webhooks => webhooks::prepare(scene).await,
        Part::Import => import_row::prepare(scene).await,
        Part::Fastify => fastify::prepare(scene).await,
        Part::Start => fastify::prepare_start(scene).await,
        Part::Memory => memory::prepare(scene).await,
    }
    .context("preparing")
}

async fn take_round(part: Part, scene: &Scene, round: u32) -> Result<Vec<(&'static str, Sample)>> {
    let one = |name, sample: Result<Sample>| sample.map(|sample| vec![(name, sample)]);
    match part {
        Part::Post => one("post", http_rows::post(scene, round).await),
        Part::Get => one("get", http_rows::get(scene, round).await),
        Part::List => one("list", http_rows::list(scene, round).await),
        Part::Pages => http_rows::pages(scene, round).await,
        Part::Analytics => one("analytics", http_rows::analytics(scene, round).await),
        Part::Queue => queue_rows::take(scene, round).await,
        Part::Link => one("link", link::take(scene, round).await),
        Part::Webhooks => one("webhooks", webhooks::take(scene, round).await),
        Part::Import => one("import", import_row::take(scene, round).await),
        Part::Fastify => fastify::take(scene, round).await,
        Part::Start => one("start", fastify::cold_start(scene, round).await),
        Part::Memory => memory::take(scene),
    }
}
