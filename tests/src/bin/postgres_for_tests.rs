//! Starts a Postgres for a test run, migrates a template database, prints its URL, and ends with
//! its standard input, even if the test run is killed.

use std::{io::Read, path::Path};

use anyhow::{Context, Result};
use common::{config::Env, db};
use sandbox::postgres::{Durability, PrivatePostgres, become_ordinary_user, random_word};

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("quick-checkout-tests-{}", random_word()));
    let outcome = become_ordinary_user(&folder).and_then(|folder| serve(&folder));
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

fn serve(folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let durability =
            if std::env::args().any(|word| word == "--durable") { Durability::Full } else { Durability::None };
        // All tests of a run share the server and run in parallel.
        let postgres =
            PrivatePostgres::start_with(&folder.join("postgres"), durability, &[("max_connections", "500")]).await?;
        postgres.ensure_database("template").await?;
        let template = db::from_env(&Env::of([("DATABASE_URL", postgres.url("template"))]), 1)?.database;
        db::prepare(&template).await?;
        // The roles, created like operators do. They belong to the whole server: their passwords are set
        // here, once, because two tests can't alter one role at the same moment.
        let passwords = "alter role checkout password 'checkout'; alter role checkout_owner password 'owner'";
        for sql in [tests::ROLES, passwords] {
            sqlx::raw_sql(sql).execute(&mut template.acquire().await?).await?;
        }
        template.close();
        println!("{}", postgres.url("postgres"));
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
            .await?
            .context("can't wait for the end of standard input")?;
        postgres.stop().await
    })
}
