//! `Idempotency-Key`: a repeated request creates no second cart.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{api_keys::KeyHash, db::Connection, json, maintenance::IDEMPOTENCY_KEY_LIFE};

/// The hashes of a key and of the request body. Nothing else is stored.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    /// Hash of the API key and the idempotency key: idempotency keys are scoped to an API key.
    key_hash: Vec<u8>,
    body_hash: Vec<u8>,
}

impl Fingerprint {
    /// Hashes `key`, sent by the API key `owner`, and `body`. White space and the order of fields
    /// in `body` do not matter.
    pub fn of(owner: &KeyHash, key: &str, body: &RawValue) -> Self {
        let key_hash = Sha256::new().chain_update(owner.as_bytes()).chain_update(key).finalize().to_vec();
        let body_hash = Sha256::digest(json::canonical(body)).to_vec();
        Self { key_hash, body_hash }
    }
}

/// The result of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is new, and belongs to the given cart now.
    New,
    /// The key came with the same body before.
    Same {
        /// The id of the cart that the key belongs to.
        cart_id: String,
        /// When it was claimed.
        claimed_at: DateTime<Utc>,
    },
    /// The key came with another body before.
    Different,
}

/// Claims the key for `cart_id`. Of two concurrent claims the second waits for the transaction of
/// the first.
pub async fn claim(
    conn: &mut Connection,
    fingerprint: &Fingerprint,
    cart_id: &str,
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
        cart_id,
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
    let known = sqlx::query!(
        "select body_hash, cart_id, created_at from idempotency_keys where key_hash = $1",
        fingerprint.key_hash,
    )
    .fetch_one(conn)
    .await?;
    // After the shopper was erased only the first bytes of the stored hash are left.
    let same = fingerprint.body_hash.starts_with(&known.body_hash);
    let claim = Claim::Same { cart_id: known.cart_id, claimed_at: known.created_at };
    Ok(if same { claim } else { Claim::Different })
}

/// Keeps only the first bytes of the hashes of the bodies that were sent for the cart, which had the
/// address of another shopper. They are enough to tell another body from a repeated one.
pub(crate) async fn forget_bodies(conn: &mut Connection, cart_id: &str) -> sqlx::Result<()> {
    sqlx::query!("update idempotency_keys set body_hash = substr(body_hash, 1, 2) where cart_id = $1", cart_id)
        .execute(conn)
        .await?;
    Ok(())
}
