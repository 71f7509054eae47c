//! The audit log: every change that was made with an API key, through the API or the dashboard.
//!
//! An entry is written in the transaction of its change, so a change that is rolled back leaves none.
//! Entries name keys and ids, never a shopper's data.

use std::{fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, Datelike, Utc};
use strum::{EnumString, IntoStaticStr, VariantArray};
use uuid::Uuid;

use crate::db::Connection;

/// The name of an API key, by which the audit log and the timeline name who changed something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyName(Arc<str>);

impl KeyName {
    /// The name of a stored key, or of a key in `API_KEY`.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was done. New actions may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantArray)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Action {
    #[strum(serialize = "cart.created")]
    CartCreated,
    #[strum(serialize = "cart.changed")]
    CartChanged,
    #[strum(serialize = "cart.recovered")]
    CartRecovered,
    #[strum(serialize = "cart.expired")]
    CartExpired,
    #[strum(serialize = "cart.reopened")]
    CartReopened,
    #[strum(serialize = "cart.deleted")]
    CartDeleted,
    #[strum(serialize = "carts.imported")]
    CartsImported,
    #[strum(serialize = "payment_link.requested")]
    PaymentLinkRequested,
    #[strum(serialize = "recovery_link.extended")]
    RecoveryLinkExtended,
    #[strum(serialize = "shopper.erased")]
    ShopperErased,
    #[strum(serialize = "job.retried")]
    JobRetried,
    #[strum(serialize = "job.cancelled")]
    JobCancelled,
    #[strum(serialize = "job.discarded")]
    JobDiscarded,
    #[strum(serialize = "queue.paused")]
    QueuePaused,
    #[strum(serialize = "queue.resumed")]
    QueueResumed,
    #[strum(serialize = "schedule.run")]
    ScheduleRun,
    #[strum(serialize = "session.ended")]
    SessionEnded,
}

impl Action {
    /// The action's name in the log.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Adds an entry about one thing; `subject` is its id. Call it in the transaction of the change.
pub async fn note(
    conn: &mut Connection,
    key: &KeyName,
    action: Action,
    subject: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    note_many(conn, key, action, &[subject], 1, now).await
}

/// Adds an entry about `count` things at once. `subject` has their ids or, where they may be too
/// many, the id of what contains them, such as a queue.
pub async fn note_many(
    conn: &mut Connection,
    key: &KeyName,
    action: Action,
    subject: &[&str],
    count: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    add(conn, Uuid::now_v7(), key, action, subject, count, now).await
}

/// An entry that several transactions add to, such as that of an import.
#[derive(Debug, Clone)]
pub struct OpenEntry {
    id: Uuid,
    at: DateTime<Utc>,
    key: KeyName,
    action: Action,
    subject: Vec<&'static str>,
}

impl OpenEntry {
    /// An entry at `now`, stored by its first [`OpenEntry::add`]. See [`note_many`] for `subject`.
    pub fn new(key: KeyName, action: Action, subject: Vec<&'static str>, now: DateTime<Utc>) -> Self {
        Self { id: Uuid::now_v7(), at: now, key, action, subject }
    }

    /// The name of the key.
    pub fn key(&self) -> &KeyName {
        &self.key
    }

    /// Adds `count` things to the entry. Call it in the transaction of their change.
    pub async fn add(&self, conn: &mut Connection, count: i64) -> sqlx::Result<()> {
        add(conn, self.id, &self.key, self.action, &self.subject, count, self.at).await
    }
}

async fn add(
    conn: &mut Connection,
    id: Uuid,
    key: &KeyName,
    action: Action,
    subject: &[&str],
    count: i64,
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into audit_log (at, id, key, action, subject, count) values ($1, $2, $3, $4, $5, $6)
        on conflict (at, id) do update set count = audit_log.count + excluded.count
        "#,
        at,
        id,
        key.as_str(),
        action.as_str(),
        subject as &[&str],
        count,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When the change was made.
    pub at: DateTime<Utc>,
    /// The name of the key.
    pub key: String,
    /// The action; see [`Action`].
    pub action: String,
    /// The ids of what was changed, or of what contains it.
    pub subject: Vec<String>,
    /// The number of things that were changed.
    pub count: i64,
    id: Uuid,
}

/// The position of an entry; the next page starts after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    at: DateTime<Utc>,
    id: Uuid,
}

/// The text is not a cursor of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of the audit log")]
pub struct MalformedCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.timestamp_micros(), self.id.simple())
    }
}

impl FromStr for Cursor {
    type Err = MalformedCursor;

    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        let (time, id) = text.rsplit_once('-').ok_or(MalformedCursor)?;
        let at: DateTime<Utc> = time.parse().ok().and_then(DateTime::from_timestamp_micros).ok_or(MalformedCursor)?;
        // chrono accepts years that Postgres does not.
        if !(1..=9999).contains(&at.year()) || id.len() != 32 {
            return Err(MalformedCursor);
        }
        Ok(Self { at, id: Uuid::try_parse(id).map_err(|_| MalformedCursor)? })
    }
}

/// A part of the audit log.
#[derive(Debug)]
pub struct AuditPage {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Cursor>,
}

/// At most `limit` entries, newest first.
pub async fn page(conn: &mut Connection, after: Option<Cursor>, limit: i64) -> sqlx::Result<AuditPage> {
    let (after_at, after_id) = after.map(|cursor| (cursor.at, cursor.id)).unzip();
    let mut entries = sqlx::query_as!(
        Entry,
        r#"
        select at, key, action, subject, count, id from audit_log
        where (at, id) < (coalesce($1::timestamptz, 'infinity'), coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
        order by at desc, id desc
        limit $3
        "#,
        after_at,
        after_id,
        limit + 1, // one more shows whether there is a next page
    )
    .fetch_all(conn)
    .await?;
    let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = entries.len() > asked_for;
    entries.truncate(asked_for);
    let next = entries.last().filter(|_| more).map(|entry| Cursor { at: entry.at, id: entry.id });
    Ok(AuditPage { entries, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let cursor = Cursor { at: "2026-03-10T12:00:00.123456Z".parse().unwrap(), id: Uuid::now_v7() };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for malformed in ["", "-", "1", "1-", "-1", "x-1", "1-x", "1-00000000-0000-0000-0000-000000000000"] {
            assert_eq!(malformed.parse::<Cursor>(), Err(MalformedCursor), "{malformed}");
        }
    }

    #[test]
    fn every_action_has_a_name_of_two_words() {
        for action in Action::VARIANTS {
            assert!(action.as_str().split_once('.').is_some_and(|(thing, done)| !thing.is_empty() && !done.is_empty()));
        }
    }
}
