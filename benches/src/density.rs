//! `density`: what an idle sandbox holds, its page tables included.

use std::sync::Arc;

use anyhow::{Context, Result};
use model::Kind;

use crate::Setting;
use crate::faaslets::{Function, call_of, expect_ok};
use crate::measure::status_kib;
use crate::report::Report;
use crate::start::toucher;

/// Sandboxes that are held at once.
const SANDBOXES: usize = 10_000;

/// Holds [`SANDBOXES`] that were each called once and restored.
pub fn run(_: &Setting) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<Report> {
    let function = Function::deploy(Kind::Reactor, toucher(1)?, SANDBOXES + 64).await?;
    let limits = Arc::new(function.spec.settings.limits.clone());
    // What the first sandbox makes once for all is no sandbox's own.
    let mut idle = vec![restored(&function, &limits).await?];
    let before = held()?;
    while idle.len() <= SANDBOXES {
        let sandbox = restored(&function, &limits).await;
        idle.push(sandbox.with_context(|| format!("sandbox number {}", idle.len()))?);
    }
    let after = held()?;
    let each = |at: usize| (after[at] - before[at]) / SANDBOXES as f64;
    let mut report = Report::new("density", &["idle restored sandbox", "KiB"]);
    report.row("resident memory", [format!("{:.2}", each(0))]);
    report.row("page tables", [format!("{:.2}", each(1))]);
    report.row("together", [format!("{:.2}", each(0) + each(1))]);
    report.figure("sandbox_kib", each(0) + each(1));
    Ok(report)
}

async fn restored(
    function: &Function,
    limits: &Arc<model::Limits>,
) -> Result<Box<dyn sandbox::Sandbox>> {
    let mut sandbox = function.program.sandbox()?;
    expect_ok(
        &sandbox
            .invoke(call_of(&function.spec, limits, Vec::new()))
            .await,
    )?;
    sandbox.reset()?;
    Ok(sandbox)
}

/// Resident memory and page tables of this process, in KiB.
fn held() -> Result<[f64; 2]> {
    Ok([status_kib("VmRSS")?, status_kib("VmPTE")?])
}
