//! Any frames on the link of an Ethernet edge that sends, waits and answers meanwhile.
#![no_main]

#[path = "../../lvs-io/tests/hostile_link/mod.rs"]
mod hostile_link;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_link::play(data));
