//! The link that goes into mails: one token a cart, for its life.

use std::fmt;

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

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// The cart's link, made if there is none, which works until `expires_at`.
pub async fn extend(conn: &mut Connection, cart_id: &CartId, expires_at: DateTime<Utc>) -> sqlx::Result<RecoveryLink> {
    let token = format!("{:032x}", rand::random::<u128>());
    sqlx::query_as!(
        RecoveryLink,
        r#"
        insert into recovery_links (token_hash, token, cart_id, expires_at) values ($1, $2, $3, $4)
        on conflict (cart_id) do update set expires_at = excluded.expires_at
        returning token as "token!", expires_at
        "#,
        hash(&token),
        token,
        cart_id.as_str(),
        expires_at,
    )
    .fetch_one(conn)
    .await
}

/// The cart's link; `None` if none was ever made.
pub async fn find(conn: &mut Connection, cart_id: &CartId) -> sqlx::Result<Option<RecoveryLink>> {
    sqlx::query_as!(
        RecoveryLink,
        r#"select token as "token!", expires_at from recovery_links where cart_id = $1 and token is not null"#,
        cart_id.as_str(),
    )
    .fetch_optional(conn)
    .await
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
