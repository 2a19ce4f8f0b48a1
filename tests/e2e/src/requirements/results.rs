//! How tests ended, read from what the runners printed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{NamedTest, rows_of_case, rows_of_function};

/// How a test ended. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was run and passed.
    Passed,
    /// The machine lacked something.
    LeftOut,
    /// It was run and failed.
    Failed,
}

/// The outcomes of a run.
#[derive(Debug, Default)]
pub struct Results {
    /// By the name of the function.
    functions: BTreeMap<String, Outcome>,
    /// By row, for cases of the client suites, whose printed names have more in them than stands in the source.
    cases: BTreeMap<String, Outcome>,
}

impl Outcome {
    /// As the page says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::LeftOut => "left out",
            Self::Failed => "failed",
        }
    }
}

impl Results {
    /// What the logs in `folder` say; nothing when there is no such folder.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut results = Self::default();
        let Ok(files) = fs::read_dir(folder) else { return Ok(results) };
        for file in files {
            let bytes = fs::read(file?.path())?;
            String::from_utf8_lossy(&bytes).lines().for_each(|line| results.note(line));
        }
        Ok(results)
    }

    /// Takes one line of a log: `test PATH ... ok` of cargo, `passed  CASE` of the client suites.
    fn note(&mut self, line: &str) {
        if let Some((path, end)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            let outcome = match end.split_whitespace().next() {
                Some("ok") => Outcome::Passed,
                Some("FAILED") => Outcome::Failed,
                _ => Outcome::LeftOut,
            };
            // The cases of one function have the function as the last but one part of their path.
            for name in path.split(" - ").next().unwrap_or(path).rsplit("::").take(2) {
                if !rows_of_function(name).is_empty() {
                    worsen(&mut self.functions, name, outcome);
                }
            }
            return;
        }
        let Some((word, case)) = line.split_once(' ') else { return };
        let outcome = match word {
            "passed" => Outcome::Passed,
            "failed" => Outcome::Failed,
            "skipped" => Outcome::LeftOut,
            _ => return,
        };
        for row in rows_of_case(case) {
            worsen(&mut self.cases, &row, outcome);
        }
    }

    /// How `test` ended; none when it was not run.
    pub fn of(&self, test: &NamedTest) -> Option<Outcome> {
        if let Some(outcome) = self.functions.get(&test.name) {
            return Some(*outcome);
        }
        if !rows_of_function(&test.name).is_empty() {
            return None;
        }
        test.rows.iter().filter_map(|row| self.cases.get(row)).max().copied()
    }
}

fn worsen(outcomes: &mut BTreeMap<String, Outcome>, name: &str, outcome: Outcome) {
    let known = outcomes.entry(name.to_owned()).or_insert(outcome);
    *known = outcome.max(*known);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(lines: &[&str]) -> Results {
        let mut results = Results::default();
        lines.iter().for_each(|line| results.note(line));
        results
    }

    fn test(name: &str, rows: &[&str]) -> NamedTest {
        let rows = rows.iter().map(|row| (*row).to_owned()).collect();
        NamedTest { name: name.into(), file: "x.rs".into(), rows }
    }

    #[test]
    fn functions_and_cases_end_as_the_runners_print() {
        let results = results(&[
            "test cache::tests::wap_01_one ... ok",
            "test cache::tests::wap_02_two::case_1 ... ok",
            "test cache::tests::wap_02_two::case_2 ... FAILED",
            "test wap_03_three ... ignored",
            "passed  go fetches a token (WAP-40): two audiences",
            "failed  java fetches a token (WAP-41): why",
            "test result: ok. 3 passed",
        ]);
        assert_eq!(results.of(&test("wap_01_one", &["WAP-01"])), Some(Outcome::Passed));
        assert_eq!(results.of(&test("wap_02_two", &["WAP-02"])), Some(Outcome::Failed));
        assert_eq!(results.of(&test("wap_03_three", &["WAP-03"])), Some(Outcome::LeftOut));
        assert_eq!(results.of(&test("wap_04_four", &["WAP-04"])), None);
        assert_eq!(results.of(&test("fetches a token (WAP-40)", &["WAP-40"])), Some(Outcome::Passed));
        assert_eq!(results.of(&test("fetches a token (WAP-41)", &["WAP-41"])), Some(Outcome::Failed));
    }
}
