//! Feeds `relationship_message` with whatever the fuzzer makes; the invariants are those of the random tests.
#![no_main]

#[path = "../../../crates/proto/tests/support/invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::relationship_message(input));
