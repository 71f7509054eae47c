//! The pool of connections of a process, direct or through a pooler that lends a session for one
//! transaction only (PgBouncer in transaction mode).
//!
//! Behind such a pooler a prepared statement of one transaction is missing in the next, or belongs
//! to another client. Every statement there is unnamed, and prepared and executed within one
//! transaction; sessions have no settings; LISTEN uses a connection of its own, or is off.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use deadpool::managed::{Object, PoolError, QueueMode, Timeouts};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    connection::Connection,
    connector::{ACQUIRE_TIMEOUT, CLIENT_CHECK_INTERVAL, Connector, Pool},
    failover::FailoverGuard,
    listener::Listener,
    notifier::Notifier,
};
use crate::mutex::lock;

/// Default timeout of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Postgres ends a session that is idle in a transaction for 10 s: its client is frozen or
/// unreachable, and other sessions wait for its locks.
const IDLE_IN_TRANSACTION: &str = "set idle_in_transaction_session_timeout = '10s'";

/// Where LISTEN connects.
#[derive(Clone, Default)]
pub enum Listen {
    /// To the same address as everything else, which is Postgres itself.
    #[default]
    Directly,
    /// To this address, while everything else goes through a pooler.
    At(Box<PgConnectOptions>),
    /// LISTEN is off; jobs are found by polling only.
    Off,
}

/// Omits the options, which contain a password.
impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directly => "Directly",
            Self::At(_) => "At",
            Self::Off => "Off",
        })
    }
}

/// A pool of connections to Postgres. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Database {
    pool: Pool,
    pools: Arc<Pools>,
    statement_timeout: Duration,
}

/// All pools of a process that reach the same Postgres.
#[derive(Debug)]
struct Pools {
    options: PgConnectOptions,
    listen: Listen,
    failover: Arc<FailoverGuard>,
    notifier: Arc<Notifier>,
    all: Mutex<Vec<Pool>>,
    /// Holds the connection for LISTEN; sqlx' listener needs a pool of sqlx' own type.
    listen_pool: Option<PgPool>,
}

/// Number of connections of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// In use.
    pub used: u32,
    /// Open, and not in use.
    pub idle: u32,
    /// Maximum number of open connections.
    pub max: u32,
}

impl Database {
    /// A pool of at most `connections`, and one more connection for LISTEN. Connections are opened
    /// on first use.
    pub fn new(options: PgConnectOptions, listen: Listen, connections: u32) -> Self {
        // A pooler rejects unknown start-up parameters; nothing here reads floats as text.
        let options = options.extra_float_digits(None);
        // Statements without a name need no cache.
        let is_direct = matches!(listen, Listen::Directly);
        let options = if is_direct { options } else { options.statement_cache_capacity(0) };
        let pools = Pools::new(options, listen);
        Self::open(pools, connections, STATEMENT_TIMEOUT, IDLE_IN_TRANSACTION)
    }

    fn open(pools: Arc<Pools>, connections: u32, statement_timeout: Duration, settings: &str) -> Self {
        // Sessions of a pooler are shared, so they get no settings.
        let settings = match pools.listen {
            Listen::Directly => {
                // Postgres 14 has it on Linux only; other servers go on without.
                let interval = CLIENT_CHECK_INTERVAL.as_millis();
                format!(
                    "do $$ begin set client_connection_check_interval = {interval};
                     exception when invalid_parameter_value then null; end $$; {settings}"
                )
            }
            Listen::At(_) | Listen::Off => String::new(),
        };
        let connector = Connector { options: pools.options.clone(), settings, failover: pools.failover.clone() };
        let pool = Pool::builder(connector)
            .max_size(usize::try_from(connections).unwrap_or(usize::MAX))
            .queue_mode(QueueMode::Lifo)
            .build()
            .expect("only timeouts need a runtime, and none is set");
        lock(&pools.all).push(pool.clone());
        Self { pool, pools, statement_timeout }
    }

    /// The same connections with another timeout for statements. A statement that exceeds it fails,
    /// but may still take effect.
    #[must_use]
    pub fn with_statement_timeout(self, statement_timeout: Duration) -> Self {
        Self { statement_timeout, ..self }
    }

    /// A separate pool to the same Postgres whose sessions use generic plans, so that each
    /// statement is planned once, and looks up each row in an index, also if its plan was made while the
    /// table was empty. (Then a scan of everything is the cheapest, and so is a join that reads a whole
    /// index.) `settings` are further `set … = …`, separated by semicolons; there may be none.
    ///
    /// By default Postgres prefers custom plans, whose estimated cost is lower, and plans a
    /// statement at each execution, which takes longer than a short statement runs. Sessions of a
    /// pooler get no settings.
    pub fn planned_once(&self, connections: u32, settings: &'static str) -> Self {
        const BY_INDEX: &str = "set plan_cache_mode = force_generic_plan; set jit = off; set enable_seqscan = off; \
                                set enable_hashjoin = off; set enable_mergejoin = off";
        let settings = format!("{IDLE_IN_TRANSACTION}; {BY_INDEX}; {settings}");
        Self::open(self.pools.clone(), connections, self.statement_timeout, &settings)
    }

