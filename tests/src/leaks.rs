//! Searches all columns of the database for texts that must not be stored.

use sqlx::{AssertSqlSafe, PgPool};

/// A column of the database.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredColumn {
    /// The name of its table.
    pub table: String,
    /// The name of the column.
    pub column: String,
    /// Its type, in Postgres' terms.
    pub kind: String,
}

/// All columns of all tables.
///
/// # Panics
/// If Postgres is unavailable.
pub async fn columns(pool: &PgPool) -> Vec<StoredColumn> {
    sqlx::query_as(
        r#"
        select tables.table_name::text as "table", columns.column_name::text as "column", columns.data_type::text as kind
        from information_schema.tables
        join information_schema.columns using (table_schema, table_name)
        where table_schema = 'public' and table_type = 'BASE TABLE'
        order by 1, columns.ordinal_position
        "#,
    )
    .fetch_all(pool)
    .await
    .expect("Postgres is there")
}

/// The columns that contain one of these words in any case, with the word.
///
/// # Panics
/// If Postgres is unavailable.
pub async fn mentions(pool: &PgPool, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for StoredColumn { table, column, kind } in columns(pool).await {
        let text =
            if kind == "bytea" { format!("encode(\"{column}\", 'escape')") } else { format!("\"{column}\"::text") };
        let query = AssertSqlSafe(format!(
            "select distinct '{table}.{column}: ' || word from \"{table}\", unnest($1::text[]) word
             where position(lower(word) in lower({text})) > 0",
        ));
        let here: Vec<String> = sqlx::query_scalar(query).bind(words).fetch_all(pool).await.expect("Postgres is there");
        found.extend(here);
    }
    found
}
