//! How processes reach Postgres: directly, or through a pooler that gives a
//! session to a client for one transaction only (PgBouncer in transaction mode).
//!
//! Behind such a pooler a prepared statement of one transaction is not there in
//! the next, or is another client's. So every statement there is unnamed, and
//! prepared and executed within one transaction; nothing is set on sessions; and
//! LISTEN has a way of its own, or is left out.
//!
//! Which server that is may change meanwhile: see `kin.rs`.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, Connection as _, PgPool,
    pool::PoolConnectionMetadata,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{connection::Connection, kin::Kin, listener::Listener, patience::in_time};

/// How long a caller waits for a connection before it is told that Postgres is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that was seen to live this short a time ago is not looked at before it is used.
const FRESH: Duration = Duration::from_secs(1);

/// How long a statement may take, where nobody says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A session that holds a transaction open and says nothing for so long is
/// ended by Postgres: its process is frozen, or gone without a word, and whoever
/// wants what it has locked would wait for as long.
const NO_LONG_SILENCE: &str = "set idle_in_transaction_session_timeout = '10s'";

/// Where LISTEN goes.
#[derive(Clone, Default)]
pub enum Listen {
    /// To the database itself, which is reached directly.
    #[default]
    Directly,
    /// Directly, while everything else goes through a pooler.
    At(Box<PgConnectOptions>),
    /// Nowhere: polling alone.
    Off,
}

/// Without the options, which hold a password.
impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directly => "Directly",
            Self::At(_) => "At",
            Self::Off => "Off",
        })
    }
}

/// Postgres, as a process reaches it; clones share the connections.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    listen: Listen,
    listen_pool: Option<PgPool>,
    /// Every pool that was made from the same [`Database::new`].
    kin: Arc<Kin>,
    /// How long a statement may take.
    patience: Duration,
}

/// Connections of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// In use.
    pub used: u32,
    /// Open, and not in use.
    pub idle: u32,
    /// The most there may be.
    pub max: u32,
}

impl Database {
    /// At most `connections` (and one for LISTEN, where that goes elsewhere), none of them made yet.
    pub fn new(options: PgConnectOptions, listen: Listen, connections: u32) -> Self {
        // A pooler refuses start-up parameters it does not know; nothing here reads floats as text.
        let options = options.extra_float_digits(None);
        // Statements that are never named need no cache.
        let pooled = !matches!(listen, Listen::Directly);
        let options = if pooled { options.statement_cache_capacity(0) } else { options };
        let kin: Arc<Kin> = Arc::default();
        let mut with = pool_options(connections, &kin);
        if !pooled {
            with = with_settings(with, NO_LONG_SILENCE.to_owned());
        }
        Self::of(with.connect_lazy_with(options), listen, kin)
    }

    fn of(pool: PgPool, listen: Listen, kin: Arc<Kin>) -> Self {
        let listen_pool = match &listen {
            Listen::Directly => Some(pool.clone()),
            Listen::At(options) => Some(pool_options(1, &kin).connect_lazy_with(*options.clone())),
            Listen::Off => None,
        };
        kin.join(pool.clone());
        if let (Listen::At(_), Some(listen_pool)) = (&listen, &listen_pool) {
            kin.join(listen_pool.clone());
        }
        Self { pool, listen, listen_pool, kin, patience: PATIENCE }
    }

    /// The same connections; a statement that takes longer is given up, and its
    /// connection with it: Postgres is gone without a word, or somebody holds on to
    /// what the statement waits for. It may have happened all the same.
    #[must_use]
    pub fn answers_within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same Postgres, with connections of its own that plan each statement
    /// once, and with `settings` besides: `set … = …`, separated by semicolons.
    ///
    /// A plan for the values at hand looks cheaper than the one that serves all,
    /// so Postgres would plan a statement anew each time, which takes longer than
    /// a short one runs. Behind a pooler sessions are not ours to set.
    pub fn planned_once(&self, connections: u32, settings: &'static str) -> Self {
        let mut with = pool_options(connections, &self.kin);
        if !self.is_pooled() {
            // Nor is it worth compiling for each time, whatever it might cost.
            let once = "set plan_cache_mode = force_generic_plan; set jit = off";
            with = with_settings(with, format!("{NO_LONG_SILENCE}; {once}; {settings}"));
        }
        let pool = with.connect_lazy_with(self.pool.connect_options().as_ref().clone());
        Self::of(pool, self.listen.clone(), self.kin.clone()).answers_within(self.patience)
    }

