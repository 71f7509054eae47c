//! Carts, and the SQL statements that read and change them.

pub mod change;
mod change_token;
pub mod expiry;
pub mod export;
mod fields;
pub(crate) mod id;
pub mod import;
pub mod items;
pub mod list;
pub mod new;
pub(crate) mod row;
pub mod search;
pub(crate) mod status;
mod transitions;
use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub use self::{
    change_token::change_token,
    id::{CartId, MalformedCartId},
    status::CartStatus,
    transitions::{RecoveredBy, abandon_again, expire, recover, recover_all, reopen},
};
use self::{
    items::{Adjustment, Item},
    new::NewCart,
};
use crate::{
    db::Connection,
    money::{Amount, Currency},
    personal_data,
};

/// A cart as the API returns it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cart {
    /// The cart's id.
    #[schema(pattern = "^cart_[A-Za-z0-9_-]{1,100}$", example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    pub id: String,
    /// The shop's own id of the cart; null if the shop gave none.
    #[schema(required)]
    pub external_id: Option<String>,
    /// The shopper's e-mail address.
    #[schema(example = "ada@example.com")]
    pub customer_email: String,
    /// The shopper's name; null if it is not known.
    #[schema(required, example = "Ada Lovelace")]
    pub customer_name: Option<String>,
    /// The lines, as they were stored.
    #[schema(value_type = Vec<Item>)]
    pub items: Box<RawValue>,
    /// Shipping, taxes and discounts, as they were stored.
    #[schema(value_type = Vec<Adjustment>)]
    pub adjustments: Box<RawValue>,
    /// The sum of the lines and adjustments, computed by the server.
    pub total_value: Amount,
    /// The currency of all amounts.
    pub currency: Currency,
    /// The cart's current status.
    pub status: CartStatus,
    /// How the cart was recovered; null if it was not.
    #[schema(required)]
    pub recovered_by: Option<RecoveredBy>,
    /// The payment that recovered the cart; null if none did, or if it was in another currency, which
    /// the cart had before.
    #[schema(required)]
    pub paid_value: Option<Amount>,
    /// Refunds and lost disputes of the payment that recovered the cart; null if there are none. After a
    /// partial refund, a lost dispute about the whole payment makes it more than `paidValue`.
    #[schema(required)]
    pub refunded_value: Option<Amount>,
    /// The shopper's language, a BCP 47 tag; null if it is not known.
    #[schema(required, example = "de-AT")]
    pub locale: Option<String>,
    /// Whether the shopper agreed to receive marketing; null if that is not known.
    #[schema(required)]
    pub accepts_marketing: Option<bool>,
    /// The shop's own data.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub metadata: Box<RawValue>,
    /// When the shopper left the cart.
    pub abandoned_at: DateTime<Utc>,
    /// When the cart was recovered; null if it was not.
    #[schema(required)]
    pub recovered_at: Option<DateTime<Utc>>,
    /// When the cart expired; null if it did not.
    #[schema(required)]
    pub expired_at: Option<DateTime<Utc>>,
    /// The address of the open Checkout Session; null if there is none.
    #[schema(required, format = "uri")]
    pub payment_link: Option<String>,
    /// When `payment_link` stops working; null if there is no link.
    #[schema(required)]
    pub payment_link_expires_at: Option<DateTime<Utc>>,
    /// When the cart was created here.
    pub created_at: DateTime<Utc>,
    /// When the cart last changed.
    pub updated_at: DateTime<Utc>,
}

impl Cart {
    /// The shopper's name, or the e-mail address if the name is not known.
    pub fn customer(&self) -> &str {
        self.customer_name.as_deref().unwrap_or(&self.customer_email)
    }

