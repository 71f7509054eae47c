//! A connection in use, and one that a task keeps.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{TryFutureExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use sqlx::{
    Either, Execute, Executor, PgConnection, Postgres, SqlStr, Transaction,
    pool::PoolConnection,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use crate::{
    database::Database,
    kin::{Kin, LOOK_EVERY},
    patience::{in_time, stream_in_time},
};

/// A connection in use: every store function takes one.
pub struct Connection {
    held: Held,
    named: bool,
    /// How long a statement may take.
    patience: Duration,
    kin: Arc<Kin>,
    /// When it was taken from its pool, which hands out none that is over.
    taken: Instant,
}

enum Held {
    Bare(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Connection {
    /// Each statement is a transaction of its own.
    pub(crate) fn bare(connection: PoolConnection<Postgres>, patience: Duration, kin: Arc<Kin>) -> Self {
        Self { held: Held::Bare(connection), named: true, patience, kin, taken: Instant::now() }
    }

    pub(crate) fn transaction(
        transaction: Transaction<'static, Postgres>,
        named: bool,
        patience: Duration,
        kin: Arc<Kin>,
    ) -> Self {
        Self { held: Held::Transaction(transaction), named, patience, kin, taken: Instant::now() }
    }

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

    /// Whether it leads to a server that takes no writes any more.
    fn is_over(&self) -> bool {
        self.kin.is_over(self.taken)
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
    looked: Instant,
}

impl Kept {
    /// Holds none yet.
    pub fn new(database: Database) -> Self {
        Self { database, connection: None, looked: Instant::now() }
    }

    /// As [`Database::acquire`]; what is dropped without [`Kept::commit`] is not used again.
    ///
    /// # Errors
    /// As that.
    pub async fn acquire(&mut self) -> sqlx::Result<Connection> {
        if let Some(mut kept) = self.connection.take()
            && !kept.is_over()
            && (self.looked.elapsed() < LOOK_EVERY || self.look(&mut kept).await)
        {
            return Ok(kept);
        }
        self.looked = Instant::now();
        self.database.acquire().await
    }

    async fn look(&mut self, kept: &mut Connection) -> bool {
        self.looked = Instant::now();
        let (kin, patience) = (kept.kin.clone(), kept.patience);
        in_time(patience, kin.takes_writes(kept.inner())).await.unwrap_or(false)
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
        let (named, patience, kin) = (self.named, self.patience, self.kin.clone());
        let conn = self.inner();
        let answer = if named { conn.fetch_many(query) } else { conn.fetch_many(Unnamed(query)) };
        Box::pin(stream_in_time(patience, answer).inspect_err(move |error| kin.refused(error)))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (named, patience, kin) = (self.named, self.patience, self.kin.clone());
        let conn = self.inner();
        let answer = if named { conn.fetch_optional(query) } else { conn.fetch_optional(Unnamed(query)) };
        Box::pin(in_time(patience, answer).inspect_err(move |error| kin.refused(error)))
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
