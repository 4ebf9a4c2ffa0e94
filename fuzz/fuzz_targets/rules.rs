//! Any text of rules, as `ipvsadm -R` reads it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::rules(data));
