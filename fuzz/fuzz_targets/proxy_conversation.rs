//! A client that sends what it likes to a server that is told whose connection it is: PROXY protocol and TOA.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::conversation::play(data));
