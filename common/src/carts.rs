//! Carts, and the SQL statements that read and change them.

pub(crate) mod cart;
pub mod change;
mod change_token;
pub mod expiry;
mod fields;
pub mod filter;
pub(crate) mod id;
pub mod import;
pub mod items;
pub mod list;
pub mod new;
pub mod search;
pub(crate) mod status;
mod transitions;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

pub use self::{
    cart::{Cart, Source, insert},
    change_token::change_token,
    id::{CartId, MalformedCartId},
    status::CartStatus,
    transitions::{RecoveredBy, abandon_again, expire, recover, recover_all, reopen},
};
use crate::{db::Connection, money::Currency, personal_data};

/// The cart, with its payment link if the link works at `now`. `None` if there is no such cart.
pub async fn find(conn: &mut Connection, id: &CartId, now: DateTime<Utc>) -> sqlx::Result<Option<Cart>> {
    Ok(find_many(conn, &[id.as_str()], now).await?.pop())
}

/// The carts that exist, in no particular order, with the payment links that work at `now`.
pub async fn find_many(conn: &mut Connection, ids: &[impl AsRef<str>], now: DateTime<Utc>) -> sqlx::Result<Vec<Cart>> {
    let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
    cart::select_carts!(conn, ["carts"], "where carts.id = any ($2)", now, &ids as &[&str])
}

/// A cart that is locked until the end of the transaction: other changes of its status wait.
#[derive(Debug, Clone)]
pub struct LockedCart {
    /// The cart's current status.
    pub status: CartStatus,
    /// When the shopper left the cart.
    pub abandoned_at: DateTime<Utc>,
    /// The total, in minor units of `currency`.
    pub total_minor: i64,
    /// The currency of `total_minor`.
    pub currency: Currency,
}

/// Locks the cart for the rest of the transaction. `None` if there is no such cart.
pub async fn lock(conn: &mut Connection, id: &CartId) -> sqlx::Result<Option<LockedCart>> {
    sqlx::query_as!(
        LockedCart,
        r#"
        select status as "status: CartStatus", abandoned_at, total_minor, currency as "currency: Currency"
        from carts where id = $1 for no key update
        "#,
        id.as_str(),
    )
    .fetch_optional(conn)
    .await
}

/// The outcome of [`try_lock`].
#[derive(Debug)]
pub enum TryLock {
    /// The cart is locked for the rest of the transaction.
    Locked(LockedCart),
    /// Another transaction holds the lock.
    Held,
    /// There is no such cart.
    Missing,
}

/// Locks the cart like [`lock`], but does not wait for the lock.
pub async fn try_lock(conn: &mut Connection, id: &CartId) -> sqlx::Result<TryLock> {
    let mut locked = try_lock_all(conn, std::slice::from_ref(id)).await?;
    Ok(locked.pop().unwrap_or(TryLock::Missing))
}

/// Locks the carts like [`try_lock`]; returns an outcome for each, in their order.
pub async fn try_lock_all(conn: &mut Connection, ids: &[CartId]) -> sqlx::Result<Vec<TryLock>> {
    let ids: Vec<&str> = ids.iter().map(CartId::as_str).collect();
    let locked = sqlx::query!(
        r#"
        select id, status as "status: CartStatus", abandoned_at, total_minor, currency as "currency: Currency"
        from carts where id = any ($1) order by id for no key update skip locked
        "#,
        &ids as &[&str],
    );
    let locked = locked.fetch_all(&mut *conn).await?;
    let mut outcomes: HashMap<String, TryLock> = locked
        .into_iter()
        .map(|row| {
            let (status, abandoned_at, total_minor, currency) =
                (row.status, row.abandoned_at, row.total_minor, row.currency);
            (row.id, TryLock::Locked(LockedCart { status, abandoned_at, total_minor, currency }))
        })
        .collect();
    if outcomes.len() < ids.len() {
        let there = sqlx::query_scalar!("select id from carts where id = any ($1)", &ids as &[&str]);
        for id in there.fetch_all(conn).await? {
            outcomes.entry(id).or_insert(TryLock::Held);
        }
    }
    Ok(ids.iter().map(|id| outcomes.remove(*id).unwrap_or(TryLock::Missing)).collect())
}

/// Locks the carts that exist for the rest of the transaction; returns their ids. Locks are taken
/// in the order of the ids, so that two transactions that lock several carts can't deadlock.
pub async fn lock_all(conn: &mut Connection, ids: &[&str]) -> sqlx::Result<HashSet<String>> {
    let there =
        sqlx::query_scalar!("select id from carts where id = any ($1) order by id for no key update", ids as &[&str],)
            .fetch_all(conn)
            .await?;
    Ok(there.into_iter().collect())
}

/// Deletes the cart and the shopper's data. The cart must be locked.
pub async fn delete(conn: &mut Connection, id: &CartId, now: DateTime<Utc>) -> sqlx::Result<()> {
    personal_data::erase_carts(conn, &[id.to_string()], now).await?;
    Ok(())
}
