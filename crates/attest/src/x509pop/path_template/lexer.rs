//! A template cut into texts and actions, and an action into tokens.

use std::fmt;

use super::PathTemplateError;

/// A part of a template.
pub(super) enum Piece<'a> {
    /// To be taken as it is.
    Text(&'a str),
    /// What stood between braces.
    Action(&'a str),
}

/// A part of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `.A.B`.
    Field(String),
    /// `lower`, or a number, which no function here takes.
    Word(String),
    /// `"text"`, without its quotes.
    Text(String),
    Pipe,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(text) | Self::Word(text) | Self::Text(text) => f.write_str(text),
            Self::Pipe => f.write_str("|"),
        }
    }
}

/// The parts of a template, without comments. `{{-` and `-}}` take away white space beside them, as in Go.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, PathTemplateError> {
    let (mut found, mut rest, mut trims) = (Vec::new(), text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, tail) = action(after)?;
        let inner = action.strip_prefix('-').filter(|inner| inner.starts_with(char::is_whitespace));
        let before = if trims { before.trim_start() } else { before };
        found.push(Piece::Text(if inner.is_some() { before.trim_end() } else { before }));
        let action = inner.unwrap_or(action);
        let inner = action.strip_suffix('-').filter(|inner| inner.ends_with(char::is_whitespace));
        trims = inner.is_some();
        let action = inner.unwrap_or(action).trim();
        if !(action.starts_with("/*") && action.ends_with("*/") && action.len() >= 4) {
            found.push(Piece::Action(action));
        }
        rest = tail;
    }
    found.push(Piece::Text(if trims { rest.trim_start() } else { rest }));
    found.retain(|piece| !matches!(piece, Piece::Text("")));
    Ok(found)
}

/// Up to the braces that close an action, which do not count within a text; and what follows them.
fn action(after: &str) -> Result<(&str, &str), PathTemplateError> {
    let mut at = 0;
    while let Some(first) = after[at..].chars().next() {
        let rest = &after[at..];
        if let Some(tail) = rest.strip_prefix("}}") {
            return Ok((&after[..at], tail));
        }
        at += if matches!(first, '"' | '`') { quoted(rest)?.1 } else { first.len_utf8() };
    }
    Err(PathTemplateError::NotClosed("{{"))
}

/// The text that starts with the quote at the front, and its length with both quotes.
fn quoted(rest: &str) -> Result<(String, usize), PathTemplateError> {
    let quote = rest.chars().next().unwrap_or('"');
    let (mut text, mut chars) = (String::new(), rest.char_indices().skip(1));
    while let Some((at, next)) = chars.next() {
        match next {
            end if end == quote => return Ok((text, at + 1)),
            '\\' if quote == '"' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                Some((_, other)) => return Err(PathTemplateError::Syntax(format!("\\{other}"))),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err(PathTemplateError::NotClosed(if quote == '"' { "\"" } else { "`" }))
}

/// The tokens of an action, at least one.
pub(super) fn tokens(action: &str) -> Result<Vec<Token>, PathTemplateError> {
    let (mut found, mut rest) = (Vec::new(), action.trim_start());
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '|' => {
                found.push(Token::Pipe);
                1
            }
            '"' | '`' => {
                let (text, len) = quoted(rest)?;
                found.push(Token::Text(text));
                len
            }
            _ => {
                let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
                let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                found.push(word(&rest[..len]).ok_or_else(|| PathTemplateError::Syntax(shown(rest)))?);
                len
            }
        };
        rest = rest[len..].trim_start();
    }
    if found.is_empty() { Err(PathTemplateError::Syntax("{{ }}".into())) } else { Ok(found) }
}

/// A field begins with a dot and is more than that; a word or number has none.
fn word(text: &str) -> Option<Token> {
    match text.chars().next()? {
        '.' if text.len() > 1 => Some(Token::Field(text.into())),
        first if first != '.' && !text.contains('.') => Some(Token::Word(text.into())),
        _ => None,
    }
}

/// What an error repeats.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
