//! Keys by name, and the manager that forgets them when the process ends.
//!
//! Names such as `x509-CA-A` must mean the same key after a restart for an authority to go on; [`MemoryKeys`] promises
//! nothing of the kind, [`crate::DiskKeys`] does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::key::{Key, KeyType};

/// The longest name of a key, in bytes.
pub const KEY_ID_BYTES_MAX: usize = 255;

/// The most keys one manager holds: two slots for each of a few families, with a wide margin.
pub const KEYS_MAX: usize = 1024;

/// Makes and keeps keys by name. Shared by all tasks; calls may block on a disk or a service.
pub trait KeyManager: Send + Sync {
    /// Makes a new key and keeps it under `id`, in place of the one that was there. Durable before it returns; on
    /// failure the former key stays.
    ///
    /// # Errors
    /// When the name is refused, the key cannot be made, or it cannot be kept.
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Key, KeyError>;

    /// Keeps a key that exists under `id`, with the promises of [`KeyManager::generate`].
    ///
    /// # Errors
    /// When the name is refused, or the key cannot be kept.
    fn keep(&self, id: &str, key: &Key) -> Result<(), KeyError>;

    /// The key kept under `id`.
    fn get(&self, id: &str) -> Option<Key>;

    /// Every key with its name, in order of names.
    fn all(&self) -> Vec<(String, Key)>;
}

/// Why a key cannot be made, read or kept. No variant holds key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The library that makes keys refused.
    #[error("cannot make a {key_type} key: {why}")]
    Generate {
        /// The kind asked for.
        key_type: KeyType,
        /// What the library said.
        why: String,
    },
    /// The bytes are no private key in PKCS#8.
    #[error("the private key is not in PKCS#8 DER")]
    NotPkcs8,
    /// A private key of another kind than the four that are used.
    #[error("the private key is none of ec-p256, ec-p384, rsa-2048, rsa-4096")]
    UnsupportedKey,
    /// The name of a key is empty or too long.
    #[error("a key name has 1 to {KEY_ID_BYTES_MAX} bytes, this one has {0}")]
    IdLength(usize),
    /// The manager is full.
    #[error("there are {KEYS_MAX} keys already, which is the most that are kept")]
    Full,
    /// A certificate request could not be built.
    #[error("cannot build a certificate request: {0}")]
    Request(String),
    /// The operating system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key file is not what this program writes. It is left as it is.
    #[error("{path} is not a key file: {why}; restore it from a backup, or move it away to start with new keys", path = path.display())]
    BadFile {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it, without its content.
        why: String,
    },
}

/// Keys that live as long as the process.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    keys: Mutex<BTreeMap<String, Key>>,
}

impl MemoryKeys {
    /// An empty manager.
    pub fn new() -> Self {
        Self::default()
    }
}

impl KeyManager for MemoryKeys {
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Key, KeyError> {
        check_id(id)?;
        let key = Key::generate(key_type)?;
        self.keep(id, &key)?;
        Ok(key)
    }

    fn keep(&self, id: &str, key: &Key) -> Result<(), KeyError> {
        check_id(id)?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        check_room(&keys, id)?;
        keys.insert(id.to_owned(), key.clone());
        Ok(())
    }

    fn get(&self, id: &str) -> Option<Key> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn all(&self) -> Vec<(String, Key)> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|(id, key)| (id.clone(), key.clone())).collect()
    }
}

pub(crate) fn check_id(id: &str) -> Result<(), KeyError> {
    if (1..=KEY_ID_BYTES_MAX).contains(&id.len()) { Ok(()) } else { Err(KeyError::IdLength(id.len())) }
}

pub(crate) fn check_room(keys: &BTreeMap<String, Key>, id: &str) -> Result<(), KeyError> {
    if keys.len() >= KEYS_MAX && !keys.contains_key(id) { Err(KeyError::Full) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_found_by_its_name_and_replaced_by_the_next() {
        let keys = MemoryKeys::new();
        assert!(keys.get("x509-CA-A").is_none());
        let first = keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
        let second = keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
        assert_ne!(first.spki_der(), second.spki_der());
        assert_eq!(keys.get("x509-CA-A").unwrap().spki_der(), second.spki_der());
        assert_eq!(keys.all().len(), 1);
    }

    #[test]
    fn a_key_that_exists_is_kept_under_the_name_it_is_given() {
        let (keys, key) = (MemoryKeys::new(), Key::generate(KeyType::EcP256).unwrap());
        keys.keep("a", &key).unwrap();
        assert_eq!(keys.get("a").unwrap().spki_der(), key.spki_der());
        assert!(matches!(keys.keep("", &key), Err(KeyError::IdLength(0))));
    }

    #[test]
    fn an_empty_or_endless_name_is_refused() {
        let keys = MemoryKeys::new();
        assert!(matches!(keys.generate("", KeyType::EcP256), Err(KeyError::IdLength(0))));
        assert!(matches!(keys.generate(&"k".repeat(256), KeyType::EcP256), Err(KeyError::IdLength(256))));
        assert!(keys.generate(&"k".repeat(255), KeyType::EcP256).is_ok());
    }

    #[test]
    fn a_full_manager_replaces_keys_but_takes_no_new_name() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let keys: BTreeMap<String, Key> = (0..KEYS_MAX).map(|n| (n.to_string(), key.clone())).collect();
        assert!(matches!(check_room(&keys, "new"), Err(KeyError::Full)));
        assert!(check_room(&keys, "7").is_ok());
    }

    #[test]
    fn the_manager_prints_no_secret() {
        let keys = MemoryKeys::new();
        keys.generate("a", KeyType::EcP256).unwrap();
        assert!(format!("{keys:?}").contains("\"a\": Key"));
    }
}
