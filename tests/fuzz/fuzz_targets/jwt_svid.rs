//! Feeds `jwt_svid` with whatever the fuzzer makes; the invariants are those of the random tests.
#![no_main]

#[path = "../../../crates/spiffe-core/tests/support/invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::jwt_svid(input));
