//! Where in the database something stands that should not.

use sqlx::{AssertSqlSafe, PgPool};

/// A column, as Postgres knows it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredColumn {
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
    /// What type it has, in Postgres' words.
    pub kind: String,
}

/// Every column of every table.
///
/// # Panics
/// If Postgres is away.
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

/// The columns in which one of these words stands, in whatever letter case, and the word.
///
/// # Panics
/// If Postgres is away.
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
