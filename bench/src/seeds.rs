//! Carts to measure with, and the scripts that create the peers' tables.

use anyhow::Result;
use common::db::Database;
use sqlx::{AssertSqlSafe, PgPool};

/// Carts per statement.
const STATEMENT: i64 = 200_000;

/// Creates this many carts, compacted and vacuumed as by the worker and autovacuum.
pub(crate) async fn carts(pool: &PgPool, carts: i64) -> Result<()> {
    let mut from = 1;
    while from <= carts {
        let to = carts.min(from + STATEMENT - 1);
        sqlx::query(include_str!("../sql/many_carts.sql")).bind(from).bind(to).bind(carts).execute(pool).await?;
        if to % 1_000_000 == 0 {
            eprintln!("    {to} of {carts}");
        }
        from = to + 1;
    }
    common::analytics::add_up(&mut Database::from(pool.clone()).acquire().await?).await?;
    for table in ["carts", "cart_counts", "cart_count_deltas", "cart_totals", "cart_count_progress"] {
        sqlx::query(AssertSqlSafe(format!("vacuum analyze {table}"))).execute(pool).await?;
    }
    Ok(())
}

/// Runs each statement on its own, like psql, because `vacuum` can't run in a transaction.
pub(crate) async fn run_script(pool: &PgPool, statements: &'static str) -> Result<()> {
    for statement in statements.split(";\n") {
        sqlx::raw_sql(statement).execute(pool).await?;
    }
    Ok(())
}
