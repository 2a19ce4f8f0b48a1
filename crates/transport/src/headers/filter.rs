//! Walks the frames of an incoming HTTP/2 connection and hands every header block to `hpack.rs`, RFC 9113 4 and 6.
//!
//! No I/O. Bytes that need no look are reported as passed and never copied; header blocks are held back until they are
//! complete. Anything out of order or over a bound switches the filter off for good, and the rest passes as it is.

use super::hpack::{self, Malformed, Table};

/// With these bytes every HTTP/2 client begins, RFC 9113 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const TYPE_HEADERS: u8 = 0x1;
const TYPE_CONTINUATION: u8 = 0x9;
const FLAG_END_HEADERS: u8 = 0x4;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
/// Stream dependency and weight.
const PRIORITY_BYTES: usize = 5;

/// The largest frame of a header block, in bytes; the library behind refuses larger ones.
const FRAME_BYTES_MAX: usize = crate::grpc::FRAME_BYTES_MAX as usize;

/// The most frames of one header block: with full frames far above the header list our servers take.
const FRAMES_MAX: usize = 8;

/// The state of one connection. Feed [`HeaderFilter::push`], then drain [`HeaderFilter::take_output`].
#[derive(Debug)]
pub struct HeaderFilter {
    state: State,
    table: Table,
    /// Input from the first byte that cannot be judged yet.
    held: Vec<u8>,
    output: Vec<u8>,
    output_at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the connection preface were seen.
    Preface { seen: usize },
    /// At the start of a frame, perhaps with the first frames of a header block held.
    Frame,
    /// Inside a frame that passes as it is.
    Payload { left: usize },
    /// Nothing is looked at any more.
    Off,
}

impl Default for HeaderFilter {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderFilter {
    /// A filter at the start of a connection.
    pub fn new() -> Self {
        let state = State::Preface { seen: 0 };
        Self { state, table: Table::new(), held: Vec::new(), output: Vec::new(), output_at: 0 }
    }

    /// Takes the next bytes of the connection. So many bytes from the start of `chunk` as the answer says pass unchanged
    /// and at once; the filter keeps the rest and what becomes of it comes out behind them through
    /// [`HeaderFilter::take_output`], which must be empty before the next push.
    #[must_use]
    pub fn push(&mut self, chunk: &[u8]) -> usize {
        debug_assert!(!self.has_output(), "output is drained before the next push");
        let passed = if self.held.is_empty() { self.skim(chunk) } else { 0 };
        if passed < chunk.len() {
            self.held.extend_from_slice(&chunk[passed..]);
            self.work();
        }
        passed
    }

    /// No more bytes will come: what is held comes out as it is.
    pub fn finish(&mut self) {
        self.state = State::Off;
        self.output.append(&mut self.held);
    }

    /// Whether there are bytes to take.
    pub fn has_output(&self) -> bool {
        self.output_at < self.output.len()
    }

    /// The bytes to take.
    pub fn output(&self) -> &[u8] {
        &self.output[self.output_at..]
    }

    /// So many of them were taken.
    pub fn taken(&mut self, bytes: usize) {
        self.output_at = (self.output_at + bytes).min(self.output.len());
        if !self.has_output() {
            // Streams stay open for days, most without a further word.
            self.output = Vec::new();
            self.output_at = 0;
        }
    }

    /// Moves waiting bytes into `buf` and tells how many.
    pub fn take_output(&mut self, buf: &mut [u8]) -> usize {
        let waiting = self.output();
        let count = waiting.len().min(buf.len());
        buf[..count].copy_from_slice(&waiting[..count]);
        self.taken(count);
        count
    }

    /// Goes over bytes that pass as they are; stops at the start of a header block or of an incomplete frame header.
    fn skim(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Off => return bytes.len(),
                State::Preface { seen } => at += self.skim_preface(rest, seen),
                State::Payload { left } => {
                    let count = left.min(rest.len());
                    at += count;
                    self.state =
                        if count == left { State::Frame } else { State::Payload { left: left - count } };
                }
                State::Frame => match FrameHeader::parse(rest) {
                    Some(header) if header.kind != TYPE_HEADERS => {
                        at += FRAME_HEADER_BYTES;
                        self.state =
                            if header.len == 0 { State::Frame } else { State::Payload { left: header.len } };
                    }
                    _ => return at,
                },
            }
        }
        at
    }

    fn skim_preface(&mut self, bytes: &[u8], seen: usize) -> usize {
        let expected = &PREFACE[seen..];
        let count = expected.len().min(bytes.len());
        self.state = match () {
            () if bytes[..count] != expected[..count] => State::Off,
            () if count == expected.len() => State::Frame,
            () => State::Preface { seen: seen + count },
        };
        count
    }

    /// Moves all that can be judged from `held` to `output`.
    fn work(&mut self) {
        let held = std::mem::take(&mut self.held);
        let mut at = 0;
        loop {
            let passed = self.skim(&held[at..]);
            self.output.extend_from_slice(&held[at..at + passed]);
            at += passed;
            // What is left starts a header block, or is too short to tell.
            match header_block(&held[at..]) {
                Progress::Incomplete => break,
                Progress::Complete(bytes) => {
                    let frames = &held[at..at + bytes];
                    if rewrite_frames(frames, &mut self.table, &mut self.output).is_err() {
                        self.output.extend_from_slice(frames);
                        self.state = State::Off;
                    }
                    at += bytes;
                }
                Progress::Broken => self.state = State::Off,
            }
        }
        self.held = held;
        self.held.drain(..at);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }
}

