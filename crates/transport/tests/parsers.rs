//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;

use explore::explore;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, u8::try_from(payload.len()).expect("short payloads"), kind, flags, 0, 0, 0, 1];
    [&head, payload].concat()
}

#[test]
fn connections_before_the_http2_library_sees_them() {
    // `:authority` as text, kept in the table and named by it, and in Huffman form; whole and in two frames.
    let plain = [&[0x83, 0x86, 0x41, 14][..], b"/tmp/../t.sock"].concat();
    let huffman = [0x83, 0x41, 0x83, 0x62, 0x74, 0xa7];
    let again = [&[0x83][..], &[0xbe]].concat();
    let seeds = [
        [PREFACE, &frame(4, 0, &[]), &frame(1, 4, &plain), &frame(1, 4, &again)].concat(),
        [PREFACE, &frame(1, 4, &huffman), &frame(0, 1, b"data")].concat(),
        [PREFACE, &frame(1, 0, &plain[..6]), &frame(9, 4, &plain[6..])].concat(),
    ];
    for seed in &seeds {
        assert_ne!(&invariants::filtered(seed, 3), seed, "there is something to mend");
    }
    explore(&seeds, invariants::header_filter);
}
