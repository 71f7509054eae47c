//! Sends the notifications of committed transactions.
//!
//! A notification is a hint: whoever waits for it also polls. Postgres refuses the COMMIT of a
//! transaction whose notifications do not fit into its queue (SQLSTATE 54000, "too many
//! notifications in the NOTIFY queue", <https://www.postgresql.org/docs/current/sql-notify.html>),
//! so no transaction that writes also notifies. It costs its caller no round trip: the connection
//! sends them in the background before it returns to its pool.
//!
//! Transactions that notify commit one after the other. One that only notifies does not wait for
//! the disk, and one connection of the process sends for all.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::runtime::Handle;

use super::timeout::with_timeout;
use crate::mutex::lock;

/// Timeout of one statement. Polling has found the changes by then.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A channel and a payload.
pub(crate) type Notification = (&'static str, String);

/// A connection that can send notifications.
pub(crate) trait SendNotifications: Send + 'static {
    /// Sends all of them in one statement.
    fn send(&mut self, batch: BTreeSet<Notification>) -> impl Future<Output = sqlx::Result<()>> + Send;
}

/// The notifications of a process that are waiting to be sent.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeSet<Notification>,
    /// Whether a connection is sending, until none are waiting.
    is_sending: bool,
    /// Whether the last statement failed, and was logged.
    is_failing: bool,
}

impl Notifier {
    /// Sends `notifications` on `conn` in the background. If another connection is sending, it sends
    /// these, too.
    pub(crate) fn send(self: &Arc<Self>, notifications: BTreeSet<Notification>, conn: impl SendNotifications) {
        let is_sending = {
            let mut state = lock(&self.state);
            state.waiting.extend(notifications);
            std::mem::replace(&mut state.is_sending, true)
        };
        if is_sending {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(self.clone().send_waiting(conn))),
            Err(_) => self.give_up(),
        }
    }

    async fn send_waiting(self: Arc<Self>, mut conn: impl SendNotifications) {
        while let Some(batch) = self.next() {
            match with_timeout(TIMEOUT, conn.send(batch)).await {
                Ok(()) => self.worked(),
                Err(error) => {
                    self.failed(&error);
                    return;
                }
            }
        }
    }

    /// All waiting notifications; `None` if there are none, and nothing is being sent from now on.
    fn next(&self) -> Option<BTreeSet<Notification>> {
        let mut state = lock(&self.state);
        state.is_sending = !state.waiting.is_empty();
        state.is_sending.then(|| std::mem::take(&mut state.waiting))
    }

    fn worked(&self) {
        if std::mem::take(&mut lock(&self.state).is_failing) {
            tracing::info!("NOTIFY works again");
        }
    }

    fn failed(&self, error: &sqlx::Error) {
        self.give_up();
        if !std::mem::replace(&mut lock(&self.state).is_failing, true) {
            tracing::warn!(%error, "NOTIFY failed; jobs and payment links are found by polling, within a second");
        }
    }

    /// Drops the waiting notifications.
    fn give_up(&self) {
        let mut state = lock(&self.state);
        state.waiting.clear();
        state.is_sending = false;
    }
}
