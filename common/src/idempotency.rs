//! `Idempotency-Key`: the same request twice makes one cart.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{api_keys::KeyHash, carts::CartId, db::Connection, json, maintenance::IDEMPOTENCY_KEY_LIFE};

/// Hashes of a key and of the body that came with it; nothing else is kept.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    /// Hash of the API key and the idempotency key, so that each API key has idempotency keys of its own.
    key_hash: Vec<u8>,
    body_hash: Vec<u8>,
}

impl Fingerprint {
    /// `key` belongs to the API key `owner`. White space and the order of fields in `body` do not matter.
    pub fn of(owner: &KeyHash, key: &str, body: &RawValue) -> Self {
        let key_hash = Sha256::new().chain_update(owner.as_bytes()).chain_update(key).finalize().to_vec();
        let body_hash = Sha256::digest(json::canonical(body)).to_vec();
        Self { key_hash, body_hash }
    }
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is new, and stands for the given cart from now on.
    New,
    /// It stands for this cart.
    Same(String),
    /// It came with another body.
    Different,
}

/// Claims the key for `cart_id`. Two claims at once: the second waits for the
/// first one's transaction.
pub async fn claim(
    conn: &mut Connection,
    fingerprint: &Fingerprint,
    cart_id: &CartId,
    now: DateTime<Utc>,
) -> sqlx::Result<Claim> {
    let claimed = sqlx::query!(
        r#"
        insert into idempotency_keys as known (key_hash, body_hash, cart_id, created_at)
        values ($1, $2, $3, $4)
        on conflict (key_hash) do update
            set body_hash = excluded.body_hash, cart_id = excluded.cart_id, created_at = excluded.created_at
            where known.created_at <= $5
        "#,
        fingerprint.key_hash,
        fingerprint.body_hash,
        cart_id.as_str(),
        now,
        now - IDEMPOTENCY_KEY_LIFE,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    if claimed {
        return Ok(Claim::New);
    }
    let known =
        sqlx::query!("select body_hash, cart_id from idempotency_keys where key_hash = $1", fingerprint.key_hash,)
            .fetch_one(conn)
            .await?;
    // Once the shopper was erased only the beginning of the hash is there.
    let same = fingerprint.body_hash.starts_with(&known.body_hash);
    Ok(if same { Claim::Same(known.cart_id) } else { Claim::Different })
}
