//! The rows of the table: the comparisons and their targets.

/// One comparison.
#[derive(Debug)]
pub(crate) struct Row {
    /// The name for `--only`.
    pub(crate) name: &'static str,
    pub(crate) part: Part,
    pub(crate) what: &'static str,
    pub(crate) against: &'static str,
    /// The unit of both sides.
    pub(crate) unit: Unit,
    pub(crate) compare: Compare,
    /// The target: a minimum ratio, or a maximum value; `None` if there is none.
    pub(crate) wanted: Option<f64>,
}

/// The unit of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    Mebibytes,
}

/// How the values of both sides are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Rates: ours ÷ theirs.
    Rates,
    /// Waits: theirs ÷ ours, so that more is better.
    Waits,
    /// Ours alone; less is better.
    Alone,
}

impl Compare {
    /// Whether more is better.
    pub(crate) fn is_ratio(self) -> bool {
        matches!(self, Self::Rates | Self::Waits)
    }
}

/// Rows measured together because they share their preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Post,
    Get,
    List,
    Pages,
    Analytics,
    Queue,
    Link,
    Webhooks,
    Import,
    Fastify,
    Start,
    Memory,
}

/// The rows, in the order of the table and of the run.
pub(crate) const ROWS: [Row; 19] = [
    rates("post", Part::Post, "`POST /api/carts`, 32 connections", "pgbench inserting the same row, 32 clients", 0.60),
    rates(
        "get",
        Part::Get,
        "`GET /api/carts/:id`, random of 1,000,000, 32 connections",
        "pgbench selecting by key, 32 clients",
        0.50,
    ),
    rates(
        "list",
        Part::List,
        "`GET /api/carts?status=abandoned&limit=10` with its exact total, 1,000,000 carts, 8 connections",
        "pgbench selecting such a page, no count, 8 clients",
        0.35,
    ),
    rates("cursor50k", Part::Pages, "the 50,000th page by `cursor`, 8 connections", "the first page", 0.90),
    rates(
        "analytics",
        Part::Analytics,
        "`GET /api/analytics?period=90d`, 10,000,000 carts, 8 connections",
        "the same, 10,000 carts",
        0.67,
    ),
    rates(
        "drain",
        Part::Queue,
        "20,000 no-op jobs, one worker, 256 at once",
        "graphile-worker in batch mode, one process",
        1.1,
    ),
    Row { wanted: None, ..rates("drain-64", Part::Queue, "the same, 64 at once", "the same", 0.0) },
    rates("enqueue", Part::Queue, "enqueueing by the thousand", "graphile-worker's `addJobs` by the thousand", 1.0),
    waits("pickup", Part::Queue, "idle pickup, commit to start, median", "graphile-worker's", 1.0),
    waits("pickup-p99", Part::Queue, "idle pickup, commit to start, p99", "graphile-worker's", 1.0),
    waits(
        "link",
        Part::Link,
        "`POST …/payment-link` through api, worker and the fake Stripe, 16 at once, median",
        "the fake Stripe alone",
        1.0 / 15.0,
    ),
    rates(
        "webhooks",
        Part::Webhooks,
        "10,000 signed deliveries, one in five a repeat, 32 connections",
        "pgbench updating one of 1,000,000 rows by key, 32 clients",
        0.30,
    ),
    rates("import", Part::Import, "`POST /api/carts/import`, 200,000 lines", "`COPY` of the same rows", 0.25),
    rates("fastify-create", Part::Fastify, "creating, 32 connections, 100,000 carts", "the Fastify service", 1.5),
    rates("fastify-get", Part::Fastify, "getting by id, 32 connections, 100,000 carts", "the Fastify service", 1.5),
    rates(
        "fastify-list",
        Part::Fastify,
        "a list of ten with its exact total, 32 connections, 100,000 carts",
        "the Fastify service, no total",
        1.5,
    ),
    waits(
        "start",
        Part::Start,
        "cold start of the api to its first 200, migrated database",
        "the Fastify service",
        5.0,
    ),
    memory("memory-api", "peak resident memory of an api after all this"),
    memory("memory-worker", "peak resident memory of the worker after all this"),
];

const fn rates(name: &'static str, part: Part, what: &'static str, against: &'static str, wanted: f64) -> Row {
    Row { name, part, what, against, unit: Unit::PerSecond, compare: Compare::Rates, wanted: Some(wanted) }
}

const fn waits(name: &'static str, part: Part, what: &'static str, against: &'static str, wanted: f64) -> Row {
    Row { name, part, what, against, unit: Unit::Milliseconds, compare: Compare::Waits, wanted: Some(wanted) }
}

const fn memory(name: &'static str, what: &'static str) -> Row {
    let wanted = Some(64.0);
    Row { name, part: Part::Memory, what, against: "", unit: Unit::Mebibytes, compare: Compare::Alone, wanted }
}

/// The names of the rows with what each measures.
pub(crate) fn help() -> String {
    let line = |row: &Row| format!("  {:16}{}\n", row.name, row.what.replace('`', ""));
    format!("Rows:\n{}", ROWS.iter().map(line).collect::<String>())
}

/// The rows whose names begin with one of `only`; all rows if `only` is empty.
///
/// # Errors
/// The first entry that matches no row.
pub(crate) fn select(only: &[String]) -> Result<Vec<&'static Row>, String> {
    let fits = |row: &Row, wish: &str| row.name == wish || row.name.starts_with(&format!("{wish}-"));
    if let Some(unknown) = only.iter().find(|wish| !ROWS.iter().any(|row| fits(row, wish))) {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("there is no row {unknown}; there are {}", names.join(", ")));
    }
    Ok(ROWS.iter().filter(|row| only.is_empty() || only.iter().any(|wish| fits(row, wish))).collect())
}
