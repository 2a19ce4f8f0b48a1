//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use spindle_keys::{DiskKeys, KeyError, KeyManager};

/// A key file is read or refused, and not touched by that; keys that were read have one public key each, whatever follows.
pub(crate) fn key_file(input: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    std::fs::write(&path, input).unwrap();
    let read = DiskKeys::open(&path);
    assert_eq!(std::fs::read(&path).unwrap(), input);
    match read {
        Ok(keys) => {
            for (id, key) in keys.all() {
                assert_eq!(keys.get(&id).unwrap().spki_der(), key.spki_der());
            }
        }
        Err(KeyError::BadFile { why, .. }) => assert!(!why.is_empty()),
        Err(other) => panic!("{other}"),
    }
}
