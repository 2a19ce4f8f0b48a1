//! Reads configuration text, HCL 1 as SPIRE's files use it or JSON, into one ordered tree.
//!
//! A block `KeyManager "disk" { … }` becomes the key `KeyManager` holding the key `disk` holding its body, so block
//! form, `= { … }` and JSON all look alike. Order and repeated keys survive, and each key knows its line. Which keys
//! exist is decided in `config`. Depth and size are bounded. Start at [`parse`].

mod json;
mod lexer;
mod parser;

use std::fmt;

/// Configuration files are a few kilobytes; this keeps a wrong path from filling memory.
pub const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How deep blocks and lists may nest. SPIRE's deepest setting lies 6 deep.
pub const DEPTH_MAX: usize = 64;

/// A key with what it was set to.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The key.
    pub key: String,
    /// What it was set to.
    pub value: Value,
    /// Line of the key, from 1; 0 when the format does not tell.
    pub line: usize,
}

/// A value of a configuration file.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A quoted text, with escapes undone.
    Text(String),
    /// A number as it was written.
    Number(String),
    /// `true` or `false`.
    Bool(bool),
    /// `[…]`.
    List(Vec<Value>),
    /// `{…}`: keys in order, repeated ones kept.
    Object(Vec<Item>),
}

impl Value {
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Number(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::List(_) => "a list",
            Value::Object(_) => "a block",
        }
    }
}

/// Why a text is no configuration: where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1; 0 when unknown.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            0 => write!(f, "line {}: {}", self.line, self.what),
            column => write!(f, "line {}, column {column}: {}", self.line, self.what),
        }
    }
}

/// Reads a whole file. A text whose first character is `{` is JSON.
///
/// # Errors
/// The first fault, with its place.
pub fn parse(text: &str) -> Result<Vec<Item>, SyntaxError> {
    parse_within(text, TEXT_BYTES_MAX)
}

/// As [`parse`], with another bound on the size.
///
/// # Errors
/// The first fault, with its place.
pub fn parse_within(text: &str, bytes_max: usize) -> Result<Vec<Item>, SyntaxError> {
    if text.len() > bytes_max {
        let what = format!("the file has {} bytes, more than {bytes_max}", text.len());
        return Err(SyntaxError { line: 1, column: 0, what });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') { json::parse(text) } else { parser::parse(text) }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
