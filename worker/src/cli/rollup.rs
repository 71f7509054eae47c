//! `worker rollup`: compacts or rebuilds the analytics counters.

use std::{error::Error, io::IsTerminal};

use common::{
    analytics::{
        self,
        rebuild::{self, Progress},
    },
    db::Database,
};

pub(super) async fn run(database: &Database, all: bool) -> Result<(), Box<dyn Error>> {
    if !all {
        let mut conn = database.acquire().await?;
        let folded = analytics::fold(&mut conn).await?;
        conn.commit().await?;
        println!("folded {folded} rows");
        return Ok(());
    }
    let rebuilt = rebuild::rebuild(database, show).await?;
    println!("counted {} carts: {} days, {} of them corrected", rebuilt.carts, rebuilt.days, rebuilt.corrected);
    println!("totals by status were {}", if rebuilt.totals_corrected { "wrong and are corrected" } else { "right" });
    println!("periods of the list's pages: {} corrected", rebuilt.periods_corrected);
    Ok(())
}

/// Prints progress: on a terminal one line that is overwritten, otherwise one line per step.
fn show(progress: Progress) {
    let percent = 100 * progress.blocks / progress.of.max(1);
    let line = format!("{percent} % of the table counted, {} carts", progress.carts);
    if std::io::stderr().is_terminal() {
        eprint!("\r{line}{}", if percent == 100 { "\n" } else { "" });
    } else {
        eprintln!("{line}");
    }
}
