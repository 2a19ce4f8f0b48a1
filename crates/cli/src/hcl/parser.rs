//! HCL 1 tokens into the tree: `key = value`, `key { … }`, `key "label" { … }`.

use super::lexer::{Lexer, Token, quoted};
use super::{DEPTH_MAX, Item, SyntaxError, Value};

pub(super) fn parse(text: &str) -> Result<Vec<Item>, SyntaxError> {
    let mut parser = Parser { lexer: Lexer::new(text), next: Token::End, place: (1, 1) };
    parser.advance()?;
    parser.items(&Token::End, 0)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Token,
    place: (usize, usize),
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token, SyntaxError> {
        self.lexer.skip_blanks()?;
        self.place = self.lexer.place();
        let token = self.lexer.token()?;
        Ok(std::mem::replace(&mut self.next, token))
    }

    fn fault(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.place.0, column: self.place.1, what: what.into() }
    }

    fn check_depth(&self, depth: usize) -> Result<(), SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(self.fault(format!("blocks and lists nest deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    /// Items up to `end`, which is left as the next token.
    fn items(&mut self, end: &Token, depth: usize) -> Result<Vec<Item>, SyntaxError> {
        self.check_depth(depth)?;
        let mut items = Vec::new();
        while self.next != *end {
            items.push(self.item(depth)?);
            if self.next == Token::Punct(',') {
                self.advance()?;
            }
        }
        Ok(items)
    }

    fn item(&mut self, depth: usize) -> Result<Item, SyntaxError> {
        let line = self.place.0;
        let mut keys = vec![self.key()?];
        while matches!(self.next, Token::Word(_) | Token::Text(_)) {
            self.check_depth(depth + keys.len())?;
            keys.push(self.key()?);
        }
        let value = match &self.next {
            Token::Punct('=') if keys.len() == 1 => {
                self.advance()?;
                self.value(depth + 1)?
            }
            Token::Punct('{') => self.object(depth + keys.len())?,
            other => {
                let (key, other) = (quoted(&keys[0]), other.describe());
                return Err(self.fault(format!("`=` or `{{` is needed behind `{key}`, found {other}")));
            }
        };
        let innermost =
            keys.into_iter().rev().fold(value, |value, key| Value::Object(vec![Item { key, value, line }]));
        match innermost {
            Value::Object(mut items) if items.len() == 1 => Ok(items.remove(0)),
            _ => Err(self.fault("a key is needed here")),
        }
    }

    fn key(&mut self) -> Result<String, SyntaxError> {
        match &self.next {
            Token::Word(_) | Token::Text(_) => {}
            other => return Err(self.fault(format!("a key is needed here, found {}", other.describe()))),
        }
        match self.advance()? {
            Token::Word(key) | Token::Text(key) => Ok(key),
            other => Err(self.fault(format!("a key is needed here, found {}", other.describe()))),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let opened_at = self.place.0;
        self.advance()?;
        let items = self.items_of_block(depth + 1, opened_at)?;
        self.advance()?;
        Ok(Value::Object(items))
    }

    fn items_of_block(&mut self, depth: usize, opened_at: usize) -> Result<Vec<Item>, SyntaxError> {
        self.items(&Token::Punct('}'), depth).map_err(|fault| match self.next {
            Token::End => self.fault(format!("the block opened on line {opened_at} is never closed")),
            _ => fault,
        })
    }

    fn value(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        self.check_depth(depth)?;
        match &self.next {
            Token::Punct('{') => return self.object(depth),
            Token::Punct('[') => return self.list(depth),
            Token::Word(word) if word != "true" && word != "false" => {
                return Err(self.fault(format!("the text {} must stand in quotes", quoted(word))));
            }
            Token::Number(number) if number.parse::<f64>().is_err() && !is_hex(number) => {
                return Err(self.fault(format!(
                    "{} is no number; a text such as \"10m\" must stand in quotes",
                    quoted(number)
                )));
            }
            Token::Punct(_) | Token::End => {
                return Err(self.fault(format!("a value is needed here, found {}", self.next.describe())));
            }
            _ => {}
        }
        Ok(match self.advance()? {
            Token::Text(text) => Value::Text(text),
            Token::Number(number) => Value::Number(number),
            Token::Word(word) => Value::Bool(word == "true"),
            Token::Punct(_) | Token::End => return Err(self.fault("a value is needed here")),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        self.advance()?;
        let mut values = Vec::new();
        while self.next != Token::Punct(']') {
            values.push(self.value(depth + 1)?);
            match &self.next {
                Token::Punct(',') => {
                    self.advance()?;
                }
                Token::Punct(']') => {}
                other => {
                    return Err(self.fault(format!("`,` or `]` is needed here, found {}", other.describe())));
                }
            }
        }
        self.advance()?;
        Ok(Value::List(values))
    }
}

fn is_hex(number: &str) -> bool {
    number.strip_prefix("0x").is_some_and(|digits| u64::from_str_radix(digits, 16).is_ok())
}
