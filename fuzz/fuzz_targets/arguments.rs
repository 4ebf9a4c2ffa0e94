//! Any arguments of `ipvsadm`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lvs_testkit::fuzz::arguments(data));
