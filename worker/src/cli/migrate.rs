//! `worker migrate`: the schema, brought up to date by whoever may.

use common::db::{self, Database};

/// Waits for Postgres as a starting process does, and says what was done.
pub(super) async fn run(database: &Database) -> Result<(), Box<dyn std::error::Error>> {
    let applied = db::migrate(database).await?;
    for migration in &applied {
        println!("applied {migration}");
    }
    println!("the schema is current");
    Ok(())
}
