//! Walks one HPACK header block, rewrites authorities that are none and writes Huffman code out, RFC 7541.
//!
//! A replaced value has as many bytes after decoding as the old one, so that the dynamic tables of both ends keep evicting
//! in step. A small shadow of the dynamic table, lengths only, tells when a field takes its name from there. Blocks that do
//! not parse are refused as a whole; the caller then stops filtering.

use std::collections::VecDeque;

use http::uri::Authority;

use super::huffman;

/// The block cannot be read. The HTTP/2 library will say what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The largest dynamic table, in bytes: the protocol's default, which our servers do not raise.
const TABLE_BYTES_MAX: usize = 4096;

/// What each entry of a dynamic table counts on top of its texts (RFC 7541 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;

const AUTHORITY: &[u8] = b":authority";

/// The names of the static table, from index 1 (RFC 7541 appendix A).
#[rustfmt::skip]
const STATIC_NAMES: [&str; 61] = [
    ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status", ":status",
    ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding", "accept-language", "accept-ranges",
    "accept", "access-control-allow-origin", "age", "allow", "authorization", "cache-control", "content-disposition",
    "content-encoding", "content-language", "content-length", "content-location", "content-range", "content-type",
    "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match", "if-modified-since", "if-none-match",
    "if-range", "if-unmodified-since", "last-modified", "link", "location", "max-forwards", "proxy-authenticate",
    "proxy-authorization", "range", "referer", "refresh", "retry-after", "server", "set-cookie",
    "strict-transport-security", "transfer-encoding", "user-agent", "vary", "via", "www-authenticate",
];

/// What is known of a field's name.
#[derive(Clone, Copy, Debug)]
struct Name {
    bytes: usize,
    is_authority: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    bytes: usize,
}

/// The lengths in the sender's dynamic table, newest first. At most 128 entries fit.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_MAX }
    }

    fn name(&self, index: usize) -> Result<Name, Malformed> {
        let place = index.checked_sub(1).ok_or(Malformed)?;
        match STATIC_NAMES.get(place) {
            Some(name) => Ok(Name { bytes: name.len(), is_authority: place == 0 }),
            None => self.entries.get(place - STATIC_NAMES.len()).map(|entry| entry.name).ok_or(Malformed),
        }
    }

    fn resize(&mut self, bytes_max: usize) -> Result<(), Malformed> {
        if bytes_max > TABLE_BYTES_MAX {
            return Err(Malformed);
        }
        self.bytes_max = bytes_max;
        self.evict_to(bytes_max);
        Ok(())
    }

    /// RFC 7541 4.4: an entry larger than the table empties it.
    fn insert(&mut self, name: Name, value_bytes: usize) {
        let bytes = name.bytes + value_bytes + ENTRY_OVERHEAD_BYTES;
        self.evict_to(self.bytes_max.saturating_sub(bytes));
        if bytes <= self.bytes_max {
            self.entries.push_front(Entry { name, bytes });
            self.bytes += bytes;
        }
    }

    fn evict_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.bytes;
        }
    }
}

/// The block with its authorities made acceptable and no Huffman code in it, or `None` when it can stay as it is. Updates
/// `table` as the receiver's.
pub(super) fn rewrite(block: &[u8], table: &mut Table) -> Result<Option<Vec<u8>>, Malformed> {
    let mut walk = Walk { block, at: 0, table, text: Vec::new(), rewritten: None };
    while let Some(first) = block.get(walk.at) {
        match first {
            0x80.. => walk.indexed()?,
            0x40..=0x7f => walk.literal(6, Indexing::Incremental)?,
            0x20..=0x3f => {
                let bytes_max = walk.integer(5)?;
                walk.table.resize(bytes_max)?;
            }
            0x00..=0x1f => walk.literal(4, Indexing::None)?,
        }
    }
    Ok(walk.finish())
}

/// Whether a literal field enters the dynamic table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexing {
    Incremental,
    None,
}

struct Walk<'a> {
    block: &'a [u8],
    at: usize,
    table: &'a mut Table,
    /// Room for one decoded string.
    text: Vec<u8>,
    rewritten: Option<Rewritten>,
}

