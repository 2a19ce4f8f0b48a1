//! A caller of FetchX509SVID that costs next to nothing, so that ten thousand of them fit beside the agent they call.
//!
//! Writes HTTP/2 frames by hand: one call as fixed bytes, and after it acknowledgements of pings. Of the answer it tells only
//! whether there is a message. Start at [`Light::call`].

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::sleep;

/// With these bytes every HTTP/2 client begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RESET: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// `www.example.com` in the Huffman code (RFC 7541 C.4.1), which all but the simplest clients use, and which takes the
/// other end a buffer.
const AUTHORITY: [u8; 12] = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];

/// Before the next try when the agent's queue of connections is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);

/// A connection with one open call.
pub struct Light(UnixStream);

/// What a call brought first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A message of so many bytes; the stream goes on.
    Message(usize),
    /// No message: the call was refused.
    Refused,
}

impl Light {
    /// Connects, as often as it takes to get into the agent's queue, and calls.
    ///
    /// # Errors
    /// When nobody listens, or the agent closes the connection at once.
    pub async fn call(path: &Path) -> io::Result<Self> {
        let mut socket = connect(path).await?;
        socket.write_all(&opening()).await?;
        Ok(Self(socket))
    }

    /// The first answer.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        loop {
            let frame = self.frame().await?;
            match frame.kind {
                DATA if frame.bytes > 0 => return Ok(Answer::Message(frame.bytes)),
                HEADERS | DATA if frame.flags & END_STREAM != 0 => return Ok(Answer::Refused),
                RESET | GOAWAY => return Ok(Answer::Refused),
                _ => {}
            }
        }
    }

    /// Answers pings until the connection or the stream ends.
    pub async fn stay(mut self) {
        while let Ok(frame) = self.frame().await {
            if frame.kind <= HEADERS && frame.flags & END_STREAM != 0 {
                return;
            }
        }
    }

    /// The next frame, after what it asks for was done.
    async fn frame(&mut self) -> io::Result<Frame> {
        let mut header = [0; 9];
        self.0.read_exact(&mut header).await?;
        let [len_0, len_1, len_2, kind, flags, ..] = header;
        let bytes = usize::from(len_0) << 16 | usize::from(len_1) << 8 | usize::from(len_2);
        let mut payload = vec![0; bytes];
        self.0.read_exact(&mut payload).await?;
        match kind {
            PING if flags & ACK == 0 => self.0.write_all(&frame(PING, ACK, 0, &payload)).await?,
            SETTINGS if flags & ACK == 0 => self.0.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            _ => {}
        }
        Ok(Frame { kind, flags, bytes })
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    bytes: usize,
}

/// Connects to a listener whose queue may be full.
///
/// # Errors
/// When nobody listens.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_FULL_PAUSE).await,
            connected => return connected,
        }
    }
}

/// Everything a client says for one call: preface, settings, headers, and an empty message.
pub fn opening() -> Vec<u8> {
    let request = frame(DATA, END_STREAM, 1, &[0; 5]);
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &header_block()), request]
        .concat()
}

/// The request's headers, each written out (RFC 7541 6.2.2), method and scheme from the static table.
fn header_block() -> Vec<u8> {
    let named = |index: &[u8], value: &[u8]| [index, &[value.len() as u8], value].concat();
    let spelled =
        |name: &[u8], value: &[u8]| [&[0x00, name.len() as u8], name, &[value.len() as u8], value].concat();
    [
        vec![0x83, 0x86],
        named(&[0x04], b"/SpiffeWorkloadAPI/FetchX509SVID"),
        vec![0x01, 0x80 | AUTHORITY.len() as u8],
        AUTHORITY.to_vec(),
        named(&[0x0f, 0x10], b"application/grpc"),
        spelled(b"te", b"trailers"),
        spelled(b"workload.spiffe.io", b"true"),
    ]
    .concat()
}

/// One HTTP/2 frame (RFC 9113 4.1) of less than 64 KiB.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = (payload.len() as u32).to_be_bytes();
    [&len[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
