//! Finds carts by the shopper's e-mail address.
//!
//! The address has no index: an index would add more cost to every insert and expiry than all
//! searches of a shop are worth (`docs/performance.md` has the figures). A search scans all carts
//! twice, and compares the lengths of the addresses first, which rules out most of them.
//!
//! Two spellings name the same mailbox if their canonical forms are equal ([`crate::email`]).
//! Postgres compares addresses in ASCII without quotes and white space, whose canonical form is
//! their lower case. All other addresses are compared in this module.

pub mod index;
pub mod text;

use std::collections::HashSet;

use futures_util::TryStreamExt;

use crate::{db::Connection, email};

/// An e-mail address to search for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmailToFind {
    given: String,
    canonical: String,
}

/// The text can't be the address of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address")]
pub struct NoEmail;

impl std::str::FromStr for EmailToFind {
    type Err = NoEmail;

    /// Accepts more than a new cart does, because rows written in SQL may have any text as their
    /// address. White space around the address is ignored.
    fn from_str(text: &str) -> Result<Self, NoEmail> {
        let given = text.trim();
        // Quoted local parts may contain tabs.
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

    /// The code points that an ASCII spelling of the address can begin with, for Postgres'
    /// `ascii()`.
    fn first(&self) -> Vec<i32> {
        let first = self.canonical.bytes().next().filter(u8::is_ascii);
        first.into_iter().flat_map(|letter| [letter, letter.to_ascii_uppercase()]).map(i32::from).collect()
    }

    /// Whether `address` is a spelling of the same mailbox.
    pub fn matches(&self, address: &str) -> bool {
        email::canonical(address) == self.canonical
    }
}

/// The id of the cart with this external id; `None` if there is none.
pub async fn find_external(conn: &mut Connection, external_id: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select id from carts where external_id = $1", external_id).fetch_optional(conn).await
}

/// Returns the ids of all carts with this address, and those of its stored spellings that differ
/// from the canonical form in more than the case of `A` to `Z`.
///
/// Scans all carts. Don't use a connection that is restricted to index scans.
pub(crate) async fn ids_by_email(
    conn: &mut Connection,
    email: &EmailToFind,
) -> sqlx::Result<(Vec<String>, Vec<String>)> {
    let spellings = other_spellings(conn, email).await?;
    let ids = sqlx::query_scalar!(
        r#"
        select id from carts
        where (octet_length(customer_email) = octet_length($1::text) and lower(customer_email collate "C") = $1)
           or customer_email in (select unnest($2::text[]))
        "#,
        email.canonical,
        &spellings,
    )
    .fetch_all(conn)
    .await?;
    Ok((ids, spellings))
}

/// Returns those of the carts that have this address. To stay so, they must be locked.
pub(crate) async fn still_of(conn: &mut Connection, ids: &[String], email: &EmailToFind) -> sqlx::Result<Vec<String>> {
    let carts = sqlx::query!("select id, customer_email from carts where id = any ($1)", ids).fetch_all(conn).await?;
    Ok(carts.into_iter().filter(|cart| email.matches(&cart.customer_email)).map(|cart| cart.id).collect())
}

/// Returns the stored spellings of the address that Postgres can't compare. Reads one address at a
/// time, because a table may hold millions of such addresses.
async fn other_spellings(conn: &mut Connection, email: &EmailToFind) -> sqlx::Result<Vec<String>> {
    // Codes up to 34 are white space, control characters and the quote. The last character is
    // compared only if the length and the first letter match, which halves the time.
    let mut addresses = sqlx::query_scalar!(
        r#"
        select customer_email from carts
        where octet_length(customer_email) <> char_length(customer_email) or ascii(customer_email) <= 34
           or (octet_length(customer_email) > octet_length($1::text) and ascii(customer_email) = any ($2::integer[])
               and ascii(right(customer_email, 1)) <= 32)
        "#,
        email.canonical,
        &email.first(),
    )
    .fetch(conn);
    let mut spellings = HashSet::new();
    while let Some(address) = addresses.try_next().await? {
        if email.matches(&address) {
            spellings.insert(address);
        }
    }
    Ok(spellings.into_iter().collect())
}
