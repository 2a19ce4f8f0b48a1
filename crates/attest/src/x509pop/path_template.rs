//! `agent_path_template`: a subset of Go's `text/template` that makes the path of an agent's ID from its certificate.
//!
//! Fields, texts, pipes and a few functions on texts are understood. Whatever else Go and SPIRE know is refused by name when
//! the template is read, never passed over. Start at [`PathTemplate::parse`].

mod lexer;

use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_lc_rs::digest;

use super::roots::hex;
use lexer::{Piece, Token, pieces, tokens};

/// The longest template, in bytes: a path of the longest SPIFFE ID.
const TEMPLATE_BYTES_MAX: usize = 2048;

/// The longest path while it is made, in bytes; a SPIFFE ID is shorter still.
const PATH_BYTES_MAX: usize = 8192;

/// Why a text is not a template, or not one that is understood here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathTemplateError {
    /// Longer than the bound.
    #[error("a template has at most {TEMPLATE_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// Braces or a text that begin and do not end.
    #[error("{0:?} is not closed")]
    NotClosed(&'static str),
    /// Not the beginning of a path.
    #[error("a path begins with a slash, so a template does too")]
    NoSlash,
    /// A field that certificates do not have, or that is not supported.
    #[error("the field {0} is not supported; these are: {fields}", fields = FIELDS.map(|(name, _)| name).join(", "))]
    Field(String),
    /// A function that is not supported.
    #[error("the function {0} is not supported; these are: {functions}", functions = FUNCTIONS.map(|(name, ..)| name).join(", "))]
    Function(String),
    /// A function with too few or too many arguments.
    #[error("the function {name} takes {takes} arguments, here it has {has}")]
    Arguments {
        /// Its name.
        name: &'static str,
        /// How many it takes, the value before the pipe included.
        takes: usize,
        /// How many there are.
        has: usize,
    },
    /// Something else that is not understood.
    #[error("{0:?} is not understood here")]
    Syntax(String),
}

/// A template that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Each command takes the value of the one before as its last argument.
    Pipe(Vec<Command>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Value(Value),
    Call(Function, Vec<Value>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Field(Field),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    PluginName,
    Fingerprint,
    TrustDomain,
    SerialNumberHex,
    SvidPathTrimmed,
    SubjectCommonName,
    SubjectSerialNumber,
    IssuerCommonName,
    UriSanSelector(String),
}

/// All fields but those below [`URI_SANS`].
const FIELDS: [(&str, Field); 8] = [
    (".PluginName", Field::PluginName),
    (".Fingerprint", Field::Fingerprint),
    (".TrustDomain", Field::TrustDomain),
    (".SerialNumberHex", Field::SerialNumberHex),
    (".SVIDPathTrimmed", Field::SvidPathTrimmed),
    (".Subject.CommonName", Field::SubjectCommonName),
    (".Subject.SerialNumber", Field::SubjectSerialNumber),
    (".Issuer.CommonName", Field::IssuerCommonName),
];

/// What stands before the key of a name `x509pop://TRUST-DOMAIN/KEY/VALUE`.
const URI_SANS: &str = ".URISanSelectors.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Lower,
    Upper,
    Trim,
    TrimPrefix,
    TrimSuffix,
    Replace,
    Sha256Sum,
}

/// With the number of arguments. SPIRE's, which are those of the sprig library, where the text comes last.
const FUNCTIONS: [(&str, Function, usize); 7] = [
    ("lower", Function::Lower, 1),
    ("upper", Function::Upper, 1),
    ("trim", Function::Trim, 1),
    ("trimPrefix", Function::TrimPrefix, 2),
    ("trimSuffix", Function::TrimSuffix, 2),
    ("replace", Function::Replace, 3),
    ("sha256sum", Function::Sha256Sum, 1),
];

/// What fields stand for.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) fingerprint: &'a str,
    pub(super) trust_domain: &'a str,
    pub(super) serial_hex: &'a str,
    pub(super) svid_path_trimmed: &'a str,
    pub(super) subject_common_name: &'a str,
    pub(super) subject_serial_number: &'a str,
    pub(super) issuer_common_name: &'a str,
    pub(super) uri_sans: &'a BTreeMap<String, String>,
}

impl PathTemplate {
    /// SPIRE's for certificates of any authority: `/x509pop/` and the certificate's fingerprint.
    pub fn of_fingerprints() -> Self {
        Self(vec![Part::Text("/x509pop/".into()), Part::field(Field::Fingerprint)])
    }

    /// SPIRE's for SVIDs: `/x509pop/` and what follows the prefix in the SVID's path.
    pub fn of_svid_paths() -> Self {
        Self(vec![Part::Text("/x509pop/".into()), Part::field(Field::SvidPathTrimmed)])
    }

