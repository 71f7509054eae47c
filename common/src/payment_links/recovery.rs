//! Recovery links, which go into mails: one token per cart, for the life of the cart.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::carts::CartId;
use crate::db::Connection;

/// A cart's recovery link.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryLink {
    /// 128 random bits in hexadecimal. Whoever has the token can pay for the cart.
    pub token: String,
    /// When the link stops working.
    pub expires_at: DateTime<Utc>,
}

impl RecoveryLink {
    /// The address for the shopper, below `PUBLIC_URL`.
    pub fn url(&self, public_url: &str) -> String {
        format!("{public_url}/pay/{}", self.token)
    }
}

/// Whether `text` has the form of a token.
pub fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Omits the token, with which anyone could pay and see that the cart exists.
impl fmt::Debug for RecoveryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryLink").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The cart that a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenHolder {
    /// An existing cart.
    Cart {
        /// The cart's id.
        id: String,
        /// When the link stops working.
        expires_at: DateTime<Utc>,
    },
    /// The cart was deleted.
    Deleted,
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// A token that nobody can guess, and the hash by which it is found.
pub(super) fn new_token() -> (String, Vec<u8>) {
    let token = format!("{:032x}", rand::random::<u128>());
    let hash = hash(&token);
    (token, hash)
}

/// Creates the cart's link, or extends it, so that it works until `expires_at`.
pub async fn extend(conn: &mut Connection, cart_id: &CartId, expires_at: DateTime<Utc>) -> sqlx::Result<RecoveryLink> {
    let (token, hash) = new_token();
    sqlx::query_as!(
        RecoveryLink,
        r#"
        insert into recovery_links (token_hash, token, cart_id, expires_at) values ($1, $2, $3, $4)
        on conflict (cart_id) do update set expires_at = excluded.expires_at
        returning token as "token!", expires_at
        "#,
        hash,
        token,
        cart_id.as_str(),
        expires_at,
    )
    .fetch_one(conn)
    .await
}

/// The cart's link; `None` if none was created.
pub async fn find(conn: &mut Connection, cart_id: &CartId) -> sqlx::Result<Option<RecoveryLink>> {
    sqlx::query_as!(
        RecoveryLink,
        r#"select token as "token!", expires_at from recovery_links where cart_id = $1 and token is not null"#,
        cart_id.as_str(),
    )
    .fetch_optional(conn)
    .await
}

/// The cart that the token belongs to; `None` if the token was never issued or was deleted since.
pub async fn holder(conn: &mut Connection, token: &str) -> sqlx::Result<Option<TokenHolder>> {
    let row = sqlx::query!("select cart_id, expires_at from recovery_links where token_hash = $1", hash(token))
        .fetch_optional(conn)
        .await?;
    Ok(row.map(|row| match row.cart_id {
        Some(id) => TokenHolder::Cart { id, expires_at: row.expires_at },
        None => TokenHolder::Deleted,
    }))
}
