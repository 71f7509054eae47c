//! `worker migrate`: applies pending migrations.

use common::db::{self, Database};

/// Waits for Postgres like a starting process, applies pending migrations and prints their names.
pub(super) async fn run(database: &Database) -> Result<(), Box<dyn std::error::Error>> {
    let applied = db::migrate(database).await?;
    for migration in &applied {
        println!("applied {migration}");
    }
    println!("the schema is current");
    Ok(())
}
