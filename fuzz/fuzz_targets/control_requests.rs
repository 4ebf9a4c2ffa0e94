//! Any bytes as what a program asks at the control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz_control::requests(data));
