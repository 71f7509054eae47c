//! The link that goes into mails: one token a cart, for its life.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::carts::CartId;
use crate::db::Connection;

/// A cart's recovery link.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryLink {
    /// 128 random bits in hexadecimal; who has it may pay for the cart.
    pub token: String,
    /// Until when it works.
    pub expires_at: DateTime<Utc>,
}

/// Without the token, which lets whoever has it pay, and see that there is a cart.
impl fmt::Debug for RecoveryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryLink").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What a token leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenHolder {
    /// This cart, until then.
    Cart {
        /// Whose link it is.
        id: String,
        /// Until when it works.
        expires_at: DateTime<Utc>,
    },
    /// A cart that was deleted.
    Deleted,
}

struct Row {
    cart_id: String,
    token: String,
    expires_at: DateTime<Utc>,
}

fn by_cart(rows: Vec<Row>) -> HashMap<String, RecoveryLink> {
    rows.into_iter().map(|row| (row.cart_id, RecoveryLink { token: row.token, expires_at: row.expires_at })).collect()
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// The links of different carts, made where there is none, good until `expires_at`: by the carts' ids.
pub async fn extend(
    conn: &mut Connection,
    cart_ids: &[&str],
    expires_at: DateTime<Utc>,
) -> sqlx::Result<HashMap<String, RecoveryLink>> {
    let tokens: Vec<String> = cart_ids.iter().map(|_| format!("{:032x}", rand::random::<u128>())).collect();
    let hashes: Vec<Vec<u8>> = tokens.iter().map(|token| hash(token)).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"
        insert into recovery_links (token_hash, token, cart_id, expires_at)
        select token_hash, token, cart_id, $4
        from unnest($1::bytea[], $2::text[], $3::text[]) as new (token_hash, token, cart_id)
        on conflict (cart_id) do update set expires_at = excluded.expires_at
        returning cart_id as "cart_id!", token as "token!", expires_at
        "#,
        &hashes,
        &tokens,
        cart_ids as &[&str],
        expires_at,
    )
    .fetch_all(conn)
    .await?;
    Ok(by_cart(rows))
}

/// The cart's link, if it ever had one.
pub async fn find(conn: &mut Connection, cart_id: &CartId) -> sqlx::Result<Option<RecoveryLink>> {
    Ok(find_many(conn, &[cart_id.as_str()]).await?.remove(cart_id.as_str()))
}

/// Those that there are, by the carts' ids.
pub async fn find_many(conn: &mut Connection, cart_ids: &[&str]) -> sqlx::Result<HashMap<String, RecoveryLink>> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select cart_id as "cart_id!", token as "token!", expires_at from recovery_links
        where cart_id = any ($1) and token is not null
        "#,
        cart_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(by_cart(rows))
}

/// Whom `token` was given to; `None`: it was never issued.
pub async fn holder(conn: &mut Connection, token: &str) -> sqlx::Result<Option<TokenHolder>> {
    let row = sqlx::query!("select cart_id, expires_at from recovery_links where token_hash = $1", hash(token))
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| match row.cart_id {
        Some(id) => TokenHolder::Cart { id, expires_at: row.expires_at },
        None => TokenHolder::Deleted,
    }))
}
