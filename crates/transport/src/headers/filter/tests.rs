//! Whole connections as bytes, cut into chunks in many ways.

use bolero::TypeGenerator;

use super::*;

const PATH: &[u8] = b"/tmp/../t.sock";
const MENDED: &[u8] = b"-tmp-..-t.sock";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let mut bytes = vec![(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `:authority` by index, not kept.
fn block(authority: &[u8]) -> Vec<u8> {
    [&[0x83, 0x86, 0x01, authority.len() as u8], authority].concat()
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE.to_vec(), frames.concat()].concat()
}

/// What comes out when the connection is read in chunks of these sizes, repeated.
fn filtered(bytes: &[u8], chunk_sizes: &[usize]) -> Vec<u8> {
    let (mut filter, mut rest, mut out) = (HeaderFilter::new(), bytes, Vec::new());
    let mut sizes = chunk_sizes.iter().cycle();
    let mut buf = [0; 97];
    let mut drain = |filter: &mut HeaderFilter, out: &mut Vec<u8>| {
        while filter.has_output() {
            let count = filter.take_output(&mut buf);
            out.extend(&buf[..count]);
        }
    };
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        let passed = filter.push(chunk);
        out.extend(&chunk[..passed]);
        drain(&mut filter, &mut out);
        rest = later;
    }
    filter.finish();
    drain(&mut filter, &mut out);
    out
}

#[track_caller]
fn becomes(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
    let (bytes, expected) = (connection(frames), connection(expected));
    for chunk_sizes in [&[usize::MAX][..], &[1], &[2, 3], &[9], &[24, 9], &[7, 1, 30]] {
        assert_eq!(filtered(&bytes, chunk_sizes), expected, "in chunks of {chunk_sizes:?}");
    }
}

#[track_caller]
fn stays(frames: &[Vec<u8>]) {
    becomes(frames, frames);
}

fn settings() -> Vec<u8> {
    frame(0x4, 0, 0, &[0, 3, 0, 0, 0, 100])
}

#[test]
fn a_path_in_a_single_frame_is_mended() {
    let data = frame(0x0, 1, 1, &[0, 0, 0, 0, 0]);
    becomes(
        &[settings(), frame(1, 4, 1, &block(PATH)), data.clone()],
        &[settings(), frame(1, 4, 1, &block(MENDED)), data],
    );
}

#[test]
fn every_call_of_a_connection_is_mended() {
    let call =
        |stream, authority| [frame(1, 4, stream, &block(authority)), frame(0, 1, stream, b"x")].concat();
    let frames: Vec<_> = (0..20).map(|n| call(2 * n + 1, PATH)).collect();
    let expected: Vec<_> = (0..20).map(|n| call(2 * n + 1, MENDED)).collect();
    becomes(&frames, &expected);
}

#[test]
fn the_priority_stays_before_a_mended_block_and_padding_goes() {
    let priority = [0x80, 0, 0, 0, 16];
    let padded = [&[3][..], &priority, &block(PATH), &[0, 0, 0]].concat();
    let mended = [&priority[..], &block(MENDED)].concat();
    becomes(&[frame(1, 1 | 4 | 8 | 0x20, 1, &padded)], &[frame(1, 1 | 4 | 0x20, 1, &mended)]);
}

#[test]
fn what_need_not_be_mended_stays_in_its_frames() {
    let block = block(b"localhost");
    let padded = [&[3, 0x80, 0, 0, 0, 16][..], &block[..4], &[0, 0, 0]].concat();
    stays(&[frame(1, 8 | 0x20, 1, &padded), frame(9, 4, 1, &block[4..])]);
}

#[test]
fn a_block_cut_anywhere_into_continuations_is_mended() {
    let (bad, good) = (block(PATH), block(MENDED));
    for cut in 0..=bad.len() {
        let cut = [frame(1, 1, 1, &bad[..cut]), frame(9, 0, 1, &[]), frame(9, 4, 1, &bad[cut..])];
        becomes(&cut, &[frame(1, 1 | 4, 1, &good)]);
    }
}

#[test]
fn huffman_code_is_written_out_and_takes_more_frames_if_it_must() {
    // Eight times `a` are five bytes.
    let code = [&[0x01, 0xff, 0xd5, 0x60][..], &[0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(2500)].concat();
    let text = [&[0x01, 0x7f, 0xa1, 0x9b, 0x01][..], &[b'a'; 20_000]].concat();
    let (first, second) = text.split_at(FRAME_BYTES_MAX);
    becomes(
        &[settings(), frame(1, 5, 1, &code), settings()],
        &[settings(), frame(1, 1, 1, first), frame(9, 4, 1, second), settings()],
    );
}

#[test]
fn a_header_block_inside_data_is_not_touched() {
    stays(&[settings(), frame(0, 0, 1, &frame(1, 4, 1, &block(PATH)))]);
}

#[test]
fn another_protocol_passes_as_it_is() {
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"P", b""] {
        let bytes = [bytes, &frame(1, 4, 1, &block(PATH))].concat();
        assert_eq!(filtered(&bytes, &[1]), bytes);
        assert_eq!(filtered(&bytes, &[usize::MAX]), bytes);
    }
}

