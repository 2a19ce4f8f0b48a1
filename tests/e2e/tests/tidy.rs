//! The code map of docs/ARCHITECTURE.md held against the manifests, so that neither changes without the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// For each crate, the crates of ours that it uses outside of tests.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of the code map, in order: a folder, its duty, what it uses.
fn code_map() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, map) = text.split_once("## Code map").expect("a code map");
    let rows = map.lines().take_while(|line| !line.starts_with("## ")).filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let uses = cells.nth(1)?.split(", ").filter(|used| *used != "nothing");
        Some((name.to_owned(), uses.map(str::to_owned).collect()))
    });
    rows.collect()
}

/// The lines `spindle-NAME...` between `[dependencies]` and the next table.
fn manifests() -> Arrows {
    let folders = fs::read_dir(root().join("crates")).expect("crates");
    let read = |folder: PathBuf| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
        let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
        let lines = lines.take_while(|line| !line.starts_with('['));
        let ours = lines.filter_map(|line| line.strip_prefix("spindle-")?.split(['.', ' ']).next());
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        (name, ours.map(str::to_owned).collect())
    };
    folders.map(|folder| read(folder.expect("an entry").path())).collect()
}

#[test]
fn the_code_map_shows_every_crate_and_every_arrow() {
    let map: Arrows = code_map().into_iter().collect();
    assert_eq!(map, manifests());
}

#[test]
fn arrows_point_upwards_only() {
    let mut above = BTreeSet::new();
    for (name, uses) in code_map() {
        let sideways: Vec<_> = uses.difference(&above).collect();
        assert!(sideways.is_empty(), "{name} uses {sideways:?}, which do not stand above it");
        above.insert(name);
    }
    assert!(above.len() > 10);
}
