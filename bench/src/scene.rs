//! The databases of a run and the processes on them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use sandbox::{
    postgres::PrivatePostgres,
    stripe::{FakeStripe, FakeStripeConfig},
};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};

use crate::{
    kit::Kit,
    pgbench,
    processes::{Process, free_address},
    results::Sample,
    rows::Row,
    seeds,
    wrk::{self, Load},
};

/// The secret that signs the fake Stripe's events.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_bench";
/// Warm-up of a service before its first load is measured.
const WARM_UP_SECONDS: u32 = 1;
/// The maximum wait for autovacuum.
const LONGEST_VACUUM: Duration = Duration::from_secs(30);

/// The state shared by all parts.
pub(crate) struct Scene {
    pub(crate) postgres: PrivatePostgres,
    pub(crate) kit: Kit,
    /// The selected rows.
    pub(crate) rows: Vec<&'static Row>,
    /// The duration of each load.
    pub(crate) seconds: u32,
    pub(crate) products: BTreeMap<&'static str, Product>,
    pub(crate) worker: Option<Process>,
    pub(crate) fake_stripe: Option<FakeStripe>,
    /// The databases of graphile-worker, Fastify and pgbench.
    pub(crate) peers: BTreeMap<&'static str, PgPool>,
    pub(crate) fastify: Option<Service>,
    /// A client without keep-alive, which checks whether a process responds.
    pub(crate) client: Client,
}

/// A process that responds.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) address: String,
}

/// A database of the product, and an api on it.
pub(crate) struct Product {
    pub(crate) pool: PgPool,
    pub(crate) api: Service,
    /// A file with the ids of its first carts, one per line.
    pub(crate) ids: PathBuf,
}

impl Scene {
    /// An empty scene.
    pub(crate) fn new(postgres: PrivatePostgres, kit: Kit, rows: Vec<&'static Row>, seconds: u32) -> Result<Self> {
        Ok(Self {
            postgres,
            kit,
            rows,
            seconds,
            products: BTreeMap::new(),
            worker: None,
            fake_stripe: None,
            peers: BTreeMap::new(),
            fastify: None,
            client: Client::builder().no_proxy().pool_max_idle_per_host(0).build()?,
        })
    }

