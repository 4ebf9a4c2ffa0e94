//! Any packets over several queues of a device.
#![no_main]

#[path = "../../lvs-io/tests/hostile_steering/mod.rs"]
mod hostile_steering;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_steering::play(data));
