//! Writes `docs/conformance.md`, or with `--count` says in one line how many requirements the last run proved.

use std::path::Path;

use spindle_e2e::requirements::{Page, Results, named_tests, rows};

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = rows(&root)?;
    let tests = named_tests(&root)?;
    let results = Results::read(&root.join("target/test-logs"))?;
    let page = Page { rows: &rows, tests: &tests, results: &results };
    let (passed, failed) = page.counts();
    let line = format!("SPIFFE requirements: {} rows, {passed} passed, {failed} failed", rows.len());
    if std::env::args().nth(1).as_deref() != Some("--count") {
        std::fs::write(root.join("docs/conformance.md"), page.render())?;
    }
    say(&line);
    for row in page.untested() {
        say(&format!("no test names {row}"));
    }
    anyhow::ensure!(failed == 0, "{failed} rows have a test that failed");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "its answer")]
fn say(line: &str) {
    println!("{line}");
}