    /// The version, for example `PostgreSQL 15.18`. Checks that the server is durable.
    pub(crate) async fn postgres_version(&self) -> Result<String> {
        let mut conn = PgConnection::connect(&self.postgres.url("postgres")).await?;
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value: String =
                sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&mut conn).await?;
            ensure!(value == "on", "Postgres is not durable: {setting} is {value}");
        }
        let version: String = sqlx::query_scalar("show server_version").fetch_one(&mut conn).await?;
        conn.close().await?;
        Ok(format!("PostgreSQL {}", version.split_whitespace().next().unwrap_or_default()))
    }

    /// Ends all processes and Postgres.
    pub(crate) async fn end(mut self) -> Result<()> {
        let apis = std::mem::take(&mut self.products).into_values().map(|product| product.api.process);
        for process in apis.chain(self.worker.take()).chain(self.fastify.take().map(|service| service.process)) {
            process.end().await?;
        }
        self.postgres.stop().await
    }

    pub(crate) fn wants(&self, row: &str) -> bool {
        self.rows.iter().any(|wanted| wanted.name == row)
    }

    /// Creates a database of the product with this many carts, unless it exists.
    pub(crate) async fn prepare_product(&mut self, database: &'static str, carts: i64) -> Result<()> {
        if self.products.contains_key(database) {
            return Ok(());
        }
        eprintln!("a database with {carts} carts …");
        self.postgres.ensure_database(database).await?;
        let pool = PgPoolOptions::new().max_connections(1).connect(&self.postgres.url(database)).await?;
        common::db::prepare(&pool.clone().into()).await?;
        seeds::carts(&pool, carts).await?;
        let ids: Vec<String> = match carts {
            0..=1_000_000 => sqlx::query_scalar("select id from carts").fetch_all(&pool).await?,
            _ => Vec::new(), // no row reads them
        };
        let file = self.kit.folder.join(format!("{database}.ids"));
        std::fs::write(&file, ids.iter().flat_map(|id| [id.as_str(), "\n"]).collect::<String>())?;
        let address = free_address()?;
        let process = self.start_api(database, &address)?;
        let mut api = Service { process, address };
        api.process.answers(&self.client, &api.address, "/readyz", Duration::from_millis(20)).await?;
        self.products.insert(database, Product { pool, api, ids: file });
        Ok(())
    }

    /// Starts an api as for production, but without the rate limit and with a quiet log.
    pub(crate) fn start_api(&self, database: &str, address: &str) -> Result<Process> {
        let variables = [
            ("DATABASE_URL", self.postgres.url(database)),
            ("API_KEY", "bench".to_owned()),
            ("BIND_ADDR", address.to_owned()),
            ("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
            ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
            ("RUST_LOG", "warn".to_owned()),
        ];
        let folder = &self.kit.folder;
        Process::start(&folder.join("api"), &[], &variables, folder, &format!("api-{database}"))
    }

    /// Starts a worker and the fake Stripe that it needs.
    pub(crate) async fn prepare_worker(&mut self, database: &str) -> Result<()> {
        if self.worker.is_none() {
            self.prepare_fake_stripe().await?;
            self.worker = Some(self.start_worker(database).await?);
        }
        Ok(())
    }

    /// Starts a fake Stripe in this process, unless there is one.
    pub(crate) async fn prepare_fake_stripe(&mut self) -> Result<()> {
        if self.fake_stripe.is_some() {
            return Ok(());
        }
        let fake_stripe = FakeStripe::start(FakeStripeConfig {
            bind_addr: "127.0.0.1:0".parse()?,
            public_url: None,
            webhook_url: None,
            webhook_secret: WEBHOOK_SECRET.to_owned(),
            file: None,
            clock: common::clock::Clock::system(),
        })
        .await?;
        self.fake_stripe = Some(fake_stripe);
        Ok(())
    }

    /// Starts a worker that calls the fake Stripe and never expires carts.
    pub(crate) async fn start_worker(&self, database: &str) -> Result<Process> {
        let fake_stripe = self.fake_stripe.as_ref().context("there is no fake Stripe")?;
        let variables = [
            ("DATABASE_URL", self.postgres.url(database)),
            ("STRIPE_SECRET_KEY", "sk_test_bench".to_owned()),
            ("STRIPE_API_URL", fake_stripe.url()),
            ("STRIPE_RATE", "0".to_owned()),
            ("HEALTH_ADDR", free_address()?),
            ("CART_TTL", "36500d".to_owned()),
            ("RUST_LOG", "warn".to_owned()),
        ];
        let folder = &self.kit.folder;
        let mut worker = Process::start(&folder.join("worker"), &[], &variables, folder, "worker")?;
        worker.answers(&self.client, &variables[4].1, "/readyz", Duration::from_millis(20)).await?;
        Ok(worker)
    }

    pub(crate) fn product(&self, database: &str) -> Result<&Product> {
        self.products.get(database).with_context(|| format!("the database {database} was not prepared"))
    }

    /// Creates a peer's tables by scripts, unless they exist.
    pub(crate) async fn prepare_peer(&mut self, database: &'static str, scripts: &[&'static str]) -> Result<PgPool> {
        if let Some(pool) = self.peers.get(database) {
            return Ok(pool.clone());
        }
        eprintln!("the peers' database {database} …");
        self.postgres.ensure_database(database).await?;
        let pool = PgPoolOptions::new().max_connections(1).connect(&self.postgres.url(database)).await?;
        for script in scripts {
            seeds::run_script(&pool, script).await?;
        }
        self.peers.insert(database, pool.clone());
        Ok(pool)
    }

    /// Waits for autovacuum and runs a checkpoint, so that earlier writes don't slow down the next
    /// side.
    pub(crate) async fn settle(&self) -> Result<()> {
        const VACUUMS: &str = "select count(*) from pg_stat_activity where backend_type = 'autovacuum worker'";
        let pool = self.products.values().map(|product| &product.pool).chain(self.peers.values()).next();
        let pool = pool.context("nothing was prepared")?;
        let begun = Instant::now();
        while sqlx::query_scalar::<_, i64>(VACUUMS).fetch_one(pool).await? > 0 && begun.elapsed() < LONGEST_VACUUM {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        sqlx::query("checkpoint").execute(pool).await?;
        Ok(())
    }

    /// Runs a load on `address`; returns requests per second.
    pub(crate) async fn load(&self, address: &str, load: Load) -> Result<f64> {
        self.settle().await?;
        Ok(wrk::run(&self.kit, address, &load, self.seconds).await?.per_second())
    }

    /// Warms a service up; this is not measured.
    pub(crate) async fn warm_up(&self, address: &str, load: Load) -> Result<()> {
        wrk::run(&self.kit, address, &load, WARM_UP_SECONDS).await?;
        Ok(())
    }

    /// Runs a pgbench script; returns transactions per second.
    pub(crate) async fn pgbench(&self, script: &str, clients: u32) -> Result<f64> {
        self.settle().await?;
        pgbench::run(&self.kit, &self.postgres.url("pgbench"), script, clients, self.seconds).await
    }
}

/// Measures both sides back to back; the first side alternates by round.
pub(crate) async fn both(
    round: u32,
    ours: impl Future<Output = Result<f64>>,
    theirs: impl Future<Output = Result<f64>>,
) -> Result<Sample> {
    let (ours, theirs) = if round % 2 == 1 {
        let ours = ours.await?;
        (ours, theirs.await?)
    } else {
        let theirs = theirs.await?;
        (ours.await?, theirs)
    };
    Ok(Sample { ours, theirs })
}
