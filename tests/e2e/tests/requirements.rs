//! The list of requirements, the names of the tests and the page made of them, held against each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use spindle_e2e::requirements::{Page, Results, named_tests, rows};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_test_names_rows_that_there_are() {
    let known: BTreeSet<String> = rows(&root()).unwrap().into_iter().map(|row| row.id).collect();
    for test in named_tests(&root()).unwrap() {
        for row in &test.rows {
            assert!(known.contains(row), "{} in {} names {row}", test.name, test.file);
        }
    }
}

#[test]
fn every_row_that_must_be_obeyed_has_a_test_that_names_it() {
    let (rows, tests) = (rows(&root()).unwrap(), named_tests(&root()).unwrap());
    let page = Page { rows: &rows, tests: &tests, results: &Results::default() };
    let untested = page.untested();
    assert!(untested.is_empty(), "no test names {}", untested.join(", "));
}

#[test]
fn the_page_shows_the_rows_and_the_tests_of_now() {
    let (rows, tests) = (rows(&root()).unwrap(), named_tests(&root()).unwrap());
    let page = Page { rows: &rows, tests: &tests, results: &Results::default() }.render();
    let written = std::fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let without_results = |page: &str| -> Vec<String> {
        page.lines().map(|line| line.rsplit_once(" | ").map_or(line, |(rest, _)| rest).to_owned()).collect()
    };
    let differs = without_results(&page) != without_results(&written);
    assert!(
        !differs,
        "docs/conformance.md is not of these sources: run `make conformance-page` after `make test`"
    );
    assert!(!written.contains("| failed |"), "it tells of a run in which all passed");
}
