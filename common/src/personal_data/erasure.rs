//! Erases a person's data from the database.

use std::{collections::HashMap, fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, types::Json};
use type_safe_id::{StaticType, TypeSafeId};
use utoipa::ToSchema;

use super::statements;
use crate::{
    carts::{self, search::EmailToFind},
    db::{self, Connection},
    payment_links,
};

/// How long an erasure waits for a locked cart. Meanwhile the person's other carts stay locked, and
/// other erasures wait. On time-out the erasure fails with an error for which [`db::is_locked`] is
/// true.
const LOCK_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
struct ErasureType;

impl StaticType for ErasureType {
    const TYPE: &'static str = "erasure";
}

/// `erasure_` and a time-ordered suffix: the TypeID form of a UUIDv7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureId(String);

/// The text does not have the form of a receipt's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a receipt's id")]
pub struct MalformedErasureId;

impl FromStr for ErasureId {
    type Err = MalformedErasureId;

    fn from_str(text: &str) -> Result<Self, MalformedErasureId> {
        let id: TypeSafeId<ErasureType> = text.parse().map_err(|_| MalformedErasureId)?;
        Ok(Self(id.to_string()))
    }
}

impl fmt::Display for ErasureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A receipt of an erasure. It does not identify the person.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErasureReceipt)]
pub struct Receipt {
    /// The receipt's id.
    #[schema(pattern = "^erasure_[0-7][0-9a-hjkmnp-tv-z]{25}$", example = "erasure_01m84zjdhtftc9p973qfnt3nn0")]
    pub id: String,
    /// The time of the erasure.
    pub erased_at: DateTime<Utc>,
    /// The number of affected rows of each kind: deleted carts and timeline events, and links, jobs
    /// and idempotency keys from which personal data was removed.
    #[schema(value_type = std::collections::BTreeMap<String, u64>,
        example = json!({"carts": 2, "timeline": 9, "paymentLinks": 1, "recoveryLinks": 1, "jobs": 1, "idempotencyKeys": 2}))]
    pub removed: Box<RawValue>,
}

/// How thoroughly to search for rows besides the carts.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    /// Only rows that an index finds.
    Carts,
    /// All rows about the carts, and rows that contain one of these spellings of an address. Scans
    /// the tables.
    Everywhere(&'a [String]),
}

/// Removes the personal data of these carts from all related rows, and deletes the carts. The carts
/// must be locked.
///
/// The data that is kept does not identify the shopper; see [`super::fields`].
pub(crate) async fn erase_carts(conn: &mut Connection, ids: &[String], now: DateTime<Utc>) -> sqlx::Result<u64> {
    blank_around(conn, ids, Scope::Carts, now).await?;
    delete_carts(conn, ids).await
}

async fn delete_carts(conn: &mut Connection, ids: &[String]) -> sqlx::Result<u64> {
    let deleted = sqlx::query!("delete from carts where id = any ($1)", ids).execute(conn).await?;
    Ok(deleted.rows_affected())
}

/// Removes personal data from all tables except the carts, and closes their sessions at Stripe, so
/// that nobody pays for a deleted cart. Returns the number of changed rows by kind.
async fn blank_around(
    conn: &mut Connection,
    ids: &[String],
    scope: Scope<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<HashMap<&'static str, u64>> {
    payment_links::close_all(conn, ids, now).await?;
    let spellings = match scope {
        Scope::Everywhere(spellings) => spellings,
        Scope::Carts => &[],
    };
    let mut blanked = HashMap::new();
    for statements in statements::all() {
        let statement = match scope {
            Scope::Carts => &statements.blank,
            Scope::Everywhere(_) => &statements.blank_by_scan,
        };
        let Some(statement) = statement else { continue };
        let query = sqlx::query(AssertSqlSafe(statement.as_str())).bind(ids).bind(now).bind(spellings);
        blanked.insert(statements.label, query.execute(&mut *conn).await?.rows_affected());
    }
    Ok(blanked)
}

