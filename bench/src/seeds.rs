//! Carts to measure with, and the scripts that peers begin with.

use anyhow::Result;
use common::db::Database;
use sqlx::{AssertSqlSafe, PgPool};

/// Carts a statement.
const STATEMENT: i64 = 200_000;

/// So many carts, rolled up and vacuumed as the worker and autovacuum leave them.
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
    for table in ["carts", "cart_counts", "cart_count_deltas", "cart_totals"] {
        sqlx::query(AssertSqlSafe(format!("vacuum analyze {table}"))).execute(pool).await?;
    }
    Ok(())
}

/// Each statement by itself, as psql does: a vacuum takes no company.
pub(crate) async fn run_script(pool: &PgPool, statements: &'static str) -> Result<()> {
    for statement in statements.split(";\n") {
        sqlx::raw_sql(statement).execute(pool).await?;
    }
    Ok(())
}
