use super::*;

fn id(trust_domain: &str, path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: trust_domain.into(), path: path.into() })
}

fn entry(entry_id: &str, path: &str, created_at: i64) -> types::Entry {
    types::Entry {
        id: entry_id.into(),
        spiffe_id: id("example.org", path),
        parent_id: id("example.org", "/node"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
        created_at,
        ..types::Entry::default()
    }
}

fn declared(entry: types::Entry) -> Declared {
    Declared { place: format!("entry {}", entry.id), entry, name: None }
}

#[test]
fn entries_go_over_from_the_oldest_and_of_two_that_are_alike_the_older_does() {
    let given = [entry("c", "/x", 9), entry("b", "/y", 5), entry("a", "/x", 9), entry("d", "/z", 1)];
    let (entries, twins) = apart(given.map(declared).to_vec());
    let ids: Vec<_> = entries.iter().map(|one| one.entry.id.as_str()).collect();
    assert_eq!(ids, ["d", "b", "a"]);
    let [twin] = &twins[..] else { panic!("one twin") };
    assert_eq!(twin.entry.id, "c");
    assert!(twin.what.ends_with("of entry a"), "{}", twin.what);
}

#[test]
fn what_the_server_would_refuse_is_told_before_it_is_sent() {
    let here = "example.org".parse().unwrap();
    let missing = ["other.org".to_owned()].into();
    let unfit = |entry: &types::Entry| unfit(entry, &here, &missing).map(|(what, _)| what);
    assert_eq!(unfit(&entry("a", "/x", 1)), None);
    let foreign = types::Entry { spiffe_id: id("third.org", "/x"), ..entry("a", "/x", 1) };
    assert!(unfit(&foreign).expect("foreign").contains("third.org"));
    let federates = |names: &[&str]| types::Entry {
        federates_with: names.iter().map(|name| (*name).to_owned()).collect(),
        ..entry("a", "/x", 1)
    };
    assert_eq!(unfit(&federates(&["known.org"])), None);
    let what = unfit(&federates(&["known.org", "spiffe://other.org"])).expect("no bundle");
    assert_eq!(what, "it federates with other.org, of which there is no bundle here");
}

#[test]
fn there_is_one_source() {
    let source = |from: &str, file: &str| {
        let args = Args { from: Some(from.into()), file: Some(file.into()), ..Args::default() };
        source(&args).map(drop).map_err(|failure| failure.what().to_owned())
    };
    assert_eq!(source("unix:///run/s", ""), Ok(()));
    assert_eq!(source("", "f"), Ok(()));
    assert!(source("", "").expect_err("none").contains("a source is required"));
    assert!(source("/run/s", "f").expect_err("two").contains("one source"));
    assert!(source("tcp://1.2.3.4:5", "").expect_err("no socket").contains("not a Unix socket"));
}
