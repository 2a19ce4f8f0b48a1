//! The requirements of the SPIFFE standards, the tests that prove them, and the page that shows both.
//!
//! `docs/requirements.tsv` lists the rows. A test names the rows it proves: a Rust test by the beginning of its name
//! (`wap_40_...`, `wap_41_wap_64_...`), a case of the client suites by the ID in the case's name (`WAP-40`). What a run
//! printed says how the tests ended. Start at [`Page::render`].

mod names;
mod results;
mod rows;

use std::collections::BTreeMap;
use std::fmt::Write as _;

pub use names::{NamedTest, named_tests, rows_of_case, rows_of_function};
pub use results::{Outcome, Results};
pub use rows::{Row, Standard, rows};

/// Everything the page shows.
pub struct Page<'a> {
    /// All rows, in the order of the list.
    pub rows: &'a [Row],
    /// All tests that name rows.
    pub tests: &'a [NamedTest],
    /// How they ended; empty before a run.
    pub results: &'a Results,
}

impl Page<'_> {
    /// `docs/conformance.md`.
    pub fn render(&self) -> String {
        let by_row = self.by_row();
        let mut page = String::from(HEAD);
        page += "\n| Standard | Rows | MUST and must\\* | of them with a test | all rows with a test |\n|---|---|---|---|---|\n";
        for standard in Standard::ALL {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.standard == standard).collect();
            let is_tested = |row: &&&Row| by_row.contains_key(row.id.as_str());
            let binding = rows.iter().filter(|row| row.is_binding()).count();
            let binding_tested = rows.iter().filter(|row| row.is_binding()).filter(is_tested).count();
            let tested = rows.iter().filter(is_tested).count();
            let line = format!(
                "| {} | {} | {binding} | {binding_tested} | {tested} |",
                standard.title(),
                rows.len()
            );
            page += &line;
            page.push('\n');
        }
        for standard in Standard::ALL {
            let _ = write!(page, "\n## {}\n\n", standard.title());
            page +=
                "| Row | Level | Binds | Section | What | Tests | Result |\n|---|---|---|---|---|---|---|\n";
            for row in self.rows.iter().filter(|row| row.standard == standard) {
                let tests = by_row.get(row.id.as_str()).map_or(&[][..], Vec::as_slice);
                page += &self.line(row, tests);
            }
        }
        page
    }

    /// The IDs of rows that have to have a test and have none.
    pub fn untested(&self) -> Vec<&str> {
        let by_row = self.by_row();
        let untested =
            self.rows.iter().filter(|row| row.is_binding() && !by_row.contains_key(row.id.as_str()));
        untested.map(|row| row.id.as_str()).collect()
    }

    /// How many rows have only tests that passed, and how many have one that failed.
    pub fn counts(&self) -> (usize, usize) {
        let by_row = self.by_row();
        let outcomes = by_row.values().map(|tests| self.outcome(tests));
        outcomes.fold((0, 0), |(passed, failed), outcome| match outcome {
            Some(Outcome::Passed) => (passed + 1, failed),
            Some(Outcome::Failed) => (passed, failed + 1),
            _ => (passed, failed),
        })
    }

    fn by_row(&self) -> BTreeMap<&str, Vec<&NamedTest>> {
        let mut by_row: BTreeMap<&str, Vec<&NamedTest>> = BTreeMap::new();
        for test in self.tests {
            for row in &test.rows {
                by_row.entry(row).or_default().push(test);
            }
        }
        by_row
    }

    fn line(&self, row: &Row, tests: &[&NamedTest]) -> String {
        let names: Vec<String> =
            tests.iter().map(|test| format!("`{}` ({})", test.name, test.file)).collect();
        let result = match (self.outcome(tests), tests.is_empty()) {
            (_, true) => "no test",
            (None, _) => "not run",
            (Some(outcome), _) => outcome.word(),
        };
        let Row { id, level, binds, section, requirement, .. } = row;
        let (level, requirement) = (level.replace('*', "\\*"), requirement.replace('|', "\\|"));
        format!(
            "| {id} | {level} | {binds} | {section} | {requirement} | {} | {result} |\n",
            names.join("<br>")
        )
    }

    /// The worst of these tests' outcomes; none when none of them was run.
    fn outcome(&self, tests: &[&NamedTest]) -> Option<Outcome> {
        tests.iter().filter_map(|test| self.results.of(test)).max()
    }
}

const HEAD: &str = "\
# The SPIFFE standards, row by row

Made by `make conformance-page` out of [requirements.tsv](requirements.tsv), the names of the tests and what the last `make test`
printed; not to be edited by hand. The levels MUST, SHOULD and MAY are the standards' own words; with a star they are said in other
words. That every MUST, in either form, has a test that names it, and that the page is of these sources, are tests, too
(`tests/e2e/tests/requirements.rs`).
";