/// Like [`erase_carts`], but leaves the carts as they are; see [`super::anonymize_batch`].
pub(super) async fn blank_around_carts(conn: &mut Connection, ids: &[String], now: DateTime<Utc>) -> sqlx::Result<()> {
    blank_around(conn, ids, Scope::Carts, now).await?;
    Ok(())
}

/// Erases the person with this address, in any spelling, and stores a receipt. Must run in a
/// transaction, so that it takes effect as a whole.
///
/// Finds every cart that was stored before the start. Scans the tables.
pub async fn erase(conn: &mut Connection, email: &EmailToFind, now: DateTime<Utc>) -> sqlx::Result<Receipt> {
    let (found, stored) = carts::search::ids_by_email(conn, email).await?;
    let spellings = spellings(email, stored);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    db::limit_lock_waits(conn, LOCK_WAIT).await?;
    // Lock the carts first, like all other code, and in the common order.
    let locked: Vec<String> = carts::lock_all(conn, &found).await?.into_iter().collect();
    // Meanwhile a cart may have become another person's.
    let mut ids = carts::search::still_of(conn, &locked, email).await?;
    ids.sort_unstable();

    let mut removed = HashMap::new();
    for statements in statements::all() {
        let Some(count) = &statements.count else { continue };
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count.as_str())).bind(&ids).fetch_one(&mut *conn).await?;
        removed.insert(statements.label, count.unsigned_abs());
    }
    removed.extend(blank_around(conn, &ids, Scope::Everywhere(&spellings), now).await?);
    delete_carts(conn, &ids).await?;
    keep_receipt(conn, &removed, now).await
}

/// The spellings of the address that stored messages may contain: as given, as stored and
/// canonical, in Unicode upper and lower case, and each of these escaped as in JSON. `A` to `Z` are
/// in lower case, because Postgres compares in lower case.
fn spellings(email: &EmailToFind, stored: Vec<String>) -> Vec<String> {
    let mut spellings = stored;
    spellings.extend([email.as_str().to_owned(), email.canonical().to_owned()]);
    // A text without an @ could match unrelated messages.
    spellings.retain(|address| address.contains('@'));
    let cases: Vec<String> = spellings.iter().flat_map(|text| [text.to_uppercase(), text.to_lowercase()]).collect();
    spellings.extend(cases);
    let in_json = |address: &String| {
        let json = serde_json::to_string(address).unwrap_or_default();
        json.get(1..json.len().saturating_sub(1)).filter(|text| text != address).map(str::to_owned)
    };
    let escaped: Vec<String> = spellings.iter().filter_map(in_json).collect();
    spellings.extend(escaped);
    spellings.iter_mut().for_each(|spelling| spelling.make_ascii_lowercase());
    spellings.sort_unstable();
    spellings.dedup();
    spellings
}

async fn keep_receipt(
    conn: &mut Connection,
    removed: &HashMap<&'static str, u64>,
    now: DateTime<Utc>,
) -> sqlx::Result<Receipt> {
    let id = TypeSafeId::<ErasureType>::new().to_string();
    let in_order: Vec<String> = statements::all()
        .iter()
        .filter_map(|statements| removed.get(statements.label).map(|count| (statements.label, count)))
        .map(|(label, count)| format!("\"{label}\":{count}"))
        .collect();
    let removed = RawValue::from_string(format!("{{{}}}", in_order.join(",")))
        .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query!(
        "insert into erasures (id, erased_at, removed) values ($1, $2, $3::text::json)",
        id,
        now,
        removed.get(),
    )
    .execute(conn)
    .await?;
    Ok(Receipt { id, erased_at: now, removed })
}

/// The receipt with this id; `None` if there is none.
pub async fn receipt(conn: &mut Connection, id: &ErasureId) -> sqlx::Result<Option<Receipt>> {
    let row = sqlx::query!(
        r#"select id, erased_at, removed as "removed: Json<Box<RawValue>>" from erasures where id = $1"#,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Receipt { id: row.id, erased_at: row.erased_at, removed: row.removed.0 }))
}
