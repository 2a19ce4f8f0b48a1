//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;

use explore::explore;
use spindle_keys::{DiskKeys, KeyManager, KeyType};

#[test]
fn key_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let keys = DiskKeys::open(&path).unwrap();
    keys.generate("x509-CA-A", KeyType::EcP256).unwrap();
    keys.generate("x509-CA-B", KeyType::EcP384).unwrap();
    explore(&[std::fs::read(&path).unwrap(), br#"{"keys":null}"#.to_vec()], invariants::key_file);
}
