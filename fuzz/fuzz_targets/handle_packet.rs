//! Any bytes as one packet, through a director with services of every kind.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::handle_packet(data));
