//! Any bytes as a capture, and a capture on any disk.
#![no_main]

#[path = "../../lvs-io/tests/hostile_capture/mod.rs"]
mod hostile_capture;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_capture::play(data));
