//! Finding a shopper's carts.
//!
//! There is no index on the address: each would cost more with every cart that
//! is stored or expires than all searches of a shop are worth
//! (`docs/changing.md` has the figures). A search looks at each cart once, and
//! at little of it: most addresses differ in their length already.
//!
//! Two spellings name the same mailbox if their canonical forms are equal
//! ([`crate::email`]). Postgres compares addresses in ASCII without quotes and
//! white space, whose canonical form is their lower case. All other addresses
//! are compared in this module.

use chrono::{DateTime, Utc};

use crate::{
    cart_list::{CartPage, Cursor, Start},
    carts::{self, CartStatus},
    db::Connection,
    email,
};

/// A shopper's e-mail address, as somebody looks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmailToFind {
    given: String,
    canonical: String,
}

/// Not an address that a cart could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address")]
pub struct NoEmail;

impl std::str::FromStr for EmailToFind {
    type Err = NoEmail;

    /// Takes more than a cart does: rows that were written in SQL may have anything for an address.
    /// White space around the address is ignored.
    fn from_str(text: &str) -> Result<Self, NoEmail> {
        let given = text.trim();
        // A quoted local part may hold a tab.
        let has_control = given.chars().any(|c| c.is_control() && c != '\t');
        let possible = !given.is_empty() && text.chars().count() <= 1_000 && !has_control;
        possible.then(|| Self { given: given.to_owned(), canonical: email::canonical(given) }).ok_or(NoEmail)
    }
}

impl EmailToFind {
    /// The address as it was sent, trimmed.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// The canonical form, equal for all spellings of the mailbox.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The codes of the letters that a spelling in ASCII can begin with, for Postgres' `ascii()`.
    fn first(&self) -> Vec<i32> {
        let first = self.canonical.bytes().next().filter(u8::is_ascii);
        first.into_iter().flat_map(|letter| [letter, letter.to_ascii_uppercase()]).map(i32::from).collect()
    }

    fn is(&self, address: &str) -> bool {
        email::canonical(address) == self.canonical
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

/// The carts with this address in any spelling, newest first: a page of at most
/// `limit`, with the links that work at `now`, and the exact total.
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
    let query = Query { email, status, offset, after, limit };
    let mut matches = query.run(conn, &[]).await?;
    matches.others.retain(|address| email.is(address));
    if !matches.others.is_empty() {
        let spellings = matches.others;
        matches = query.run(conn, &spellings).await?;
    }
    let mut ids = matches.ids;
    let asked_for = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = ids.len() > asked_for;
    ids.truncate(asked_for);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut carts = carts::find_many(conn, &ids, now).await?;
    carts.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
    let next = carts.last().filter(|_| more).map(Cursor::after);
    Ok(Found { page: CartPage { carts, next }, total: matches.total })
}

struct Query<'a> {
    email: &'a EmailToFind,
    status: Option<CartStatus>,
    offset: i64,
    after: Option<Cursor>,
    limit: i64,
}

struct Matches {
    total: i64,
    /// The ids of a page, and one more if there is a next page.
    ids: Vec<String>,
    /// Distinct addresses that Postgres can't compare.
    others: Vec<String>,
}

impl Query<'_> {
    /// Selects carts whose address in lower case is the canonical form, or is one of `spellings`.
    async fn run(&self, conn: &mut Connection, spellings: &[String]) -> sqlx::Result<Matches> {
        let (after_created_at, after_id) = self.after.clone().map(Cursor::into_parts).unzip();
        // Collation "C" has the fastest lower(). Codes up to 34 are white space, control characters and the quote.
        // The last character is compared only where the length and the first letter fit, which halves the time.
        let found = sqlx::query!(
            r#"
            select count(*) filter (where matches) as "total!",
                   (array_agg(id order by created_at desc, id desc)
                        filter (where matches and (created_at, id) < (coalesce($3::timestamptz, 'infinity'), coalesce($4::text, '')))
                   )[$5::bigint + 1 : $5::bigint + $6::bigint + 1] as ids,
                   array_agg(distinct customer_email collate "C") filter (where not matches) as others
            from (
                select id, created_at, customer_email,
                       (octet_length(customer_email) = octet_length($1::text) and lower(customer_email collate "C") = $1)
                       or customer_email = any ($7::text[]) as matches
                from carts
                where ((octet_length(customer_email) = octet_length($1) and lower(customer_email collate "C") = $1)
                       or octet_length(customer_email) <> char_length(customer_email) or ascii(customer_email) <= 34
                       or (octet_length(customer_email) > octet_length($1) and ascii(customer_email) = any ($8::integer[])
                           and ascii(right(customer_email, 1)) <= 32))
                  and ($2::text is null or status = $2)
            ) candidate
            "#,
            self.email.canonical,
            self.status.map(CartStatus::as_str),
            after_created_at,
            after_id,
            self.offset,
            self.limit,
            spellings,
            &self.email.first(),
        )
        .fetch_one(conn)
        .await?;
        let (ids, others) = (found.ids.unwrap_or_default(), found.others.unwrap_or_default());
        Ok(Matches { total: found.total, ids, others })
    }
}

/// Returns the ids of all carts with this address, and its stored spellings. Costs as much as [`by_email`].
pub(crate) async fn ids_by_email(
    conn: &mut Connection,
    email: &EmailToFind,
) -> sqlx::Result<(Vec<String>, Vec<String>)> {
    let candidates = sqlx::query!(
        r#"
        select customer_email, array_agg(id) as "ids!" from carts
        where (octet_length(customer_email) = octet_length($1::text) and lower(customer_email collate "C") = $1)
           or octet_length(customer_email) <> char_length(customer_email) or ascii(customer_email) <= 34
           or (octet_length(customer_email) > octet_length($1) and ascii(customer_email) = any ($2::integer[])
               and ascii(right(customer_email, 1)) <= 32)
        group by customer_email
        "#,
        email.canonical,
        &email.first(),
    )
    .fetch_all(conn)
    .await?;
    let (mut ids, mut spellings) = (Vec::new(), Vec::new());
    for candidate in candidates.into_iter().filter(|candidate| email.is(&candidate.customer_email)) {
        ids.extend(candidate.ids);
        spellings.push(candidate.customer_email);
    }
    Ok((ids, spellings))
}