    /// Reads a template.
    ///
    /// # Errors
    /// When it is malformed, or asks for something that is not supported.
    pub fn parse(text: &str) -> Result<Self, PathTemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(PathTemplateError::Length(text.len()));
        }
        let mut parts = Vec::new();
        for piece in pieces(text)? {
            match piece {
                Piece::Text(text) => parts.push(Part::Text(text.into())),
                Piece::Action(action) => parts.push(Part::Pipe(pipe(action)?)),
            }
        }
        // SPIRE finds this out when the first node attests.
        match parts.first() {
            Some(Part::Text(text)) if text.starts_with('/') => Ok(Self(parts)),
            _ => Err(PathTemplateError::NoSlash),
        }
    }

    /// The path for a certificate. A fact that it lacks is an error, as is a path past all bounds.
    pub(super) fn fill(&self, facts: &Facts<'_>) -> Result<String, String> {
        let mut path = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Pipe(commands) => path.push_str(&run(commands, facts)?),
            }
            if path.len() > PATH_BYTES_MAX {
                return Err("the path is too long".into());
            }
        }
        Ok(path)
    }
}

impl Part {
    fn field(field: Field) -> Self {
        Self::Pipe(vec![Command::Value(Value::Field(field))])
    }
}

fn pipe(action: &str) -> Result<Vec<Command>, PathTemplateError> {
    let tokens = tokens(action)?;
    let commands: Vec<_> = tokens.split(|token| *token == Token::Pipe).collect();
    commands.iter().enumerate().map(|(place, command)| self::command(command, place > 0)).collect()
}

fn command(tokens: &[Token], is_piped: bool) -> Result<Command, PathTemplateError> {
    match tokens {
        [Token::Word(name), arguments @ ..] => {
            let known = FUNCTIONS.iter().find(|(known, ..)| known == name);
            let &(name, function, takes) = known.ok_or_else(|| PathTemplateError::Function(name.clone()))?;
            let has = arguments.len() + usize::from(is_piped);
            if has != takes {
                return Err(PathTemplateError::Arguments { name, takes, has });
            }
            Ok(Command::Call(function, arguments.iter().map(value).collect::<Result<_, _>>()?))
        }
        [one] if !is_piped => Ok(Command::Value(value(one)?)),
        [] => Err(PathTemplateError::Syntax("an empty command".into())),
        [first, ..] => Err(PathTemplateError::Syntax(first.to_string())),
    }
}

fn value(token: &Token) -> Result<Value, PathTemplateError> {
    match token {
        Token::Text(text) => Ok(Value::Text(text.clone())),
        Token::Field(name) => match name.strip_prefix(URI_SANS) {
            Some(key) if !key.contains('.') => Ok(Value::Field(Field::UriSanSelector(key.into()))),
            _ => {
                let known = FIELDS.into_iter().find(|(known, _)| known == name);
                known
                    .map(|(_, field)| Value::Field(field))
                    .ok_or_else(|| PathTemplateError::Field(name.clone()))
            }
        },
        Token::Word(_) | Token::Pipe => Err(PathTemplateError::Syntax(token.to_string())),
    }
}

fn run<'a>(commands: &'a [Command], facts: &'a Facts<'_>) -> Result<Cow<'a, str>, String> {
    let mut last: Option<Cow<'a, str>> = None;
    for command in commands {
        let value = match command {
            Command::Value(value) => Cow::Borrowed(look_up(value, facts)?),
            Command::Call(function, arguments) => {
                let given = arguments.iter().map(|one| look_up(one, facts));
                let given = given.collect::<Result<Vec<_>, _>>()?;
                let all: Vec<&str> = given.into_iter().chain(last.as_deref()).collect();
                Cow::Owned(call(*function, &all))
            }
        };
        if value.len() > PATH_BYTES_MAX {
            return Err("the path is too long".into());
        }
        last = Some(value);
    }
    Ok(last.unwrap_or_default())
}

fn look_up<'a>(value: &'a Value, facts: &'a Facts<'_>) -> Result<&'a str, String> {
    let field = match value {
        Value::Text(text) => return Ok(text),
        Value::Field(field) => field,
    };
    Ok(match field {
        Field::PluginName => super::NAME,
        Field::Fingerprint => facts.fingerprint,
        Field::TrustDomain => facts.trust_domain,
        Field::SerialNumberHex => facts.serial_hex,
        Field::SvidPathTrimmed => facts.svid_path_trimmed,
        Field::SubjectCommonName => facts.subject_common_name,
        Field::SubjectSerialNumber => facts.subject_serial_number,
        Field::IssuerCommonName => facts.issuer_common_name,
        Field::UriSanSelector(key) => facts.uri_sans.get(key).ok_or_else(|| {
            format!("the certificate has no name x509pop://{}/{key}/...", facts.trust_domain)
        })?,
    })
}

/// The number of arguments was checked when the template was read.
fn call(function: Function, arguments: &[&str]) -> String {
    match (function, arguments) {
        (Function::Lower, [text]) => text.to_lowercase(),
        (Function::Upper, [text]) => text.to_uppercase(),
        (Function::Trim, [text]) => text.trim().to_owned(),
        (Function::TrimPrefix, [prefix, text]) => text.strip_prefix(prefix).unwrap_or(text).to_owned(),
        (Function::TrimSuffix, [suffix, text]) => text.strip_suffix(suffix).unwrap_or(text).to_owned(),
        (Function::Replace, [old, new, text]) => text.replace(old, new),
        (Function::Sha256Sum, [text]) => hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
