//! Any packets for the stand-in for a host.
#![no_main]

#[path = "../../lvs-io/tests/hostile_host/mod.rs"]
mod hostile_host;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_host::play(data));
