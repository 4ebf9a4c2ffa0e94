//! Any rows of a director's snapshot.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::snapshot(data));