    /// A cart that was just received.
    pub fn new(id: &str, cart: NewCart, now: DateTime<Utc>) -> Self {
        Self {
            id: id.to_owned(),
            external_id: cart.external_id,
            customer_email: cart.customer_email,
            customer_name: cart.customer_name,
            items: cart.items,
            adjustments: cart.adjustments,
            total_value: cart.currency.amount(cart.total_minor),
            currency: cart.currency,
            status: CartStatus::Abandoned,
            recovered_by: None,
            paid_value: None,
            refunded_value: None,
            locale: cart.locale,
            accepts_marketing: cart.accepts_marketing,
            metadata: cart.metadata,
            abandoned_at: cart.abandoned_at.unwrap_or(now),
            recovered_at: None,
            expired_at: None,
            payment_link: None,
            payment_link_expires_at: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// Where carts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A request for each cart.
    Api,
    /// An import.
    Import,
}

/// Stores carts in one statement; returns how many. Carts whose id or external id is stored already
/// are left as they are.
pub async fn insert(conn: &mut Connection, carts: &[impl Borrow<Cart>], source: Source) -> sqlx::Result<u64> {
    fn column<'a, T>(carts: &'a [impl Borrow<Cart>], value: impl Fn(&'a Cart) -> T) -> Vec<T> {
        carts.iter().map(|cart| value(cart.borrow())).collect()
    }
    let result = sqlx::query!(
        r#"
        insert into carts (id, external_id, customer_email, customer_name, items, adjustments, total_minor, currency, status,
                           status_changed_at, status_reason, locale, accepts_marketing, metadata, abandoned_at, recovered_at,
                           expired_at, imported, created_at, updated_at)
        select id, external_id, customer_email, customer_name, items::json, adjustments::json, total_minor, currency, status,
               case when status <> 'abandoned' then created_at end, case when status <> 'abandoned' then 'import' end,
               locale, accepts_marketing, metadata::json, abandoned_at, recovered_at, expired_at, $17, created_at, created_at
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[],
                    $10::text[], $11::boolean[], $12::text[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
                    $16::timestamptz[])
            as new (id, external_id, customer_email, customer_name, items, adjustments, total_minor, currency, status,
                    locale, accepts_marketing, metadata, abandoned_at, recovered_at, expired_at, created_at)
        on conflict do nothing
        "#,
        &column(carts, |cart| cart.id.as_str()) as &[&str],
        &column(carts, |cart| cart.external_id.as_deref()) as &[Option<&str>],
        &column(carts, |cart| cart.customer_email.as_str()) as &[&str],
        &column(carts, |cart| cart.customer_name.as_deref()) as &[Option<&str>],
        &column(carts, |cart| cart.items.get()) as &[&str],
        &column(carts, |cart| cart.adjustments.get()) as &[&str],
        &column(carts, |cart| cart.total_value.minor()),
        &column(carts, |cart| cart.currency.code()) as &[&str],
        &column(carts, |cart| cart.status.as_str()) as &[&str],
        &column(carts, |cart| cart.locale.as_deref()) as &[Option<&str>],
        &column(carts, |cart| cart.accepts_marketing) as &[Option<bool>],
        &column(carts, |cart| cart.metadata.get()) as &[&str],
        &column(carts, |cart| cart.abandoned_at),
        &column(carts, |cart| cart.recovered_at) as &[Option<DateTime<Utc>>],
        &column(carts, |cart| cart.expired_at) as &[Option<DateTime<Utc>>],
        &column(carts, |cart| cart.created_at),
        source == Source::Import,
    )
    .execute(conn)
    .await?;
    Ok(result.rows_affected())
}

/// The cart, with its payment link if the link works at `now`. `None` if there is no such cart.
pub async fn find(conn: &mut Connection, id: &CartId, now: DateTime<Utc>) -> sqlx::Result<Option<Cart>> {
    Ok(find_many(conn, &[id.as_str()], now).await?.pop())
}

/// The carts that exist, in no particular order, with the payment links that work at `now`.
pub async fn find_many(conn: &mut Connection, ids: &[impl AsRef<str>], now: DateTime<Utc>) -> sqlx::Result<Vec<Cart>> {
    let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
    let rows = row::select_linked_carts!(conn, ["carts"], "where carts.id = any ($2)", now, &ids as &[&str])?;
    Ok(rows.into_iter().map(Cart::from).collect())
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
