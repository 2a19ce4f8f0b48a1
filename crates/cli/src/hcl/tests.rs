use super::*;

/// A short form of the tree: `key=value`, `key{…}`.
fn show(items: &[Item]) -> String {
    items.iter().map(|item| show_item(&item.key, &item.value)).collect::<Vec<_>>().join(" ")
}

fn show_item(key: &str, value: &Value) -> String {
    match value {
        Value::Object(items) => format!("{key}{{{}}}", show(items)),
        value => format!("{key}={}", show_value(value)),
    }
}

fn show_value(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Number(number) => number.clone(),
        Value::Bool(value) => value.to_string(),
        Value::List(values) => format!("[{}]", values.iter().map(show_value).collect::<Vec<_>>().join(",")),
        Value::Object(items) => format!("{{{}}}", show(items)),
    }
}

fn check(text: &str, expected: &str) {
    let items = parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    assert_eq!(show(&items), expected, "{text}");
}

fn refused(text: &str, part: &str) {
    let fault = parse(text).expect_err(text).to_string();
    assert!(fault.contains(part), "{text}: {fault}");
}

#[test]
fn attributes_of_every_kind_are_read() {
    check("a = 1", "a=1");
    check("a = -1.5e3", "a=-1.5e3");
    check("a = 0x1F", "a=0x1F");
    check("a = true\nb = false", "a=true b=false");
    check(r#"a = "x" b = "y""#, r#"a="x" b="y""#);
    check(r#"a = ["x", "y",]"#, r#"a=["x","y"]"#);
    check("a = []", "a=[]");
    check("a = 1, b = 2,", "a=1 b=2");
    check("", "");
}

#[test]
fn the_forms_of_blocks_that_spire_files_use_all_look_alike() {
    let expected = r#"plugins{KeyManager{disk{plugin_data{keys_path="k"}}}}"#;
    check("plugins {\n KeyManager \"disk\" {\n plugin_data {\n keys_path = \"k\"\n }\n }\n}", expected);
    check("plugins { KeyManager \"disk\" { plugin_data { keys_path = \"k\" } } }", expected);
    check("plugins { KeyManager \"disk\" { plugin_data = { keys_path = \"k\" } } }", expected);
    check("\"plugins\" { \"KeyManager\" \"disk\" { plugin_data { keys_path = \"k\" } } }", expected);
    check(r#"{"plugins": {"KeyManager": {"disk": {"plugin_data": {"keys_path": "k"}}}}}"#, expected);
    check(r#"{"plugins": {"KeyManager": [{"disk": {"plugin_data": {"keys_path": "k"}}}]}}"#, expected);
    check(r#"{"plugins": [{"KeyManager": [{"disk": [{"plugin_data": {"keys_path": "k"}}]}]}]}"#, expected);
}

#[test]
fn order_and_repeated_keys_survive() {
    check("a { b = 1 }\na { b = 2 }\nc = 3", "a{b=1} a{b=2} c=3");
    check(r#"{"a": 1, "z": 2, "a": 3}"#, "a=1 z=2 a=3");
}

#[test]
fn comments_are_dropped_wherever_blanks_may_stand() {
    check("# one\na = 1 // two\n/* three\n */ b = /* four */ 2", "a=1 b=2");
    check("a = \"# no comment\"", "a=\"# no comment\"");
}

#[test]
fn texts_undo_their_escapes_and_heredocs_keep_their_lines() {
    check(r#"a = "tab\t \"q\" \\ \u00e9""#, "a=\"tab\\t \\\"q\\\" \\\\ é\"");
    check("a = <<EOF\n one\n two\nEOF\nb = 1", "a=\" one\\n two\\n\" b=1");
    check("a = <<-EOF\n   one\n    two\n  EOF\n", "a=\"one\\n two\\n\"");
}

#[test]
fn json_null_counts_as_unset() {
    check(r#"{"a": null, "b": ["x", null]}"#, r#"b=["x"]"#);
}

#[test]
fn broken_hcl_is_refused_with_its_place() {
    refused("a = ", "line 1, column 5: a value is needed");
    refused("a", "`=` or `{` is needed behind `a`");
    refused("a b = 1", "`=` or `{` is needed behind `a`");
    refused("= 1", "a key is needed");
    refused("a = b", "must stand in quotes");
    refused("a = 10m", "must stand in quotes");
    refused("a = \"x", "never closed");
    refused("a = \"x\ny\"", "never closed");
    refused("a = \"\\q\"", "unknown escape");
    refused("a = \"\\ud800\"", "hexadecimal");
    refused("a = [1 2]", "`,` or `]`");
    refused("a = [1", "`,` or `]`");
    refused("a {\n b = 1\n", "opened on line 1 is never closed");
    refused("a { b { c = 1 }", "never closed");
    refused("a = 1 }", "a key is needed here, found `}`");
    refused("/* x", "never closed");
    refused("a = <<EOF\nx", "end line never comes");
    refused("a = <<\nx", "end line never comes");
    refused("a = 1\n\nb ; 2", "line 3, column 3");
    refused("a = \u{0}", "does not belong here");
    refused("5 = 1", "a key is needed");
}

#[test]
fn broken_json_is_refused_with_its_place() {
    refused("{", "line 1");
    refused("{\"a\": }", "line 1, column 7");
    refused("{\"a\": 1} x", "line 1");
    refused("{\n\"a\": 1,\n}", "line 3");
}

#[test]
fn nesting_and_size_are_bounded() {
    refused(&"a {".repeat(100_000), "deeper than 64");
    refused(&format!("a = {}", "[".repeat(100_000)), "deeper than 64");
    refused(&format!("{{\"a\": {}", "[".repeat(100_000)), "recursion");
    refused(&"a ".repeat(100_000), "deeper than 64");
    refused(&" ".repeat(TEXT_BYTES_MAX + 1), "more than");
}

#[test]
fn no_cut_or_changed_text_makes_it_panic() {
    let text = "server {\n a = \"x\\n\" # c\n b = [1, true]\n P \"n\" { d = <<-E\n  q\n  E\n } }\n/* é */";
    for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
        let _ = parse(&text[..at]);
        let _ = parse(&text[at..]);
        for c in ["{", "}", "\"", "<<", "é", "\\", "="] {
            let _ = parse(&format!("{}{c}{}", &text[..at], &text[at..]));
        }
    }
}

#[test]
fn the_opening_of_a_comment_is_not_its_end() {
    check("/*/ a = 1 */ b = 2", "b=2");
    check("/**/ b = 2", "b=2");
    refused("/*/ b = 2", "never closed");
}

#[test]
fn an_error_quotes_the_beginning_of_a_long_text_only() {
    let long = "ä".repeat(100_000);
    let number = "1".repeat(100_000) + "x";
    for text in [
        format!("a = {long}"),
        format!("a = {number}"),
        format!("{long} true"),
        format!("a \"{long}\" 1"),
        format!("a = 1 = \"{long}\""),
        format!("a = [1 \"{long}\"]"),
        format!("a = [1 {long}]"),
    ] {
        let fault = parse(&text).expect_err("no HCL").to_string();
        assert!(fault.chars().count() < 300, "{}", fault.chars().count());
    }
    refused(&format!("a = [1 {long}]"), &format!("`{}…`", "ä".repeat(60)));
}
