//! Measures the requests that scan all rows to find a person. Their time grows with the tables, so
//! it is reported without a target.

use std::{fmt::Write, time::Instant};

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{figures::median, http_rows, scene::Scene, size_side::Side};

#[derive(Debug, Clone, Copy)]
enum Look {
    Search,
    Export,
    Erase,
}

const LOOKS: [(Look, &str); 3] = [
    (Look::Search, "a search for an address"),
    (Look::Export, "everything of a person, exported"),
    (Look::Erase, "a person's erasure"),
];

/// Medians of this many rounds. Each round erases another of the last people of the small side, who
/// have carts on both sides.
pub(crate) async fn table(scene: &Scene, sides: [&Side; 2], carts: i64, rounds: u32) -> Result<String> {
    let mut table = String::from("| what | small | big |\n|---|--:|--:|\n");
    for (look, what) in LOOKS {
        eprintln!("looks: {what}");
        let mut took = [Vec::new(), Vec::new()];
        for round in 1..=rounds {
            let email = format!("user{}@example.com", carts - i64::from(round));
            for (side, took) in sides.iter().zip(&mut took) {
                let address = &scene.product(side.database)?.api.address;
                let begun = Instant::now();
                let found = look.at(address, &email).await?;
                took.push(begun.elapsed().as_secs_f64());
                ensure!(found.as_i64() >= Some(1), "{what} finds {found} carts of {email}");
            }
        }
        writeln!(table, "| {what} | {:.3} s | {:.3} s |", median(&took[0]), median(&took[1]))?;
    }
    Ok(table)
}

impl Look {
    /// The number of carts that were found.
    async fn at(self, address: &str, email: &str) -> Result<Value> {
        let answer = match self {
            Self::Search => http_rows::json(address, &format!("/api/carts?email={email}")).await?,
            Self::Export => http_rows::json(address, &format!("/api/erasure/export?email={email}")).await?,
            Self::Erase => {
                let request = http_rows::request(Method::POST, address, "/api/erasure")?;
                let receipt = http_rows::answer(request.json(&json!({"email": email}))).await?;
                return Ok(receipt["data"]["removed"]["carts"].clone());
            }
        };
        Ok(answer["data"]["pagination"]["total"].clone())
    }
}
