//! Cuts HCL 1 text into tokens: words, texts, numbers, heredocs and punctuation. Comments and blanks are dropped.

use std::borrow::Cow;

use super::SyntaxError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    Number(String),
    Punct(char),
    End,
}

/// Longest part of a file that an error quotes, in characters.
const QUOTED_MAX: usize = 60;

/// A part of the file for an error: a long one is cut, so that a wrong file does not fill the screen.
pub(super) fn quoted(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl Token {
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Word(word) => format!("`{}`", quoted(word)),
            Token::Text(text) => format!("the text {:?}", quoted(text)),
            Token::Number(number) => format!("the number {}", quoted(number)),
            Token::Punct(c) => format!("`{c}`"),
            Token::End => "the end of the file".into(),
        }
    }
}

pub(super) struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1, column: 1 }
    }

    pub(super) fn place(&self) -> (usize, usize) {
        (self.line, self.column)
    }

    pub(super) fn fault(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.line, column: self.column, what: what.into() }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|c| keep(*c)) {
            taken.push(c);
            self.bump();
        }
        taken
    }

    /// Moves to the next token's first character.
    pub(super) fn skip_blanks(&mut self) -> Result<(), SyntaxError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest.starts_with("/*") {
                // The star of the opening is not that of the end: `/*/` opens a comment and no more.
                let Some(length) = self.rest[2..].find("*/") else {
                    return Err(self.fault("a comment is opened with /* and never closed"));
                };
                let end = self.rest.len() - 2 - length - 2;
                while self.rest.len() > end {
                    self.bump();
                }
            } else {
                return Ok(());
            }
        }
    }

    /// The next token; blanks must have been skipped.
    pub(super) fn token(&mut self) -> Result<Token, SyntaxError> {
        let Some(c) = self.peek() else { return Ok(Token::End) };
        match c {
            '"' => self.text(),
            '<' if self.rest.starts_with("<<") => self.heredoc(),
            '{' | '}' | '[' | ']' | '=' | ',' => {
                self.bump();
                Ok(Token::Punct(c))
            }
            '-' | '0'..='9' => Ok(Token::Number(
                self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_')),
            )),
            c if c.is_alphabetic() || c == '_' => {
                Ok(Token::Word(self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))))
            }
            c => Err(self.fault(format!("{c:?} does not belong here"))),
        }
    }

    fn text(&mut self) -> Result<Token, SyntaxError> {
        let open = self.fault("a text is opened with a quote and never closed on its line");
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                None | Some('\n') => return Err(open),
                Some('"') => return Ok(Token::Text(text)),
                Some('\\') => text.push(self.escape()?),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let unknown = self.fault("unknown escape behind the backslash");
        Ok(match self.bump() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some(c @ ('"' | '\\')) => c,
            Some('u') => self.code_point(4)?,
            Some('U') => self.code_point(8)?,
            _ => return Err(unknown),
        })
    }

    fn code_point(&mut self, digits: usize) -> Result<char, SyntaxError> {
        let bad = self.fault(format!("{digits} hexadecimal digits of a character are needed here"));
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.bump().and_then(|c| c.to_digit(16)).ok_or_else(|| bad.clone())?;
            code = code * 16 + digit;
        }
        char::from_u32(code).ok_or(bad)
    }

    /// `<<EOF` up to a line that is `EOF`; with `<<-EOF` the common indent is taken off.
    fn heredoc(&mut self) -> Result<Token, SyntaxError> {
        let open = self.fault("a heredoc is opened with << and its end line never comes");
        self.bump();
        self.bump();
        let trims = self.peek() == Some('-');
        if trims {
            self.bump();
        }
        let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
        if name.is_empty()
            || !matches!(self.take_while(|c| c == '\r').len(), 0 | 1)
            || self.bump() != Some('\n')
        {
            return Err(open);
        }
        let mut lines: Vec<String> = Vec::new();
        loop {
            let line = self.take_while(|c| c != '\n');
            if line.trim() == name {
                break;
            }
            if self.bump().is_none() {
                return Err(open);
            }
            lines.push(line);
        }
        let indent = |line: &String| line.len() - line.trim_start_matches([' ', '\t']).len();
        let cut = if trims { lines.iter().map(indent).min().unwrap_or(0) } else { 0 };
        Ok(Token::Text(lines.iter().flat_map(|line| [&line[cut..], "\n"]).collect()))
    }
}
