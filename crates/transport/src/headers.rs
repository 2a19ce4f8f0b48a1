//! Makes the `:authority` of Python, C++ and Java clients acceptable to the HTTP/2 library, and spares it the Huffman code.
//!
//! On a Unix socket those clients send the socket's path there, which is no authority, and the library would refuse the
//! call before any handler sees it. [`HeaderShim`] overwrites the bytes that cannot stand in an authority with `-`. As it
//! has to read header blocks for that, it writes all Huffman code in them out: the library decodes it into a buffer that
//! takes a page of memory for as long as the connection lasts, which for ten thousand workloads is 40 MiB (ADR 50).
//! Everything else it leaves alone, and what it cannot read it passes on as it is: the library behind it is the judge.
//! The frames are walked in `filter.rs`, header blocks in `hpack.rs`, the Huffman code is in `huffman.rs`.

mod filter;
mod hpack;
mod huffman;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use filter::HeaderFilter;
pub(crate) use filter::PREFACE;

/// A stream whose incoming bytes go through a [`HeaderFilter`]; outgoing bytes are not touched.
#[derive(Debug)]
pub struct HeaderShim<S> {
    inner: S,
    filter: HeaderFilter,
}

impl<S> HeaderShim<S> {
    /// Wraps the server's end of a connection on which nothing was read yet.
    pub fn new(inner: S) -> Self {
        Self { inner, filter: HeaderFilter::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeaderShim<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, filter } = self.get_mut();
        // Each round either answers or has absorbed bytes of a header block, whose size is bounded.
        loop {
            if filter.has_output() || buf.remaining() == 0 {
                // Only what is there: the rest of a large buffer stays untouched, and so takes no memory.
                let waiting = filter.output();
                let count = waiting.len().min(buf.remaining());
                buf.put_slice(&waiting[..count]);
                filter.taken(count);
                return Poll::Ready(Ok(()));
            }
            let start = buf.filled().len();
            ready!(Pin::new(&mut *inner).poll_read(cx, buf))?;
            if buf.filled().len() == start {
                filter.finish();
                if !filter.has_output() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let passed = filter.push(&buf.filled()[start..]);
            buf.set_filled(start + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeaderShim<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
