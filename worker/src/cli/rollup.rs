//! `worker rollup`: adds up the stored counts of carts, or corrects them.

use std::error::Error;

use common::{analytics, carts::search, db::Database};

/// Counting ten million carts takes about ten seconds.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3600);

pub(super) async fn run(database: &Database, all: bool) -> Result<(), Box<dyn Error>> {
    let mut conn = database.clone().with_statement_timeout(TIMEOUT).begin().await?;
    if all {
        eprintln!("counting all carts");
        let corrected = analytics::correct(&mut conn).await?;
        println!(
            "counted {} carts: {} counts, {} of them corrected",
            corrected.carts, corrected.periods, corrected.corrected
        );
        println!("{} carts will be indexed again for searches", search::index::index_all_again(&mut conn).await?);
    } else {
        println!("added up {} changes", analytics::add_up(&mut conn).await?);
    }
    conn.commit().await?;
    Ok(())
}
