//! Batches of packets against the same ones by themselves.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::batch_against_single(data));
