//! Sessions of the dashboard that were signed out before their time.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::db::Connection;

/// The SHA-256 of a session's cookie. It opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionHash([u8; 32]);

impl SessionHash {
    /// Of the cookie's value, without its signature.
    pub fn of(value: &str) -> Self {
        Self(Sha256::digest(value).into())
    }
}

impl fmt::Debug for SessionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionHash")
    }
}

/// Ends a session that would have ended at `ends_at`, and forgets those that have ended by themselves.
pub async fn end(
    conn: &mut Connection,
    session: &SessionHash,
    ends_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        with forgotten as (delete from ended_sessions where ends_at <= $3)
        insert into ended_sessions (session_hash, ends_at) values ($1, $2) on conflict (session_hash) do nothing
        "#,
        session.0.as_slice(),
        ends_at,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The sessions that were ended, with the time at which each would have ended by itself.
pub async fn all(conn: &mut Connection) -> sqlx::Result<HashMap<SessionHash, DateTime<Utc>>> {
    let rows = sqlx::query!("select session_hash, ends_at from ended_sessions").fetch_all(conn).await?;
    let ended = rows.into_iter().map(|row| {
        let hash = row.session_hash.try_into();
        let hash = hash.map_err(|_| sqlx::Error::Decode("a hash of 32 bytes was expected".into()))?;
        Ok((SessionHash(hash), row.ends_at))
    });
    ended.collect()
}
