//! Any bytes as a script of commands, packets and waiting.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::commands_and_packets(data));
