//! The lines that are printed: what was measured, the figure with its unit, and the ratio to a yardstick if there is one.

use std::time::Duration;

use anyhow::{Context, Result};

/// Width of the description, so that figures stand below each other.
const WHAT_WIDTH: usize = 70;

/// Width of the figure with its unit.
const FIGURE_WIDTH: usize = 16;

/// Prints a figure.
#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
pub(crate) fn line(what: &str, figure: &str, ratio: &str) {
    let line = format!("{what:<WHAT_WIDTH$} {figure:>FIGURE_WIDTH$}  {ratio}");
    println!("{}", line.trim_end());
}

/// Tells what went wrong.
#[expect(clippy::print_stderr, reason = "what a process of the benchmark cannot do, people must see")]
pub(crate) fn problem(error: &anyhow::Error) {
    eprintln!("{error:#}");
}

/// Says where the figures come from: processor, how many of them, kernel.
pub(crate) fn machine() -> Result<()> {
    let processors = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let count = std::thread::available_parallelism().context("the number of processors")?;
    let build = if cfg!(debug_assertions) { ", DEBUG BUILD" } else { "" };
    let (model, kernel) = (model.unwrap_or("unknown processor").trim(), kernel.trim());
    let version = env!("CARGO_PKG_VERSION");
    line(&format!("Spindle {version} on {count} x {model}, Linux {kernel}{build}"), "", "");
    Ok(())
}

/// A duration in milliseconds.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.4} ms", time.as_secs_f64() * 1e3)
}

/// A size in MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes_f64(bytes) / f64::from(1 << 20))
}

/// A size in KiB.
pub(crate) fn kibibytes(bytes: u64) -> String {
    format!("{:.1} KiB", bytes_f64(bytes) / 1024.0)
}

/// Sizes here are far below the 2^53 bytes that a float holds exactly.
#[expect(clippy::cast_precision_loss, reason = "printed with one digit behind the point")]
fn bytes_f64(bytes: u64) -> f64 {
    bytes as f64
}