    /// Whether a pooler stands in between.
    pub fn is_pooled(&self) -> bool {
        !matches!(self.listen, Listen::Directly)
    }

    /// Whether NOTIFY can be heard.
    pub fn listens(&self) -> bool {
        self.listen_pool.is_some()
    }

    /// For reading, or for one statement followed by [`Connection::commit`].
    pub async fn acquire(&self) -> sqlx::Result<Connection> {
        if self.is_pooled() {
            return self.begin().await;
        }
        Ok(Connection::bare(self.pool.acquire().await?, self.patience, self.kin.clone()))
    }

    /// A transaction: dropped without [`Connection::commit`] nothing of it happened.
    pub async fn begin(&self) -> sqlx::Result<Connection> {
        let begun = in_time(self.patience, self.pool.begin()).await?;
        Ok(Connection::transaction(begun, !self.is_pooled(), self.patience, self.kin.clone()))
    }

    /// A connection that listens to these channels; `None` where LISTEN is off.
    pub async fn listener(&self, channels: &[&str]) -> sqlx::Result<Option<Listener>> {
        let Some(pool) = &self.listen_pool else { return Ok(None) };
        Listener::listen(pool, &self.kin, channels).await.map(Some)
    }

    /// The connections themselves, for who counts them.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// All connections of this process: these, and those planned once, the queue's included.
    pub fn connections(&self) -> Connections {
        let idle = self.kin.each(|pool| u32::try_from(pool.num_idle()).unwrap_or(u32::MAX)).into_iter().sum();
        let open: u32 = self.kin.each(PgPool::size).into_iter().sum();
        let max = self.kin.each(|pool| pool.options().get_max_connections()).into_iter().sum();
        Connections { used: open.saturating_sub(idle), idle, max }
    }

    /// Closes the connections; a Postgres that does not answer is left after five seconds.
    pub async fn close(&self) {
        let closing = async {
            if let Some(pool) = &self.listen_pool {
                pool.close().await;
            }
            self.pool.close().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), closing).await;
    }
}

/// Reached directly.
impl From<PgPool> for Database {
    fn from(pool: PgPool) -> Self {
        Self::of(pool, Listen::Directly, Arc::default())
    }
}

fn pool_options(connections: u32, kin: &Arc<Kin>) -> PgPoolOptions {
    // It has the pools in turn: with more than this none of them would ever end.
    let (kin, of_released) = (Arc::downgrade(kin), Arc::downgrade(kin));
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A look at each connection before each use is a round trip for every
        // request; the pool looks again when it takes the connection back anyway.
        .test_before_acquire(false)
        .before_acquire(move |conn, meta| {
            let kin = kin.upgrade();
            Box::pin(async move {
                let Some(kin) = kin else { return Ok(true) };
                if is_over(&kin, &meta) {
                    return Ok(false);
                }
                Ok(meta.idle_for <= FRESH || kin.takes_writes(conn).await?)
            })
        })
        // The pool's own look at a connection that comes back has no time limit: one
        // whose Postgres is gone without a word would be missing for a quarter of an hour.
        .after_release(move |conn, meta| {
            let kin = of_released.upgrade();
            Box::pin(async move {
                let looked = async {
                    match kin {
                        Some(kin) if is_over(&kin, &meta) => Ok(false),
                        Some(kin) if kin.look_is_due() => kin.takes_writes(conn).await,
                        _ => conn.ping().await.map(|()| true),
                    }
                };
                tokio::time::timeout(ACQUIRE_TIMEOUT, looked).await.map_err(|_| sqlx::Error::PoolTimedOut)?
            })
        })
}

/// Sessions begin with these: `set … = …`, separated by semicolons, in one round trip.
fn with_settings(options: PgPoolOptions, settings: String) -> PgPoolOptions {
    options.after_connect(move |conn, _| {
        let settings = AssertSqlSafe(settings.clone());
        Box::pin(async move { sqlx::raw_sql(settings).execute(conn).await.map(drop) })
    })
}

fn is_over(kin: &Kin, connection: &PoolConnectionMetadata) -> bool {
    Instant::now().checked_sub(connection.age).is_some_and(|made| kin.is_over(made))
}
