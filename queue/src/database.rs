//! How processes reach Postgres: directly, or through a pooler that gives a
//! session to a client for one transaction only (PgBouncer in transaction mode).
//!
//! Behind such a pooler a prepared statement of one transaction is not there in
//! the next, or is another client's. So every statement there is unnamed, and
//! prepared and executed within one transaction; nothing is set on sessions; and
//! LISTEN has a way of its own, or is left out.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{future::BoxFuture, stream::BoxStream};
use sqlx::{
    Connection as _, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr, Transaction,
    pool::PoolConnection,
    postgres::{
        PgArguments, PgConnectOptions, PgListener, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
    },
};

use crate::patience::{in_time, stream_in_time};

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
#[derive(Debug, Clone, Default)]
pub enum Listen {
    /// To the database itself, which is reached directly.
    #[default]
    Directly,
    /// Directly, while everything else goes through a pooler.
    At(Box<PgConnectOptions>),
    /// Nowhere: polling alone.
    Off,
}

/// Postgres, as a process reaches it; clones share the connections.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    listen: Listen,
    listen_pool: Option<PgPool>,
    /// Every pool that was made from the same [`Database::new`].
    kin: Arc<Mutex<Vec<PgPool>>>,
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
        let mut with = pool_options(connections);
        if !pooled {
            with = with.after_connect(|conn, _| {
                Box::pin(async move { sqlx::raw_sql(NO_LONG_SILENCE).execute(conn).await.map(drop) })
            });
        }
        let pool = with.connect_lazy_with(options);
        Self::of(pool, listen, Arc::default())
    }

    fn of(pool: PgPool, listen: Listen, kin: Arc<Mutex<Vec<PgPool>>>) -> Self {
        let listen_pool = match &listen {
            Listen::Directly => Some(pool.clone()),
            Listen::At(options) => Some(pool_options(1).connect_lazy_with(*options.clone())),
            Listen::Off => None,
        };
        let mut pools = kin.lock().unwrap_or_else(PoisonError::into_inner);
        pools.push(pool.clone());
        if let (Listen::At(_), Some(listen_pool)) = (&listen, &listen_pool) {
            pools.push(listen_pool.clone());
        }
        drop(pools);
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
        let own_sessions = !self.is_pooled();
        let pool = pool_options(connections)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    if own_sessions {
                        // Nor is it worth compiling for each time, whatever it might cost.
                        sqlx::raw_sql("set plan_cache_mode = force_generic_plan; set jit = off")
                            .execute(&mut *conn)
                            .await?;
                        sqlx::raw_sql(NO_LONG_SILENCE).execute(&mut *conn).await?;
                        sqlx::raw_sql(settings).execute(conn).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(self.pool.connect_options().as_ref().clone());
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
        Ok(Connection { held: Held::Bare(self.pool.acquire().await?), named: true, patience: self.patience })
    }

    /// A transaction: dropped without [`Connection::commit`] nothing of it happened.
    pub async fn begin(&self) -> sqlx::Result<Connection> {
        let begun = in_time(self.patience, self.pool.begin()).await?;
        Ok(Connection { held: Held::Transaction(begun), named: !self.is_pooled(), patience: self.patience })
    }

    /// A connection that listens to `channel`; `None` where LISTEN is off.
    pub async fn listener(&self, channel: &str) -> sqlx::Result<Option<PgListener>> {
        let Some(pool) = &self.listen_pool else { return Ok(None) };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(channel).await?;
        Ok(Some(listener))
    }

    /// The connections themselves, for who counts them.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// All connections of this process: these, and those planned once, the queue's included.
    pub fn connections(&self) -> Connections {
        let pools = self.kin.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = pools.iter().map(|pool| u32::try_from(pool.num_idle()).unwrap_or(u32::MAX)).sum();
        let open: u32 = pools.iter().map(PgPool::size).sum();
        let max = pools.iter().map(|pool| pool.options().get_max_connections()).sum();
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

fn pool_options(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A look at each connection before each use is a round trip for every
        // request; the pool looks again when it takes the connection back anyway.
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for > FRESH {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        // The pool's own look at a connection that comes back has no time limit: one
        // whose Postgres is gone without a word would be missing for a quarter of an hour.
        .after_release(|conn, _| {
            Box::pin(async move {
                let answered = tokio::time::timeout(ACQUIRE_TIMEOUT, conn.ping()).await;
                answered.map_err(|_| sqlx::Error::PoolTimedOut)??;
                Ok(true)
            })
        })
}

/// A connection in use: every store function takes one.
pub struct Connection {
    held: Held,
    named: bool,
    patience: Duration,
}

enum Held {
    Bare(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Connection {
    /// Makes what was done last. (On a bare connection each statement did so itself.)
    pub async fn commit(self) -> sqlx::Result<()> {
        match self.held {
            Held::Bare(_) => Ok(()),
            Held::Transaction(transaction) => in_time(self.patience, transaction.commit()).await,
        }
    }

    /// Makes nothing of it last, and returns when Postgres has let go of its locks;
    /// dropping the connection does so a moment later.
    pub async fn rollback(self) -> sqlx::Result<()> {
        match self.held {
            Held::Bare(_) => Ok(()),
            Held::Transaction(transaction) => in_time(self.patience, transaction.rollback()).await,
        }
    }

    /// The connection beneath, for what sqlx offers on its own type alone (migrations).
    /// Statements with parameters go through `Connection`.
    pub fn inner(&mut self) -> &mut PgConnection {
        match &mut self.held {
            Held::Bare(connection) => connection,
            Held::Transaction(transaction) => transaction,
        }
    }
}

/// What one task uses over and over. A pool tests each connection that it hands
/// out and that it takes back, and hands out another one next time: two round
/// trips a statement, and a plan of it in every session.
#[derive(Debug)]
pub struct Kept {
    database: Database,
    connection: Option<Connection>,
}

impl Kept {
    /// Holds none yet.
    pub fn new(database: Database) -> Self {
        Self { database, connection: None }
    }

    /// As [`Database::acquire`]; what is dropped without [`Kept::commit`] is not used again.
    ///
    /// # Errors
    /// As that.
    pub async fn acquire(&mut self) -> sqlx::Result<Connection> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.database.acquire().await,
        }
    }

    /// As [`Connection::commit`]. A pooler's session is not kept: it is others' between transactions.
    ///
    /// # Errors
    /// As that.
    pub async fn commit(&mut self, connection: Connection) -> sqlx::Result<()> {
        match connection.held {
            Held::Bare(_) => self.connection = Some(connection),
            Held::Transaction(transaction) => in_time(connection.patience, transaction.commit()).await?,
        }
        Ok(())
    }

    /// Gives the connection back until it is needed again.
    pub fn release(&mut self) {
        self.connection = None;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("named", &self.named).finish_non_exhaustive()
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (named, patience) = (self.named, self.patience);
        let conn = self.inner();
        stream_in_time(patience, if named { conn.fetch_many(query) } else { conn.fetch_many(Unnamed(query)) })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (named, patience) = (self.named, self.patience);
        let conn = self.inner();
        Box::pin(in_time(
            patience,
            if named { conn.fetch_optional(query) } else { conn.fetch_optional(Unnamed(query)) },
        ))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        self.inner().prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<sqlx::Describe<Postgres>>>
    where
        'c: 'e,
    {
        self.inner().describe(sql)
    }
}

/// A statement that leaves no name behind.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}
