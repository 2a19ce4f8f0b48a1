//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use spindle_transport::headers::HeaderFilter;

/// What comes out of the filter when the connection comes in chunks of one size.
pub(crate) fn filtered(input: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let (mut filter, mut out) = (HeaderFilter::new(), Vec::new());
    let mut buf = [0; 61];
    let mut drain = |filter: &mut HeaderFilter, out: &mut Vec<u8>| {
        while filter.has_output() {
            let count = filter.take_output(&mut buf);
            assert!(count > 0, "what is said to be there is given");
            out.extend(&buf[..count]);
        }
    };
    for chunk in input.chunks(chunk_bytes) {
        let passed = filter.push(chunk);
        out.extend(&chunk[..passed]);
        drain(&mut filter, &mut out);
    }
    filter.finish();
    drain(&mut filter, &mut out);
    out
}

/// How a connection is cut into reads changes nothing, what was mended needs no mending, and nothing is added but
/// what Huffman code stands for.
pub(crate) fn header_filter(input: &[u8]) {
    let once = filtered(input, usize::MAX);
    for chunk_bytes in [1, 7, 64] {
        assert_eq!(filtered(input, chunk_bytes), once, "in chunks of {chunk_bytes}");
    }
    assert_eq!(filtered(&once, usize::MAX), once);
    assert!(once.len() <= input.len() * 2);
}
