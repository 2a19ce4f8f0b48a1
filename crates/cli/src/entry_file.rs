//! Files of registration entries: what `entry apply`, `entry lint` and `import -file` read and `export` writes, which adds
//! bundles and relationships.
//!
//! One reader for three spellings: HCL, the same keys in JSON, and SPIRE's `-data` form, `{"entries": [ … ]}`, also as
//! `entry show -output json` prints it. Every fault names the file, the entry and the key; unknown keys are refused, as an
//! entry without a setting that its author wrote down could go to the wrong caller. Start at [`parse`] and [`write()`].

mod entry;
mod federation;
mod sources;
mod writer;

use std::collections::BTreeSet;

use spindle_proto::spire::api::types;
use spindle_spiffe_core::TrustDomain;

use crate::config::ConfigError;
use crate::config::keys::{Key, Support, check_keys};
use crate::config::section::Section;
use crate::config::values;
use crate::federation_plan::Federation;
use crate::hcl::{self, Item, Value};
use crate::input::DATA_BYTES_MAX;

pub use sources::{FILES_MAX, read};
pub use writer::write;

/// The version of the format, if a file names one.
pub const VERSION: i64 = 1;

/// The longest name of an entry in a file; with the name of a set in front it is an entry ID.
pub const NAME_BYTES_MAX: usize = 180;

/// What one or several files say.
#[derive(Debug, Default)]
pub struct EntryFile {
    /// The trust domain that the entries are for, where a file says so.
    pub trust_domain: Option<TrustDomain>,
    /// The entries in order.
    pub entries: Vec<Declared>,
    /// Bundles of other trust domains, and relationships with them.
    pub federation: Federation,
}

/// One entry of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The entry, with its parts checked and in the form that a server gives them; without an ID when the file names none.
    pub entry: types::Entry,
    /// The name in front of its block.
    pub name: Option<String>,
    /// Where it stands, for messages.
    pub place: String,
}

impl Declared {
    /// Whether a server of that trust domain can have the entry.
    ///
    /// # Errors
    /// The rule that it breaks, with its place.
    pub fn check(&self, trust_domain: &TrustDomain) -> Result<(), String> {
        let fault = entry::fault(&self.entry, Some(trust_domain));
        fault.map_or(Ok(()), |fault| Err(format!("{}: {fault}", self.place)))
    }
}

/// Why a server of that trust domain (of the entry's own when none is named) cannot have an entry; none when it can.
pub fn fault(entry: &types::Entry, trust_domain: Option<&TrustDomain>) -> Option<String> {
    entry::fault(entry, trust_domain)
}

const TOP: &[Key] = &[
    ("entry", Support::Yes),
    ("entries", Support::Yes),
    ("trust_domain", Support::Yes),
    ("version", Support::Yes),
    ("bundles", Support::Yes),
    ("federation_relationships", Support::Yes),
    // What `entry show -output json` prints beside the entries.
    ("next_page_token", Support::Yes),
];

/// Reads the text of one file; `file` is its name in messages.
///
/// # Errors
/// The first fault, with its place.
pub fn parse(file: &str, text: &str) -> Result<EntryFile, String> {
    let bytes_max = usize::try_from(DATA_BYTES_MAX).unwrap_or(usize::MAX);
    let items = hcl::parse_within(text, bytes_max).map_err(|fault| format!("{file}: {fault}"))?;
    read_items(file, &items).map_err(|fault| format!("{file}: {fault}"))
}

fn read_items(file: &str, items: &[Item]) -> Result<EntryFile, ConfigError> {
    let top = Section::new("", items);
    check_keys(&top, TOP, &mut Vec::new())?;
    if let Some(version) = top.number("version")?
        && version != VERSION
    {
        return Err(ConfigError::value("version", format!("{version} is not known here, only {VERSION} is")));
    }
    let trust_domain = match top.text("trust_domain")? {
        Some(text) => Some(values::trust_domain("trust_domain", Some(&text))?),
        None => None,
    };
    let mut found = Found { file, says_entries: false, entries: Vec::new() };
    for item in items {
        match item.key.as_str() {
            "entry" => found.named(&top, item)?,
            "entries" => found.unnamed(item)?,
            _ => {}
        }
    }
    if !found.says_entries {
        // An empty file is more often a mishap than a wish to have no entries, and pruning would delete them all.
        return Err(ConfigError::value(
            "entries",
            "the file names none; write entries = [] if that is meant",
        ));
    }
    Ok(EntryFile { trust_domain, entries: found.entries, federation: federation_of(&top)? })
}

