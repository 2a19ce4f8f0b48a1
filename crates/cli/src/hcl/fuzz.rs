//! Configuration text from outside: whatever it is, it is refused with its place or becomes a bounded tree, and what is
//! made of the tree is settings or a fault. `cargo test` tries some thousand texts, `cargo bolero test` goes on.

use crate::config::agent::{AgentSettings, RawAgent};
use crate::config::server::{RawServer, ServerSettings};

use super::*;

/// `serde_json` stops there; HCL stops at [`DEPTH_MAX`].
const JSON_DEPTH_MAX: usize = 128;

fn depth(items: &[Item]) -> usize {
    1 + items.iter().map(|item| depth_of(&item.value)).max().unwrap_or(0)
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Object(items) => depth(items),
        Value::List(values) => 1 + values.iter().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

fn lines_of(items: &[Item]) -> Vec<usize> {
    let below = |item: &Item| match &item.value {
        Value::Object(items) => lines_of(items),
        _ => Vec::new(),
    };
    items.iter().flat_map(|item| [vec![item.line], below(item)].concat()).collect()
}

/// Everything that is done with a file, up to ready settings.
fn read(text: &str) {
    let lines = text.matches('\n').count() + 1;
    match parse(text) {
        Ok(items) => {
            assert!(depth(&items) <= JSON_DEPTH_MAX + 1, "{text:?}");
            assert!(lines_of(&items).iter().all(|line| *line <= lines), "{text:?}");
            let _ = RawServer::read(&items).and_then(ServerSettings::try_from);
            let _ = RawAgent::read(&items).and_then(AgentSettings::try_from);
        }
        Err(fault) => {
            // JSON that ends too early is faulty behind its last line.
            assert!((1..=lines + 1).contains(&fault.line) && !fault.what.is_empty(), "{text:?}: {fault}");
        }
    }
}

#[test]
fn any_text_is_refused_with_its_place_or_becomes_a_bounded_tree() {
    bolero::check!().for_each(|bytes: &[u8]| read(&String::from_utf8_lossy(bytes)));
}

/// Pieces that make up real files, and what breaks them.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "=",
    ",",
    ":",
    "\"",
    "\n",
    " ",
    "#",
    "//",
    "/*",
    "*/",
    "<<EOF\n",
    "<<-E\n",
    "EOF\n",
    "E\n",
    "\\",
    "\\u00e9",
    "é",
    "\u{feff}",
    "\0",
    "1",
    "-1.5e3",
    "0x1F",
    "10m",
    "true",
    "false",
    "null",
    "server",
    "agent",
    "plugins",
    "KeyManager",
    "WorkloadAttestor",
    "DataStore",
    "\"unix\"",
    "\"disk\"",
    "\"memory\"",
    "\"sled\"",
    "plugin_data",
    "enabled",
    "experimental",
    "trust_domain",
    "\"example.org\"",
    "data_dir",
    "\"/d\"",
    "server_address",
    "server_port",
    "8081",
    "insecure_bootstrap",
    "ca_ttl",
    "\"1h\"",
    "ca_subject",
    "country",
    "[\"US\"]",
    "log_level",
    "\"INFO\"",
    "\"server\":",
    "\"agent\":",
    "\"plugins\":",
    "bind_port",
    "admin_ids",
    "sync_interval",
];

#[test]
fn pieces_of_real_files_in_any_order_make_nothing_panic() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|picks| {
        let piece = |pick: &u8| PIECES[usize::from(*pick) % PIECES.len()];
        let text: Vec<_> = picks.iter().map(piece).collect();
        read(&text.concat());
        read(&text.join(" "));
    });
}

/// A tree out of random bytes; no more bytes make small values.
struct Grow<'a>(std::slice::Iter<'a, u8>);

impl Grow<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn text(&mut self) -> String {
        const LETTERS: [char; 12] = ['a', 'Z', '0', '_', ' ', '"', '\\', '\n', '\t', '#', 'é', '\u{1f600}'];
        let count = self.byte() % 6;
        (0..count).map(|_| LETTERS[usize::from(self.byte()) % LETTERS.len()]).collect()
    }

    fn plain(&mut self) -> Value {
        match self.byte() % 3 {
            0 => Value::Text(self.text()),
            1 => Value::Number(i8::from_be_bytes([self.byte()]).to_string()),
            _ => Value::Bool(self.byte().is_multiple_of(2)),
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.byte() % 4 {
            0 if depth < 8 => Value::Object(self.items(depth + 1)),
            // A list of blocks is another spelling of a repeated key, so only plain values here.
            1 => {
                let count = self.byte() % 4;
                Value::List((0..count).map(|_| self.plain()).collect())
            }
            _ => self.plain(),
        }
    }

    fn items(&mut self, depth: usize) -> Vec<Item> {
        let count = self.byte() % 5;
        (0..count).map(|_| Item { key: self.text(), value: self.value(depth), line: 0 }).collect()
    }
}

fn quoted(text: &str) -> String {
    let escape = |c| match c {
        '"' | '\\' => format!("\\{c}"),
        '\n' => "\\n".into(),
        '\t' => "\\t".into(),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// The tree as text; `colon` and `comma` tell HCL from JSON.
fn print(value: &Value, colon: &str, comma: &str) -> String {
    let joined = |parts: Vec<String>, comma: &str| parts.join(comma);
    match value {
        Value::Text(text) => quoted(text),
        Value::Number(number) => number.clone(),
        Value::Bool(value) => value.to_string(),
        Value::List(values) => {
            format!("[{}]", joined(values.iter().map(|value| print(value, colon, comma)).collect(), ","))
        }
        Value::Object(items) => {
            let item =
                |item: &Item| format!("{}{colon}{}", quoted(&item.key), print(&item.value, colon, comma));
            format!("{{{}}}", joined(items.iter().map(item).collect(), comma))
        }
    }
}

/// Lines are not part of what a text says.
fn without_lines(items: Vec<Item>) -> Vec<Item> {
    let bare = |item: Item| match item.value {
        Value::Object(items) => Item { value: Value::Object(without_lines(items)), line: 0, ..item },
        _ => Item { line: 0, ..item },
    };
    items.into_iter().map(bare).collect()
}

#[test]
fn a_tree_that_is_written_as_hcl_or_json_is_read_as_the_same_tree() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let tree = Grow(bytes.iter()).items(0);
        let json = print(&Value::Object(tree.clone()), ":", ",");
        assert_eq!(parse(&json).as_ref(), Ok(&tree), "{json}");
        let hcl = print(&Value::Object(tree.clone()), " = ", "\n");
        let hcl = &hcl[1..hcl.len() - 1];
        assert_eq!(parse(hcl).map(without_lines), Ok(tree), "{hcl}");
    });
}
