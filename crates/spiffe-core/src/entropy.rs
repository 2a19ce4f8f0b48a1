//! The one source of randomness for serials, ids and jitter. Keys come from a key manager instead.

/// Length of a random key ID.
const KEY_ID_CHARS: usize = 32;

/// What a random key ID is made of.
const KEY_ID_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Fills buffers with random bytes. The real one is cryptographically strong; tests use a seeded one.
pub trait Entropy: Send + Sync {
    /// Overwrites all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A random 64-bit number.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// A random version 4 UUID in its usual text form (RFC 9562).
    fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// A random key ID of 32 letters and digits, the form that SPIRE's have: 190 bits, so that no two ever meet.
    fn key_id(&self) -> String {
        let mut id = String::with_capacity(KEY_ID_CHARS);
        while id.len() < KEY_ID_CHARS {
            let mut bytes = [0; KEY_ID_CHARS];
            self.fill(&mut bytes);
            // Numbers past the alphabet are passed over, so that no letter is likelier than another.
            let letters = bytes.iter().filter_map(|byte| KEY_ID_ALPHABET.get(usize::from(byte & 63)));
            let missing = KEY_ID_CHARS - id.len();
            id.extend(letters.take(missing).copied().map(char::from));
        }
        id
    }

    /// A positive certificate serial of 16 bytes whose top bit is clear (RFC 5280 4.1.2.2).
    fn serial(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        while bytes == [0; 16] {
            self.fill(&mut bytes);
            bytes[0] &= 0x7f;
        }
        bytes
    }
}

impl<T: Entropy + ?Sized> Entropy for std::sync::Arc<T> {
    fn fill(&self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// Fills with a byte that grows by one at each call.
    struct Counting(AtomicU8);

    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, Ordering::Relaxed));
        }
    }

    #[test]
    fn a_serial_is_positive_even_when_the_source_first_yields_zero() {
        assert_eq!(Counting(AtomicU8::new(0)).serial(), [1; 16]);
        let serial = Counting(AtomicU8::new(0xff)).serial();
        assert_eq!((serial[0], serial[15]), (0x7f, 0xff));
    }

    #[test]
    fn a_uuid_is_of_version_4_whatever_the_source() {
        for start in [0, 0x55, 0xff] {
            let uuid = Counting(AtomicU8::new(start)).uuid();
            assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
            assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
        }
    }

    #[test]
    fn a_key_id_has_32_letters_and_digits_whatever_the_source() {
        for start in [0, 0x3d, 0x3e, 0x7f, 0xfe] {
            let id = Counting(AtomicU8::new(start)).key_id();
            assert_eq!(id.len(), 32, "{id}");
            assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        }
    }
}
