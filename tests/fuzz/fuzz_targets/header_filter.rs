//! Feeds `header_filter` with whatever the fuzzer makes; the invariants are those of the random tests.
#![no_main]

#[path = "../../../crates/transport/tests/support/invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::header_filter(input));
