//! Finding a shopper's carts.
//!
//! There is no index on the address: each would cost more with every cart that
//! is stored or expires than all searches of a shop are worth
//! (`docs/changing.md` has the figures). A search looks at each cart once, and
//! at little of it: most addresses differ in their length already.

use chrono::{DateTime, Utc};

use crate::{
    cart_list::{CartPage, Cursor, Start},
    carts::{self, CartStatus},
    db::Connection,
};

/// A shopper's e-mail address, as somebody looks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmailToFind(String);

/// Not an address that a cart could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address")]
pub struct NoEmail;

impl std::str::FromStr for EmailToFind {
    type Err = NoEmail;

    /// Takes more than a cart does: rows that were written in SQL may have anything for an address.
    fn from_str(text: &str) -> Result<Self, NoEmail> {
        let possible =
            (1..=1_000).contains(&text.chars().count()) && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        possible.then(|| Self(text.to_owned())).ok_or(NoEmail)
    }
}

impl EmailToFind {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Carts that were found.
#[derive(Debug)]
pub struct Found {
    /// One page of them.
    pub page: CartPage,
    /// How many there are on all pages.
    pub total: i64,
}

/// More elements than any array has, and one that its subscripts, of 32 bits, can still name with a page behind it.
const LONGEST_ARRAY: i64 = 1 << 30;

/// The carts with this address, A to Z in either case, newest first: a page of
/// at most `limit`, with the links that work at `now`, and the exact total.
///
/// Takes time with the number of carts there are; not for connections that are
/// set to go by index.
pub async fn by_email(
    conn: &mut Connection,
    email: &EmailToFind,
    status: Option<CartStatus>,
    start: Start,
    limit: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<Found> {
    let (offset, after) = match start {
        Start::Offset(offset) => (offset.min(LONGEST_ARRAY), None),
        Start::After(cursor) => (0, Some(cursor)),
    };
    let (after_created_at, after_id) = after.map(Cursor::into_parts).unzip();
    // "C": no other lower() is as fast. One more than asked for tells whether there is a next page.
    let found = sqlx::query!(
        r#"
        select count(*) as "total!",
               (array_agg(id order by created_at desc, id desc)
                    filter (where (created_at, id) < (coalesce($3::timestamptz, 'infinity'), coalesce($4::text, '')))
               )[$5::bigint + 1 : $5::bigint + $6::bigint + 1] as ids
        from carts
        where octet_length(customer_email) = octet_length($1::text)
          and lower(customer_email collate "C") = lower($1::text collate "C")
          and ($2::text is null or status = $2)
        "#,
        email.0,
        status.map(CartStatus::as_str),
        after_created_at,
        after_id,
        offset,
        limit,
    )
    .fetch_one(&mut *conn)
    .await?;
    let mut ids = found.ids.unwrap_or_default();
    let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = ids.len() > asked_for;
    ids.truncate(asked_for);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut carts = carts::find_many(conn, &ids, now).await?;
    carts.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
    let next = carts.last().filter(|_| more).map(Cursor::after);
    Ok(Found { page: CartPage { carts, next }, total: found.total })
}

/// The ids of all carts with this address, A to Z in either case; at the same cost as [`by_email`].
pub(crate) async fn ids_by_email(conn: &mut Connection, email: &EmailToFind) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select id from carts
        where octet_length(customer_email) = octet_length($1::text)
          and lower(customer_email collate "C") = lower($1::text collate "C")
        "#,
        email.0,
    )
    .fetch_all(conn)
    .await
}
