//! [`Connection`], a connection in use.

use std::{collections::BTreeSet, fmt, ops::DerefMut as _, sync::Arc, time::Duration};

use deadpool::managed::Object;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Connection as _, Either, Execute, Executor, PgConnection, Postgres, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo},
};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;

use super::{
    connector::{ACQUIRE_TIMEOUT, CLIENT_CHECK_INTERVAL, Connector},
    failover::FailoverGuard,
    notifier::{Notification, Notifier, SendNotifications},
    timeout::{stream_with_timeout, with_timeout},
};

/// A connection in use. Every function that reads or writes the database takes one.
///
/// Dropping it within a transaction rolls the transaction back in the background.
pub struct Connection {
    /// `None` only during drop.
    session: Option<Object<Connector>>,
    /// Whether statements have names, so that Postgres parses each once per session.
    named: bool,
    /// Whether the server may still be executing a statement of this connection.
    unfinished: bool,
    /// Whether BEGIN, COMMIT or ROLLBACK was sent and its answer not read: the session may be in a
    /// transaction that nobody knows of.
    in_doubt: bool,
    statement_timeout: Duration,
    failover: Arc<FailoverGuard>,
    /// Sent once the statements of this connection have taken effect.
    notifications: BTreeSet<Notification>,
    notifier: Arc<Notifier>,
}

impl Connection {
    pub(crate) fn new(
        session: Object<Connector>,
        named: bool,
        statement_timeout: Duration,
        failover: Arc<FailoverGuard>,
        notifier: Arc<Notifier>,
    ) -> Self {
        Self {
            session: Some(session),
            named,
            unfinished: false,
            in_doubt: false,
            statement_timeout,
            failover,
            notifications: BTreeSet::new(),
            notifier,
        }
    }

    /// Notifies those that listen on `channel`, in the background after the commit. A notification
    /// that can't be sent is lost: whoever waits for it must poll, too.
    pub fn notify(&mut self, channel: &'static str, payload: impl Into<String>) {
        self.notifications.insert((channel, payload.into()));
    }

    /// Begins a transaction; `lock_wait` limits how long its statements wait for locks.
    pub(crate) async fn begin(&mut self, lock_wait: Option<Duration>) -> sqlx::Result<()> {
        let statement = lock_wait.map(|wait| {
            let milliseconds = wait.as_millis();
            AssertSqlSafe(format!("begin; set local lock_timeout = {milliseconds}")).into_sql_str()
        });
        self.finish(|conn| PgTransactionManager::begin(conn, statement).boxed()).await
    }

    /// Commits the transaction. No-op outside a transaction (autocommit).
    pub async fn commit(mut self) -> sqlx::Result<()> {
        self.end().await // and drop it, which sends the notifications
    }

    async fn end(&mut self) -> sqlx::Result<()> {
        self.finish(|conn| PgTransactionManager::commit(conn).boxed()).await
    }

    /// Rolls the transaction back and waits until its locks are released. No-op outside a
    /// transaction.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        self.notifications.clear();
        self.finish(|conn| PgTransactionManager::rollback(conn).boxed()).await
    }

    async fn finish(
        &mut self,
        run: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<()>>,
    ) -> sqlx::Result<()> {
        let timeout = self.statement_timeout;
        self.in_doubt = true;
        with_timeout(timeout, run(self.inner())).await?;
        // Its answer follows those of all earlier statements.
        (self.in_doubt, self.unfinished) = (false, false);
        Ok(())
    }

    /// The underlying sqlx connection, for features that need sqlx' own type (migrations). Run
    /// statements with parameters through `Connection`.
    pub fn inner(&mut self) -> &mut PgConnection {
        opened(&mut self.session)
    }
}

fn opened(session: &mut Option<Object<Connector>>) -> &mut PgConnection {
    let conn = session.as_mut().and_then(|session| Object::deref_mut(session).as_mut());
    conn.expect("it is there until it is dropped")
}

impl SendNotifications for Connection {
    async fn send(&mut self, batch: BTreeSet<Notification>) -> sqlx::Result<()> {
        let (channels, payloads): (Vec<&str>, Vec<String>) = batch.into_iter().unzip();
        if !self.named {
            self.begin(None).await?; // as Database::acquire does behind a pooler
        }
        sqlx::query!(
            "select pg_notify(channel, payload) from unnest($1::text[], $2::text[]) as waiting (channel, payload)",
            &channels as &[&str],
            &payloads,
        )
        .execute(&mut *self)
        .await?;
        self.end().await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        let Some(conn) = session.deref_mut() else { return };
        if !self.unfinished && !self.in_doubt && PgTransactionManager::get_transaction_depth(conn) == 0 {
            // Outside a transaction the statements have taken effect.
            let notifications = std::mem::take(&mut self.notifications);
            if !notifications.is_empty() {
                let (failover, notifier) = (self.failover.clone(), self.notifier.clone());
                let conn = Self::new(session, self.named, self.statement_timeout, failover, notifier.clone());
                notifier.send(notifications, conn);
            }
            return; // returns the session to the pool
        }
        let runtime = Handle::try_current().ok().filter(|_| !self.in_doubt);
        let Some(runtime) = runtime else {
            drop(Object::take(session)); // closing it rolls back
            return;
        };
        runtime.spawn(async move {
            if with_timeout(ACQUIRE_TIMEOUT, clean_up(&mut session)).await.is_err() {
                *session = None; // closes it
                // Its place in the pool is free when Postgres has ended the statement.
                tokio::time::sleep(2 * CLIENT_CHECK_INTERVAL).await;
            }
        });
    }
}

/// Rolls back, and waits for the end of a statement.
async fn clean_up(session: &mut Object<Connector>) -> sqlx::Result<()> {
    let Some(conn) = session.deref_mut() else { return Ok(()) };
    PgTransactionManager::rollback(conn).await?;
    conn.ping().await
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
        let Connection { session, named, unfinished, statement_timeout, failover, .. } = self;
        let conn = opened(session);
        *unfinished = true;
        let rows = if *named { conn.fetch_many(query) } else { conn.fetch_many(Unnamed(query)) };
        let mut rows = stream_with_timeout(*statement_timeout, rows).boxed();
        let mut failed = false;
        futures_util::stream::poll_fn(move |context| {
            let polled = rows.poll_next_unpin(context);
            if let std::task::Poll::Ready(row) = &polled {
                *unfinished = failed || !is_end(row.as_ref());
                if let Some(Err(error)) = row {
                    failed |= *unfinished;
                    failover.observe(error);
                }
            }
            polled
        })
        .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Connection { session, named, unfinished, statement_timeout, failover, .. } = self;
        let conn = opened(session);
        *unfinished = true;
        let row = if *named { conn.fetch_optional(query) } else { conn.fetch_optional(Unnamed(query)) };
        Box::pin(async move {
            let row = with_timeout(*statement_timeout, row).await;
            match &row {
                Ok(_) | Err(sqlx::Error::Database(_)) => *unfinished = false,
                Err(_) => {}
            }
            row.inspect_err(|error| failover.observe(error))
        })
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

/// Whether the statement has ended: all rows were read, or it failed.
fn is_end<T>(row: Option<&sqlx::Result<T>>) -> bool {
    matches!(row, None | Some(Err(sqlx::Error::Database(_))))
}

/// A statement without a name.
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
