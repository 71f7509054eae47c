//! Exports the stored data of a person.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::AssertSqlSafe;

use super::statements;
use crate::db::Connection;

/// All rows about some carts, by kind.
#[derive(Debug)]
pub struct Records(Vec<(&'static str, Box<RawValue>)>);

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(label, rows)| (label, rows)))
    }
}

/// Everything that the database stores about these carts and their shoppers.
///
/// Scans the tables of jobs, idempotency keys and Stripe events.
pub async fn export(conn: &mut Connection, ids: &[&str]) -> sqlx::Result<Records> {
    let mut records = Vec::new();
    for statements in statements::all() {
        let rows: String =
            sqlx::query_scalar(AssertSqlSafe(statements.export.as_str())).bind(ids).fetch_one(&mut *conn).await?;
        let rows = RawValue::from_string(rows).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        records.push((statements.label, rows));
    }
    Ok(Records(records))
}
