//! Which rows a test proves, by its name, and all tests of the sources that prove one.

use std::fs;
use std::path::Path;

use super::Standard;

/// A test that names rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedTest {
    /// The function's name, or the name of a case of the client suites as far as it stands in the source.
    pub name: String,
    /// Where it is, from the root of the repository.
    pub file: String,
    /// The rows it names, at least one.
    pub rows: Vec<String>,
}

/// How far above a function its test attribute may stand: other attributes and arguments of cases come between.
const ATTRIBUTE_LINES: usize = 24;

/// The rows that a function's name begins with: pairs of a prefix and a number, all joined by underscores. One prefix may
/// have several numbers.
pub fn rows_of_function(name: &str) -> Vec<String> {
    let (mut rows, mut prefix) = (Vec::new(), None);
    for part in name.split('_') {
        if let Some(standard) = Standard::ALL.iter().find(|one| one.prefix().eq_ignore_ascii_case(part)) {
            prefix = Some(standard.prefix());
        } else if let (Some(prefix), true) = (prefix, is_number(part)) {
            rows.push(format!("{prefix}-{part}"));
        } else {
            break;
        }
    }
    rows
}

/// The rows whose IDs stand in the name of a case, such as `WAP-40`.
pub fn rows_of_case(name: &str) -> Vec<String> {
    let words = name.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
    let is_row = |word: &&str| {
        let known = |(prefix, number): (&str, &str)| {
            is_number(number) && Standard::ALL.iter().any(|one| one.prefix() == prefix)
        };
        word.split_once('-').is_some_and(known)
    };
    words.filter(is_row).map(str::to_owned).collect()
}

fn is_number(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// All tests of the sources below `root` that name rows, sorted.
///
/// # Errors
/// When a source cannot be read.
pub fn named_tests(root: &Path) -> anyhow::Result<Vec<NamedTest>> {
    let mut tests = Vec::new();
    for folder in ["crates", "tests/e2e"] {
        walk(root, Path::new(folder), &mut tests)?;
    }
    walk(root, Path::new("tests/clients"), &mut tests)?;
    tests.sort();
    tests.dedup();
    Ok(tests)
}

fn walk(root: &Path, folder: &Path, tests: &mut Vec<NamedTest>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if !matches!(entry.file_name().to_str(), Some("target" | "node_modules")) {
                walk(root, &path, tests)?;
            }
            continue;
        }
        let file = path.to_string_lossy().into_owned();
        let found = match path.extension().and_then(|ending| ending.to_str()) {
            Some("rs") => functions(&fs::read_to_string(root.join(&path))?),
            Some("py") => cases(&fs::read_to_string(root.join(&path))?),
            _ => Vec::new(),
        };
        tests.extend(found.into_iter().map(|(name, rows)| NamedTest { name, file: file.clone(), rows }));
    }
    Ok(())
}

/// The test functions of a Rust source that name rows.
fn functions(source: &str) -> Vec<(String, Vec<String>)> {
    let lines: Vec<&str> = source.lines().collect();
    let named = lines.iter().enumerate().filter_map(|(at, line)| {
        let rest = line.trim_start().strip_prefix("async ").unwrap_or(line.trim_start());
        let name = rest.strip_prefix("fn ")?.split(['(', '<']).next()?;
        let rows = rows_of_function(name);
        let above = lines[at.saturating_sub(ATTRIBUTE_LINES)..at].iter().rev();
        let mut attributes = above.take_while(|line| !line.trim_end().ends_with('}'));
        let is_test = attributes.any(|line| is_test_attribute(line.trim_start()));
        (!rows.is_empty() && is_test).then(|| (name.to_owned(), rows))
    });
    named.collect()
}

fn is_test_attribute(line: &str) -> bool {
    ["#[test", "#[tokio::test", "#[rstest"].iter().any(|start| line.starts_with(start))
}

/// The texts of a Python source that name rows: the client suites pass them as names of cases.
fn cases(source: &str) -> Vec<(String, Vec<String>)> {
    let texts = source.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
    let named = texts.map(|text| (text.to_owned(), rows_of_case(text)));
    named.filter(|(_, rows)| !rows.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_names_rows_by_the_beginning_of_its_name() {
        assert_eq!(rows_of_function("wap_40_the_token_holds_it"), ["WAP-40"]);
        assert_eq!(rows_of_function("wap_41_wap_64_all_identities"), ["WAP-41", "WAP-64"]);
        assert_eq!(rows_of_function("jwt_06_07_algorithms"), ["JWT-06", "JWT-07"]);
        assert!(rows_of_function("a_jwt_07_is_nothing").is_empty());
        assert!(rows_of_function("jwt_authorities_07").is_empty());
    }

    #[test]
    fn a_case_names_rows_anywhere() {
        assert_eq!(rows_of_case("go fetches a token (WAP-40, JWT-13)"), ["WAP-40", "JWT-13"]);
        assert!(rows_of_case("P-256 and JWT-SVID, x-WAP-4").is_empty());
    }

    #[test]
    fn only_test_functions_count() {
        let source =
            "#[test]\nfn wap_01_one() {\n}\n\nfn wap_02_two() {}\n#[tokio::test]\nasync fn wap_03_x() {\n";
        let names: Vec<String> = functions(source).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["wap_01_one", "wap_03_x"]);
    }
}