fn federation_of(top: &Section<'_>) -> Result<Federation, ConfigError> {
    let mut bundles = federation::each(top, "bundles", federation::bundle)?;
    let mut relationships = Vec::new();
    for (relationship, bundle) in federation::each(top, "federation_relationships", federation::relationship)?
    {
        // What `federation list` prints has the bundle in it, a whole export has it beside.
        if let Some(bundle) =
            bundle.filter(|one| bundles.iter().all(|other| other.trust_domain != one.trust_domain))
        {
            bundles.push(bundle);
        }
        relationships.push(relationship);
    }
    let federation = Federation { bundles, relationships };
    once_each(&federation)?;
    Ok(federation)
}

/// Each trust domain has one bundle and one relationship.
fn once_each(federation: &Federation) -> Result<(), ConfigError> {
    once("bundles", federation.bundles.iter().map(|bundle| bundle.trust_domain.as_str()))?;
    once("federation_relationships", federation.relationships.iter().map(|one| one.trust_domain.as_str()))
}

fn once<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(ConfigError::value(key, format!("{name} is there twice")));
        }
    }
    Ok(())
}

struct Found<'a> {
    file: &'a str,
    says_entries: bool,
    entries: Vec<Declared>,
}

impl Found<'_> {
    /// `entry "name" { … }`, or `"entry": {"name": { … }}`.
    fn named(&mut self, top: &Section<'_>, item: &Item) -> Result<(), ConfigError> {
        self.says_entries = true;
        let group = top.block_of(item)?;
        for named in group.items() {
            let key = group.key(&named.key);
            let Value::Object(items) = &named.value else {
                let what = "an entry stands behind a name, such as entry \"web\" { … }";
                return Err(ConfigError::value(&key, what));
            };
            check_name(&key, &named.key)?;
            self.push(key, named.line, items, Some(named.key.clone()))?;
        }
        Ok(())
    }

    /// `entries = [{ … }]`: the reader of JSON gives a list of blocks as a repeated key.
    fn unnamed(&mut self, item: &Item) -> Result<(), ConfigError> {
        self.says_entries = true;
        match &item.value {
            Value::Object(items) => self.numbered(item.line, items),
            Value::List(values) => values.iter().try_for_each(|value| match value {
                Value::Object(items) => self.numbered(item.line, items),
                other => Err(wrong_kind(item, other)),
            }),
            other => Err(wrong_kind(item, other)),
        }
    }

    fn numbered(&mut self, line: usize, items: &[Item]) -> Result<(), ConfigError> {
        self.push(format!("entries[{}]", self.entries.len()), line, items, None)
    }

    fn push(
        &mut self,
        key: String,
        line: usize,
        items: &[Item],
        name: Option<String>,
    ) -> Result<(), ConfigError> {
        let line = if line == 0 { String::new() } else { format!(" (line {line})") };
        let place = format!("{}: {key}{line}", self.file);
        let entry = entry::read(&Section::new(key, items))?;
        if let (Some(name), false) = (&name, entry.id.is_empty()) {
            let what =
                format!("an entry with a name ({name}) gets its ID from it; leave out entry_id or the name");
            return Err(ConfigError::value(&format!("entry.{name}.entry_id"), what));
        }
        self.entries.push(Declared { entry, name, place });
        Ok(())
    }
}

fn wrong_kind(item: &Item, value: &Value) -> ConfigError {
    let place = if item.line == 0 { String::new() } else { format!(" (line {})", item.line) };
    ConfigError::Kind { key: item.key.clone(), place, wanted: "a list of blocks", found: value.kind() }
}

fn check_name(key: &str, name: &str) -> Result<(), ConfigError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(known) {
        return Ok(());
    }
    let what = format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores");
    Err(ConfigError::value(key, what))
}

#[cfg(test)]
mod tests;
