//! Private keys by name: generated, kept in memory or on disk, and used to sign.
//!
//! A key never leaves as text, in a debug print or in an error. What is signed, and for how long a key is used, is
//! decided elsewhere (`spindle-ca`, the agent). Calls block; `DiskKeys` waits for the disk. Start at [`KeyManager`].

pub mod disk;
pub mod fingerprint;
mod jwk;
pub mod key;
pub mod manager;
pub mod pem;
pub mod request;

pub use disk::DiskKeys;
pub use fingerprint::{SpkiError, key_identifier, subject_key_id};
pub use key::{Key, KeyType};
pub use manager::{KeyError, KeyManager, MemoryKeys};
pub use request::certificate_request;
