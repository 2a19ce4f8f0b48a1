//! Feeds `entry_file_text` with whatever the fuzzer makes; the invariants are those of the random tests.
#![no_main]

#[path = "../../../crates/cli/tests/support/invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::entry_file_text(input));
