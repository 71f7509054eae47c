//! Writes `docs/performance.md` and its pictures from a run of all rows.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::Path,
};

use anyhow::{Context, Result};

use crate::{plots, rows::Unit, speed::Report};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
/// The markers around the table.
const BEGIN: &str = "<!-- begin of what bench writes -->\n";
const END: &str = "<!-- end of what bench writes -->\n";

/// The files, opened before the process gives up root.
#[derive(Debug)]
pub(crate) struct Docs {
    page: File,
    reached: File,
    rates: File,
    waits: File,
}

impl Docs {
    pub(crate) fn open() -> Result<Self> {
        let open = |name: &str| {
            let path = Path::new(FOLDER).join(name);
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            file.with_context(|| format!("can't write {}", path.display()))
        };
        Ok(Self {
            page: open("performance.md")?,
            reached: open("performance-reached.svg")?,
            rates: open("performance-rates.svg")?,
            waits: open("performance-waits.svg")?,
        })
    }

    pub(crate) fn write(mut self, report: &Report) -> Result<()> {
        let mut page = String::new();
        self.page.read_to_string(&mut page)?;
        let (before, rest) = page.split_once(BEGIN).context("docs/performance.md has no place for the table")?;
        let (_, after) = rest.split_once(END).context("docs/performance.md has no end of the table")?;
        put(&mut self.page, &format!("{before}{BEGIN}{}{END}{after}", report.markdown()))?;
        put(&mut self.reached, &plots::reached(&report.rows, &report.results)?)?;
        put(&mut self.rates, &plots::sides(&report.rows, &report.results, Unit::PerSecond)?)?;
        put(&mut self.waits, &plots::sides(&report.rows, &report.results, Unit::Milliseconds)?)
    }
}

fn put(file: &mut File, text: &str) -> Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    Ok(file.write_all(text.as_bytes())?)
}
