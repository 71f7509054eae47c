//! API keys: named, scoped, and stored as hashes.
//!
//! A key is 256 random bits, which no one can guess, so one round of SHA-256 is enough. A slow hash
//! such as Argon2 protects passwords, which have little entropy; here it would only slow down every
//! request.

pub mod ended_sessions;
use std::fmt;
use strum::{EnumString, IntoStaticStr};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use uuid::Uuid;

use crate::{audit::KeyName, db::Connection};

/// The prefix of every key, by which people and secret scanners recognize one.
const PREFIX: &str = "qct_";

/// A permission of a key. No scope includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownScope, parse_err_fn = unknown_scope)]
pub enum Scope {
    /// Reads carts, links, timelines, analytics and exports, including the export of one person.
    Read,
    /// Creates, imports, changes and deletes carts, requests payment links, and erases a person.
    Write,
    /// Manages jobs, queues and schedules, reads the audit log, and gives access to the whole
    /// dashboard.
    Operator,
    /// Reads everything that the dashboard shows, and changes nothing.
    Support,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Operator, Self::Support];

    /// The scope's name in requests and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Operator => 4,
            Self::Support => 8,
        }
    }
}

/// The text is not the name of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are read, write, operator and support")]
pub struct UnknownScope;

fn unknown_scope(_: &str) -> UnknownScope {
    UnknownScope
}

/// Scopes of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether the scope is in the set.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    fn names(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::as_str).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

/// The name under which the audit log has the keys of the variable `API_KEY`.
pub const BOOTSTRAP: &str = "API_KEY";

/// Validates the name of a key: 1 to 64 letters, digits, points, dashes and underscores, but not
/// [`BOOTSTRAP`].
///
/// # Errors
/// The rule, as a message for the user.
pub fn parse_name(text: &str) -> Result<String, &'static str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text == BOOTSTRAP {
        return Err("API_KEY is the name of the keys in that variable");
    }
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(good);
    fits.then(|| text.to_owned()).ok_or("a name is 1 to 64 letters, digits, points, dashes and underscores")
}

/// The SHA-256 hash of a key. Keys themselves are not stored.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Hashes a key as the client sent it.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether both hashes are equal, compared in constant time.
    pub fn fits(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.fits(other).into()
    }
}

impl Eq for KeyHash {}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// Generates a key. Only its hash is stored, so it can be shown only once.
pub fn new_key() -> String {
    // The thread-local generator is cryptographically secure and seeded by the system.
    let [first, second]: [u128; 2] = rand::random();
    format!("{PREFIX}{first:032x}{second:032x}")
}

/// A key to be stored.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The name; see [`parse_name`].
    pub name: String,
    /// The hash of the key.
    pub hash: KeyHash,
    /// The scopes that the key grants.
    pub scopes: Scopes,
    /// When the key expires; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Stores a key. `false` if a key that is not revoked has the same name.
pub async fn add(conn: &mut Connection, key: &NewKey, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let scopes: Vec<String> = key.scopes.names().into_iter().map(str::to_owned).collect();
    let added = sqlx::query!(
        r#"
        insert into api_keys (id, name, key_hash, scopes, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)
        on conflict (name) where revoked_at is null do nothing
        "#,
        Uuid::now_v7(),
        key.name,
        key.hash.as_bytes(),
        &scopes,
        now,
        key.expires_at,
    )
    .execute(conn)
    .await?;
    Ok(added.rows_affected() == 1)
}

/// Revokes a key. `false` if no key that is not revoked has this name.
pub async fn revoke(conn: &mut Connection, name: &str, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let revoked = sqlx::query!("update api_keys set revoked_at = $2 where name = $1 and revoked_at is null", name, now)
        .execute(conn)
        .await?;
    Ok(revoked.rows_affected() == 1)
}

/// A key that was not revoked. It may have expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveKey {
    /// The row's id; unique.
    pub id: Uuid,
    /// The name; unique among live keys.
    pub name: KeyName,
    /// The hash of the key.
    pub hash: KeyHash,
    /// The scopes that the key grants.
    pub scopes: Scopes,
    /// When the key expires; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// All keys that were not revoked, oldest first.
pub async fn live(conn: &mut Connection) -> sqlx::Result<Vec<LiveKey>> {
    let rows = sqlx::query!(
        "select id, name, key_hash, scopes, expires_at from api_keys where revoked_at is null order by id"
    )
    .fetch_all(conn)
    .await?;
    let key = |id, name: String, hash: Vec<u8>, scopes: Vec<String>, expires_at| {
        let hash = KeyHash(hash.try_into().map_err(|_| sqlx::Error::Decode("a hash of 32 bytes was expected".into()))?);
        Ok(LiveKey { id, name: KeyName::new(&name), hash, scopes: read_scopes(&scopes), expires_at })
    };
    rows.into_iter().map(|row| key(row.id, row.name, row.key_hash, row.scopes, row.expires_at)).collect()
}

/// Skips scopes that only a later version knows.
fn read_scopes(names: &[String]) -> Scopes {
    names.iter().filter_map(|name| name.parse::<Scope>().ok()).collect()
}

/// Stores when keys were last used. A later time that is already stored is kept.
pub async fn note_uses(conn: &mut Connection, uses: &[(Uuid, DateTime<Utc>)]) -> sqlx::Result<()> {
    let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = uses.iter().copied().unzip();
    sqlx::query!(
        r#"
        update api_keys set last_used_at = used.at
        from unnest($1::uuid[], $2::timestamptz[]) as used (id, at)
        where api_keys.id = used.id and (last_used_at is null or last_used_at < used.at)
        "#,
        &ids,
        &times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A key for display, without its hash.
#[derive(Debug, Clone)]
pub struct ListedKey {
    /// The name; see [`parse_name`].
    pub name: String,
    /// The scopes that the key grants.
    pub scopes: Scopes,
    /// When the key was created.
    pub created_at: DateTime<Utc>,
    /// When the key expires or expired; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When the key was revoked; `None` if it was not.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When the key was last used, to about a minute; `None`: never.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// All keys including revoked ones; those that are not revoked come first.
pub async fn list(conn: &mut Connection) -> sqlx::Result<Vec<ListedKey>> {
    let rows = sqlx::query!(
        r#"
        select name, scopes, created_at, expires_at, revoked_at, last_used_at from api_keys
        order by revoked_at desc nulls first, name
        "#
    )
    .fetch_all(conn)
    .await?;
    let keys = rows.into_iter().map(|row| ListedKey {
        name: row.name,
        scopes: read_scopes(&row.scopes),
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
        last_used_at: row.last_used_at,
    });
    Ok(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_never_the_same() {
        let (one, two) = (new_key(), new_key());
        assert!(one.starts_with("qct_") && one.len() == 4 + 64 && one != two);
        assert!(bool::from(KeyHash::of(one.as_bytes()).fits(&KeyHash::of(one.as_bytes()))));
        assert!(!bool::from(KeyHash::of(one.as_bytes()).fits(&KeyHash::of(two.as_bytes()))));
        assert_eq!(format!("{:?}", KeyHash::of(b"x")), "KeyHash");
    }

    #[test]
    fn no_scope_includes_another() {
        for scope in Scope::ALL {
            let only: Scopes = [scope].into_iter().collect();
            assert!(Scope::ALL.into_iter().all(|other| only.has(other) == (other == scope)));
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert_eq!(Scopes::all().to_string(), "read, write, operator, support");
        assert_eq!("admin".parse::<Scope>(), Err(UnknownScope));
    }
}