    /// Whether a pooler is between this process and Postgres.
    pub fn is_pooled(&self) -> bool {
        !matches!(self.pools.listen, Listen::Directly)
    }

    /// Whether LISTEN is on.
    pub fn listens(&self) -> bool {
        self.pools.listen_pool.is_some()
    }

    /// The address, role and password of Postgres.
    pub fn options(&self) -> &PgConnectOptions {
        &self.pools.options
    }

    /// A connection in autocommit mode, or a transaction behind a pooler: call
    /// [`Connection::commit`] after writing in either case.
    pub async fn acquire(&self) -> sqlx::Result<Connection> {
        if self.is_pooled() {
            return self.begin().await;
        }
        self.connection().await
    }

    /// A second connection for a caller that has one, if one is free at once. Waiting for it could be a deadlock. Behind
    /// a pooler there is none, because its sessions are shared with other processes that may do the same.
    pub async fn acquire_spare(&self) -> Option<Connection> {
        if self.is_pooled() {
            return None;
        }
        let session = self.pool.timeout_get(&Timeouts::wait_millis(0)).await.ok()?;
        Some(self.of(session))
    }

    /// Begins a transaction. Dropping it without [`Connection::commit`] rolls it back.
    pub async fn begin(&self) -> sqlx::Result<Connection> {
        let mut connection = self.connection().await?;
        connection.begin(None).await?;
        Ok(connection)
    }

    /// Like [`Database::begin`]. A statement that waits for a lock longer than `lock_wait` fails with
    /// SQLSTATE 55P03.
    pub async fn begin_with_lock_wait(&self, lock_wait: Duration) -> sqlx::Result<Connection> {
        let mut connection = self.connection().await?;
        connection.begin(Some(lock_wait)).await?;
        Ok(connection)
    }

    async fn connection(&self) -> sqlx::Result<Connection> {
        let session = tokio::time::timeout(ACQUIRE_TIMEOUT, self.pool.get()).await;
        let session = session.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                sqlx::Error::PoolTimedOut
            }
        })?;
        Ok(self.of(session))
    }

    fn of(&self, session: Object<Connector>) -> Connection {
        let (failover, notifier) = (self.pools.failover.clone(), self.pools.notifier.clone());
        Connection::new(session, !self.is_pooled(), self.statement_timeout, failover, notifier)
    }

    /// A connection that listens to these channels; `None` if LISTEN is off.
    pub async fn listener(&self, channels: &[&str]) -> sqlx::Result<Option<Listener>> {
        let Some(pool) = &self.pools.listen_pool else { return Ok(None) };
        Listener::listen(pool, &self.pools.failover, channels).await.map(Some)
    }

    /// Stores that the server has just accepted a statement which a read-only server rejects, so that
    /// no connection in constant use has to be checked for some seconds.
    pub(crate) fn is_writable(&self) {
        self.pools.failover.checked();
    }

    /// Number of connections of all pools of this process to this Postgres.
    pub fn connections(&self) -> Connections {
        let mut sum = Connections { used: 0, idle: 0, max: 0 };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        for pool in &*lock(&self.pools.all) {
            let status = pool.status();
            sum.used += count(status.size.saturating_sub(status.available));
            sum.idle += count(status.available);
            sum.max += count(status.max_size);
        }
        if let Some(pool) = &self.pools.listen_pool {
            sum.used += pool.size();
            sum.max += 1;
        }
        sum
    }

    /// Whether [`Database::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    /// Closes the idle connections of this pool now, and the others when they return.
    pub fn close(&self) {
        self.pool.close();
    }
}

impl Pools {
    fn new(options: PgConnectOptions, listen: Listen) -> Arc<Self> {
        let to_listen = match &listen {
            Listen::Directly => Some(options.clone()),
            Listen::At(options) => Some(*options.clone()),
            Listen::Off => None,
        };
        // Each listener opens a connection: one that is dropped may lead to a read-only server.
        let one = || PgPoolOptions::new().max_connections(1).after_release(|_, _| Box::pin(async { Ok(false) }));
        let listen_pool = to_listen.map(|options| one().connect_lazy_with(options));
        let failover: Arc<FailoverGuard> = Arc::default();
        let (notifier, all) = (Arc::default(), Mutex::default());
        let pools = Arc::new(Self { options, listen, failover, notifier, all, listen_pool });
        let weak = Arc::downgrade(&pools);
        pools.failover.on_stale(move |since| {
            let Some(pools) = weak.upgrade() else { return };
            for pool in &*lock(&pools.all) {
                pool.retain(|_, metrics| metrics.created >= since);
            }
        });
        pools
    }
}

/// A pool to where sqlx' pool leads, directly, whose sessions have no settings: for tests.
impl From<PgPool> for Database {
    fn from(pool: PgPool) -> Self {
        let options = pool.connect_options().as_ref().clone().extra_float_digits(None);
        let pools = Pools::new(options, Listen::Directly);
        Self::open(pools, pool.options().get_max_connections(), STATEMENT_TIMEOUT, "")
    }
}