struct FrameHeader {
    len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        let [len_0, len_1, len_2, kind, flags, stream @ ..] = *bytes;
        Some(Self {
            len: usize::from(len_0) << 16 | usize::from(len_1) << 8 | usize::from(len_2),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        })
    }

    fn ends_block(&self) -> bool {
        self.flags & FLAG_END_HEADERS != 0
    }
}

enum Progress {
    Incomplete,
    /// So many bytes hold all frames of the block.
    Complete(usize),
    Broken,
}

/// Whether `bytes` starts with a whole HEADERS frame and all its CONTINUATION frames.
fn header_block(bytes: &[u8]) -> Progress {
    let Some(first) = FrameHeader::parse(bytes) else { return Progress::Incomplete };
    let mut at = 0;
    for frame in 0..FRAMES_MAX {
        let Some(header) = FrameHeader::parse(&bytes[at..]) else { return Progress::Incomplete };
        let kind = if frame == 0 { TYPE_HEADERS } else { TYPE_CONTINUATION };
        if header.kind != kind || header.stream != first.stream || header.len > FRAME_BYTES_MAX {
            return Progress::Broken;
        }
        at += FRAME_HEADER_BYTES + header.len;
        if at > bytes.len() {
            return Progress::Incomplete;
        }
        if header.ends_block() {
            return Progress::Complete(at);
        }
    }
    Progress::Broken
}

/// One frame of a header block, without its padding.
struct Piece<'a> {
    header: FrameHeader,
    /// What stands before its piece of the block.
    priority: &'a [u8],
    block: &'a [u8],
}

impl<'a> Piece<'a> {
    /// The frame at the start of `bytes`, which hold all of it, and what follows.
    fn cut(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let header = FrameHeader::parse(bytes).ok_or(Malformed)?;
        let (payload, rest) = bytes[FRAME_HEADER_BYTES..].split_at_checked(header.len).ok_or(Malformed)?;
        let flagged = |flag| header.kind == TYPE_HEADERS && header.flags & flag != 0;
        let (pad_bytes, payload) = match payload {
            [pad_bytes, payload @ ..] if flagged(FLAG_PADDED) => (usize::from(*pad_bytes), payload),
            [] if flagged(FLAG_PADDED) => return Err(Malformed),
            _ => (0, payload),
        };
        let priority_bytes = if flagged(FLAG_PRIORITY) { PRIORITY_BYTES } else { 0 };
        let (priority, payload) = payload.split_at_checked(priority_bytes).ok_or(Malformed)?;
        let block_bytes = payload.len().checked_sub(pad_bytes).ok_or(Malformed)?;
        Ok((Self { header, priority, block: &payload[..block_bytes] }, rest))
    }
}

/// Appends the frames of one header block, as they are or with the block rewritten.
fn rewrite_frames(frames: &[u8], table: &mut Table, output: &mut Vec<u8>) -> Result<(), Malformed> {
    let (first, mut rest) = Piece::cut(frames)?;
    let rewritten = if rest.is_empty() {
        hpack::rewrite(first.block, table)?
    } else {
        let mut block = first.block.to_vec();
        while !rest.is_empty() {
            let (piece, after) = Piece::cut(rest)?;
            block.extend_from_slice(piece.block);
            rest = after;
        }
        hpack::rewrite(&block, table)?
    };
    match rewritten {
        Some(block) => put_frames(&first, &block, output),
        None => output.extend_from_slice(frames),
    }
    Ok(())
}

/// Appends a header block in as many frames as it takes, the first like `first` but for the padding.
fn put_frames(first: &Piece<'_>, block: &[u8], output: &mut Vec<u8>) {
    let (mut kind, mut flags) = (TYPE_HEADERS, first.header.flags & !(FLAG_PADDED | FLAG_END_HEADERS));
    let (mut before, mut block) = (first.priority, block);
    loop {
        let (now, later) = block.split_at(block.len().min(FRAME_BYTES_MAX - before.len()));
        let len = before.len() + now.len();
        let end = if later.is_empty() { FLAG_END_HEADERS } else { 0 };
        output.extend_from_slice(&[(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, flags | end]);
        output.extend_from_slice(&first.header.stream.to_be_bytes());
        output.extend_from_slice(before);
        output.extend_from_slice(now);
        if later.is_empty() {
            return;
        }
        (kind, flags, before, block) = (TYPE_CONTINUATION, 0, &[], later);
    }
}

#[cfg(test)]
mod tests;
