//! The Huffman code of HPACK, RFC 7541 appendix B.
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their symbols, and follow from the
//! lengths alone. Decoding is strict: padding is at most seven bits, all ones, and the end symbol never occurs.

use super::hpack::Malformed;

/// Code length of each byte, in bits.
#[rustfmt::skip]
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The longest code, in bits. The end symbol has this length too and is the last number of it.
const BITS_MAX: usize = 30;

/// Everything that follows from the lengths.
struct Code {
    /// First number of each length.
    first: [u32; BITS_MAX + 1],
    /// How many codes have each length.
    count: [u32; BITS_MAX + 1],
    /// Where the symbols of each length start in `symbols`.
    start: [u32; BITS_MAX + 1],
    /// All bytes, by code length and then by value.
    symbols: [u8; 256],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code {
        first: [0; BITS_MAX + 1],
        count: [0; BITS_MAX + 1],
        start: [0; BITS_MAX + 1],
        symbols: [0; 256],
    };
    let (mut bits, mut next, mut placed) = (1, 0, 0);
    while bits <= BITS_MAX {
        next <<= 1;
        code.first[bits] = next;
        code.start[bits] = placed;
        let mut symbol = 0;
        while symbol < 256 {
            if BITS[symbol] as usize == bits {
                code.symbols[placed as usize] = symbol as u8;
                code.count[bits] += 1;
                next += 1;
                placed += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    code
}

/// Decodes a whole string, replacing what `text` held.
pub(super) fn decode(encoded: &[u8], text: &mut Vec<u8>) -> Result<(), Malformed> {
    text.clear();
    let (mut number, mut bits) = (0_u32, 0_usize);
    for byte in encoded {
        for shift in (0..8).rev() {
            number = number << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            let place = number.wrapping_sub(CODE.first[bits]);
            if place < CODE.count[bits] {
                // Below 256: `start` and `count` split the 256 symbols.
                text.push(CODE.symbols[(CODE.start[bits] + place) as usize]);
                (number, bits) = (0, 0);
            } else if bits == BITS_MAX {
                return Err(Malformed);
            }
        }
    }
    let is_padding = bits < 8 && number == (1 << bits) - 1;
    if is_padding { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use httlib_huffman::encode;

    use super::*;

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(text, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_byte_has_the_code_of_the_standard() {
        let mut decoded = Vec::new();
        for byte in 0..=255_u8 {
            for text in [vec![byte], vec![byte; 8], vec![b'a', byte, b'~', byte]] {
                decode(&encoded(&text), &mut decoded).unwrap();
                assert_eq!(decoded, text);
            }
        }
    }

    #[test]
    fn the_example_of_the_standard_decodes() {
        let mut text = Vec::new();
        // RFC 7541 C.4.1.
        decode(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], &mut text).unwrap();
        assert_eq!(text, b"www.example.com");
    }

    #[test]
    fn bad_padding_and_the_end_symbol_are_refused() {
        // Zero padding; a whole byte of padding; the end symbol; a long code cut off.
        for bytes in [&[0x00_u8][..], &[0x1f, 0xff], &[0xff; 4], &[0xff, 0xff, 0xfe]] {
            assert_eq!(decode(bytes, &mut Vec::new()), Err(Malformed), "{bytes:x?}");
        }
    }

    #[test]
    fn decoding_undoes_encoding_and_nothing_else() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut text = Vec::new();
            decode(&encoded(bytes), &mut text).unwrap();
            assert_eq!(text, bytes);
            if decode(bytes, &mut text).is_ok() {
                assert_eq!(encoded(&text), bytes);
            }
        });
    }
}