#[test]
fn after_a_broken_frame_everything_passes_as_it_is() {
    let later = frame(1, 4, 3, &block(PATH));
    for broken in [
        frame(1, 4 | 8, 1, &[9, 0x83]),    // more padding than payload
        frame(1, 4 | 8, 1, &[]),           // no pad length
        frame(1, 4 | 0x20, 1, &[0, 0, 0]), // priority cut off
        frame(1, 4, 1, &[0x80]),           // block does not parse
        [frame(1, 0, 1, &[0x83]), frame(0, 0, 1, &[])].concat(), // data inside a block
        [frame(1, 0, 1, &[0x83]), frame(9, 4, 3, &[])].concat(), // continuation of another stream
        frame(1, 4, 1, &vec![0x83; FRAME_BYTES_MAX + 1]), // frame over its bound
        [frame(1, 0, 1, &[0x83]), frame(9, 0, 1, &[]).repeat(FRAMES_MAX)].concat(), // block without end
    ] {
        stays(&[broken, later.clone()]);
    }
}

#[test]
fn a_connection_that_ends_inside_a_block_gives_out_what_it_had() {
    let whole = connection(&[frame(1, 4, 1, &block(PATH))]);
    for end in PREFACE.len()..whole.len() {
        assert_eq!(filtered(&whole[..end], &[usize::MAX]), whole[..end]);
    }
}

#[test]
fn bytes_outside_header_blocks_are_neither_copied_nor_held() {
    let mut filter = HeaderFilter::new();
    let bytes = connection(&[settings(), frame(0, 0, 1, &[7; 16384])]);
    for chunk in bytes.chunks(1000).filter(|chunk| chunk.len() == 1000) {
        assert_eq!(filter.push(chunk), chunk.len());
        assert_eq!((filter.held.capacity(), filter.output.capacity()), (0, 0));
    }
}

#[test]
fn buffers_are_given_back_after_a_large_block() {
    let mut filter = HeaderFilter::new();
    let bytes = connection(&[frame(1, 4, 1, &[0x83; 16000])]);
    for chunk in bytes.chunks(100) {
        let _ = filter.push(chunk);
        while filter.has_output() {
            filter.take_output(&mut [0; 4096]);
        }
    }
    assert_eq!((filter.held.capacity(), filter.output.capacity()), (0, 0));
}

/// What a client, friendly or not, may send next.
#[derive(Debug, TypeGenerator)]
enum Sent {
    Headers { authority: Vec<u8>, is_kept: bool, flags: u8, cut: u8 },
    Other { kind: u8, flags: u8, payload: Vec<u8> },
    Raw(Vec<u8>),
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Headers { authority, is_kept, flags, cut } => {
                let authority = &authority[..authority.len().min(100)];
                let first = if *is_kept { 0x41 } else { 0x01 };
                let block = [&[0x83, first, authority.len() as u8], authority].concat();
                let cut = usize::from(*cut) % (block.len() + 1);
                [frame(1, flags & 0x20, 1, &block[..cut]), frame(9, 4, 1, &block[cut..])].concat()
            }
            Self::Other { kind, flags, payload } => frame(*kind, *flags, 1, payload),
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

#[test]
fn any_chunking_gives_the_same_bytes_and_a_second_pass_changes_nothing() {
    bolero::check!().with_type::<(Vec<Sent>, Vec<u8>)>().for_each(|(sent, chunk_sizes)| {
        let bytes = connection(&sent.iter().map(Sent::bytes).collect::<Vec<_>>());
        let whole = filtered(&bytes, &[usize::MAX]);
        let mut chunk_sizes: Vec<usize> = chunk_sizes.iter().map(|size| usize::from(*size) + 1).collect();
        chunk_sizes.push(1);
        assert_eq!(filtered(&bytes, &chunk_sizes), whole);
        assert_eq!(filtered(&whole, &chunk_sizes), whole);
    });
}

#[test]
fn any_bytes_pass_without_a_panic() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let bytes = [PREFACE, bytes].concat();
        assert_eq!(filtered(&bytes, &[5]), filtered(&bytes, &[usize::MAX]));
    });
}
