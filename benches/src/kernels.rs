//! `kernels`: compute kernels in C as functions, deadlines on, against the same source as a native
//! program of gcc -O3.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use model::{Kind, Limits};

use crate::Setting;
use crate::faaslets::{Function, call_of, expect_ok};
use crate::measure::{geometric_mean, median, micros};
use crate::report::Report;

/// The kernels; each computes for some tenths of a second unless told otherwise, and prints a sum
/// that both must agree on.
const KERNELS: [&str; 9] = [
    "gemm",
    "jacobi-2d",
    "heat-3d",
    "floyd-warshall",
    "sha256",
    "nbody",
    "qsort",
    "memcpy",
    "json",
];

/// Rounds, in each of which both run in turn.
const ROUNDS: usize = 7;

const FOLDER: &str = "guests/out/kernels";

/// One kernel's times, in milliseconds, and the median of the ratios of each round.
struct Times {
    native_ms: f64,
    function_ms: f64,
    ratio: f64,
}

/// Runs every kernel.
pub fn run(setting: &Setting) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::new("kernels", &["kernel", "native ms", "function ms", "ratio"]);
    let mut ratios = Vec::new();
    for name in KERNELS {
        eprintln!("  {name}");
        let folder = setting.root.join(FOLDER);
        let times = runtime
            .block_on(kernel(&folder, name))
            .with_context(|| name.to_owned())?;
        let cells = [
            format!("{:.1}", times.native_ms),
            format!("{:.1}", times.function_ms),
            format!("{:.2}", times.ratio),
        ];
        report.row(name, cells);
        ratios.push(times.ratio);
    }
    let (mean, worst) = (
        geometric_mean(&ratios),
        ratios.iter().copied().fold(0.0, f64::max),
    );
    report.row(
        "geometric mean",
        [String::new(), String::new(), format!("{mean:.2}")],
    );
    report.figure("geomean", mean);
    report.figure("worst", worst);
    Ok(report)
}

async fn kernel(folder: &Path, name: &str) -> Result<Times> {
    let path = folder.join(format!("{name}.wasm"));
    let wasm = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let function = Function::deploy(Kind::Command, wasm, 4).await?;
    let limits = Arc::new(function.spec.settings.limits.clone());
    let mut samples = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        let (native, native_said) = native(&folder.join(name))?;
        let (ours, we_said) = as_function(&function, &limits).await?;
        if native_said != we_said {
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            bail!(
                "native said {:?}, the function {:?}",
                show(&native_said),
                show(&we_said)
            );
        }
        if round > 0 {
            let figures = [native, ours, ours / native];
            samples
                .iter_mut()
                .zip(figures)
                .for_each(|(samples, figure)| samples.push(figure));
        }
    }
    let [native_ms, function_ms, ratio] = samples.map(|samples| median(&samples));
    Ok(Times {
        native_ms,
        function_ms,
        ratio,
    })
}

/// Milliseconds that the native program runs, and what it prints.
fn native(path: &Path) -> Result<(f64, Vec<u8>)> {
    let start = Instant::now();
    let output = Command::new(path).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {}", path.display()))?;
    if !output.status.success() {
        bail!("{} ended with {}", path.display(), output.status);
    }
    Ok((micros(start.elapsed()) / 1e3, output.stdout))
}

/// Milliseconds that a call and the reset of its sandbox take, and the reply.
async fn as_function(function: &Function, limits: &Arc<Limits>) -> Result<(f64, Vec<u8>)> {
    let mut sandbox = function.program.sandbox()?;
    let start = Instant::now();
    let done = sandbox
        .invoke(call_of(&function.spec, limits, Vec::new()))
        .await;
    sandbox.reset()?;
    let time = micros(start.elapsed()) / 1e3;
    expect_ok(&done)?;
    Ok((time, done.reply.to_vec()))
}
