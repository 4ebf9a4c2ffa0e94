//! Any bytes as a packet that leaves a tunnel, and as one that enters it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::decapsulate(data));
