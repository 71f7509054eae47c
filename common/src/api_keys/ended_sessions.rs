//! Dashboard sessions that were signed out before they expired.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::db::Connection;

/// SHA-256 of a session's cookie value. Nobody can sign in with the hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionHash([u8; 32]);

impl SessionHash {
    /// Hashes the cookie's value, without its signature.
    pub fn of(value: &str) -> Self {
        Self(Sha256::digest(value).into())
    }
}

impl fmt::Debug for SessionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionHash")
    }
}

/// Stores that a session was signed out, and deletes the rows of sessions that have expired since.
/// `ends_at`: when the session would have expired.
pub async fn end(
    conn: &mut Connection,
    session: &SessionHash,
    ends_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        with forgotten as (
            delete from ended_sessions where ctid = any (array(
                select ctid from ended_sessions where ends_at <= $3 for update skip locked))
        )
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

/// All signed-out sessions, each with the time at which it would have expired.
pub async fn all(conn: &mut Connection) -> sqlx::Result<HashMap<SessionHash, DateTime<Utc>>> {
    let rows = sqlx::query!("select session_hash, ends_at from ended_sessions").fetch_all(conn).await?;
    let ended = rows.into_iter().map(|row| {
        let hash = row.session_hash.try_into();
        let hash = hash.map_err(|_| sqlx::Error::Decode("a hash of 32 bytes was expected".into()))?;
        Ok((SessionHash(hash), row.ends_at))
    });
    ended.collect()
}
