//! Feeds `upstream_authority` with whatever the fuzzer makes; the invariants are those of the random tests.
#![no_main]

#[path = "../../../crates/ca/tests/support/invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::upstream_authority(input));
