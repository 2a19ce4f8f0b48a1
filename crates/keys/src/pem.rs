//! Private keys as PEM text that is wiped when it is dropped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A PKCS#8 key (DER) as PEM (RFC 7468).
pub fn private_key(pkcs8_der: &[u8]) -> Zeroizing<String> {
    const LINE_BYTES: usize = 48;
    // Large enough from the start, so that no half-filled copy is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(pkcs8_der.len() * 2 + 64));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    for line in pkcs8_der.chunks(LINE_BYTES) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_64_characters() {
        let text = private_key(&[0; 100]);
        let lengths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lengths, [27, 64, 64, 8, 25]);
    }
}
