//! Typed reads of one block of a configuration file. A fault names the key with the blocks around it, and the line.

use super::ConfigError;
use crate::hcl::{Item, Value};

/// One block, and how to call it in messages.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    path: String,
    items: &'a [Item],
}

/// ` (line 7)`, or nothing where the format does not tell.
pub(super) fn place(item: &Item) -> String {
    if item.line == 0 { String::new() } else { format!(" (line {})", item.line) }
}

impl<'a> Section<'a> {
    /// The top of a file (`path` empty), or a block of it.
    pub fn new(path: impl Into<String>, items: &'a [Item]) -> Self {
        Self { path: path.into(), items }
    }

    /// The keys in order.
    pub fn items(&self) -> &'a [Item] {
        self.items
    }

    /// A key of this block, with the blocks around it.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// How this block is called in messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn single(&self, key: &str) -> Result<Option<&'a Item>, ConfigError> {
        let mut found = self.items.iter().filter(|item| item.key == key);
        let first = found.next();
        match found.next() {
            Some(second) => Err(ConfigError::Twice { key: self.key(key), place: place(second) }),
            None => Ok(first),
        }
    }

    fn wrong(&self, item: &Item, wanted: &'static str) -> ConfigError {
        let (key, place) = (self.key(&item.key), place(item));
        ConfigError::Kind { key, place, wanted, found: item.value.kind() }
    }

    /// A text; numbers and truth values count as their spelling, as they do for SPIRE. Empty counts as unset.
    ///
    /// # Errors
    /// When the key is a list or block, or is set twice.
    pub fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        let Some(item) = self.single(key)? else { return Ok(None) };
        match &item.value {
            Value::Text(text) | Value::Number(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Value::Bool(value) => Ok(Some(value.to_string())),
            _ => Err(self.wrong(item, "a text")),
        }
    }

    /// A whole number, quoted or not.
    ///
    /// # Errors
    /// When it is none, or is set twice.
    pub fn number(&self, key: &str) -> Result<Option<i64>, ConfigError> {
        let Some(item) = self.single(key)? else { return Ok(None) };
        let text = match &item.value {
            Value::Text(text) | Value::Number(text) => text,
            _ => return Err(self.wrong(item, "a whole number")),
        };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(ConfigError::value(&self.key(key), format!("{text:?} is not a whole number"))),
        }
    }

    /// A truth value, quoted or not.
    ///
    /// # Errors
    /// When it is none, or is set twice.
    pub fn switch(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(item) = self.single(key)? else { return Ok(None) };
        match &item.value {
            Value::Bool(value) => Ok(Some(*value)),
            Value::Text(text) | Value::Number(text) => crate::go_flags::parse_bool(text)
                .map(Some)
                .map_err(|what| ConfigError::value(&self.key(key), format!("{text:?}: {what}"))),
            _ => Err(self.wrong(item, "true or false")),
        }
    }

    /// A list of texts; none when the key is not there.
    ///
    /// # Errors
    /// When it is no list of texts, or is set twice.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(item) = self.single(key)? else { return Ok(None) };
        let Value::List(values) = &item.value else { return Err(self.wrong(item, "a list of texts")) };
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            match value {
                Value::Text(text) => texts.push(text.clone()),
                _ => return Err(self.wrong(item, "a list of texts")),
            }
        }
        Ok(Some(texts))
    }

    /// The one block of that name.
    ///
    /// # Errors
    /// When it is no block, or is set twice.
    pub fn block(&self, key: &str) -> Result<Option<Section<'a>>, ConfigError> {
        self.single(key)?.map(|item| self.block_of(item)).transpose()
    }

    /// The blocks of that name in their order: lists of blocks, and single ones, of which there may be several.
    ///
    /// # Errors
    /// When one is no block.
    pub fn blocks(&self, key: &str) -> Result<Vec<Section<'a>>, ConfigError> {
        let mut blocks = Vec::new();
        for item in self.items.iter().filter(|item| item.key == key) {
            let Value::List(values) = &item.value else {
                blocks.push(self.block_of(item)?);
                continue;
            };
            for value in values {
                let Value::Object(items) = value else { return Err(self.wrong(item, "a list of blocks")) };
                blocks.push(Section::new(format!("{}[{}]", self.key(key), blocks.len()), items));
            }
        }
        Ok(blocks)
    }

    /// An item of this block as a block.
    ///
    /// # Errors
    /// When it is no block.
    pub fn block_of(&self, item: &'a Item) -> Result<Section<'a>, ConfigError> {
        match &item.value {
            Value::Object(items) => Ok(Section::new(self.key(&item.key), items)),
            _ => Err(self.wrong(item, "a block")),
        }
    }
}