/// The new block so far, and how much of the old one it stands for.
struct Rewritten {
    bytes: Vec<u8>,
    covers: usize,
}

/// A string literal where it stands in the block.
#[derive(Clone, Copy)]
struct Literal<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

impl<'a> Walk<'a> {
    /// A whole field from a table. If it is an authority it was rewritten when it entered.
    fn indexed(&mut self) -> Result<(), Malformed> {
        let index = self.integer(7)?;
        self.table.name(index).map(drop)
    }

    fn literal(&mut self, prefix_bits: u32, indexing: Indexing) -> Result<(), Malformed> {
        let name = match self.integer(prefix_bits)? {
            0 => self.literal_name()?,
            index => self.table.name(index)?,
        };
        let start = self.at;
        let value = self.string()?;
        if value.is_huffman || name.is_authority || indexing == Indexing::Incremental {
            self.decode(value)?;
        }
        match if name.is_authority { replacement(&self.text) } else { None } {
            Some(replacement) => self.replace(start, &replacement),
            None => self.write_out(start, value),
        }
        if indexing == Indexing::Incremental {
            self.table.insert(name, self.text.len());
        }
        Ok(())
    }

    fn literal_name(&mut self) -> Result<Name, Malformed> {
        let start = self.at;
        let literal = self.string()?;
        self.decode(literal)?;
        self.write_out(start, literal);
        Ok(Name { bytes: self.text.len(), is_authority: self.text == AUTHORITY })
    }

    fn decode(&mut self, literal: Literal<'_>) -> Result<(), Malformed> {
        if literal.is_huffman {
            return huffman::decode(literal.bytes, &mut self.text);
        }
        self.text.clear();
        self.text.extend_from_slice(literal.bytes);
        Ok(())
    }

    fn string(&mut self) -> Result<Literal<'a>, Malformed> {
        let is_huffman = self.block.get(self.at).ok_or(Malformed)? & 0x80 != 0;
        let len = self.integer(7)?;
        let bytes = self.block[self.at..].get(..len).ok_or(Malformed)?;
        self.at += len;
        Ok(Literal { bytes, is_huffman })
    }

    /// RFC 7541 5.1, at most five bytes: more than any length or index here can need.
    fn integer(&mut self, prefix_bits: u32) -> Result<usize, Malformed> {
        let prefix_max = (1_usize << prefix_bits) - 1;
        let mut value = usize::from(self.byte()?) & prefix_max;
        if value < prefix_max {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.block.get(self.at).ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    /// Puts the decoded text in the place of the literal from `start` to here, unless that stands written out already.
    fn write_out(&mut self, start: usize, literal: Literal<'_>) {
        if literal.is_huffman {
            let text = std::mem::take(&mut self.text);
            self.replace(start, &text);
            self.text = text;
        }
    }

    /// Puts `text` in the place of the literal from `start` to here.
    fn replace(&mut self, start: usize, text: &[u8]) {
        let new = self.rewritten.get_or_insert_with(|| Rewritten { bytes: Vec::new(), covers: 0 });
        new.bytes.extend_from_slice(&self.block[new.covers..start]);
        put_length(&mut new.bytes, text.len());
        new.bytes.extend_from_slice(text);
        new.covers = self.at;
    }

    fn finish(self) -> Option<Vec<u8>> {
        let mut new = self.rewritten?;
        new.bytes.extend_from_slice(&self.block[new.covers..]);
        Some(new.bytes)
    }
}

/// The length of a string that is written out, with its seven-bit prefix.
fn put_length(bytes: &mut Vec<u8>, mut value: usize) {
    if value < 0x7f {
        bytes.push(value as u8);
        return;
    }
    bytes.push(0x7f);
    value -= 0x7f;
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The text to put instead of an authority that does not parse; `None` when it parses or nothing in it can be replaced.
fn replacement(authority: &[u8]) -> Option<Vec<u8>> {
    if Authority::try_from(authority).is_ok() {
        return None;
    }
    let replaced: Vec<u8> = authority.iter().map(|byte| if may_stay(*byte) { *byte } else { b'-' }).collect();
    if replaced == authority { None } else { Some(replaced) }
}

fn may_stay(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests;
