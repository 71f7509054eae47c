//! Reports the peak memory of the processes.

use anyhow::{Context, Result};

use crate::{http_rows::SCRATCH, results::Sample, scene::Scene};

/// Starts the services. On its own this row reports little, because earlier loads count.
pub(crate) async fn prepare(scene: &mut Scene) -> Result<()> {
    scene.prepare_product(SCRATCH, 0).await?;
    scene.prepare_worker(SCRATCH).await
}

pub(crate) fn take(scene: &Scene) -> Result<Vec<(&'static str, Sample)>> {
    let mut apis = 0.0;
    for product in scene.products.values() {
        apis = f64::max(apis, product.api.process.peak_memory()?);
    }
    let worker = scene.worker.as_ref().context("there is no worker")?.peak_memory()?;
    let rows = [("memory-api", apis), ("memory-worker", worker)];
    Ok(rows
        .map(|(row, ours)| (row, Sample { ours, theirs: 0.0 }))
        .into_iter()
        .filter(|(row, _)| scene.wants(row))
        .collect())
}
