//! Parts of datagrams in hostile orders.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::fragments(data));
