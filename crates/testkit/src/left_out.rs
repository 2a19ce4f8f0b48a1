//! Tests that a machine cannot run: they say so, and fail where nothing may be left out.
//!
//! Crates without the test kit take this file by its path.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

/// Where this is set, as in CI, a test that is left out fails.
const REQUIRE_ALL: &str = "SPINDLE_REQUIRE_ALL";
/// A file that gathers what was left out; `tests/run` prints it at the end.
const GATHERED: &str = "SPINDLE_LEFT_OUT";

/// Says that `what` is not tested, past the capture of the test harness.
///
/// # Panics
/// When nothing may be left out, or the file that gathers it cannot be written.
pub fn left_out(what: &str, why: &str) {
    assert!(env::var_os(REQUIRE_ALL).is_none(), "nothing may be left out here, yet {what} is: {why}");
    let line = format!("{what}: {why}\n");
    // A closed output is no reason to fail.
    let _ = write!(std::io::stderr(), "left out: {line}");
    if let Some(path) = env::var_os(GATHERED) {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("what is left out can be noted");
    }
}
