//! Any text as a configuration file: no panic, and what is wrong has a line of the text and a sentence in one line.
#![no_main]

use lvs_director::configuration::file::parse;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = parse(text) {
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
        assert!((1..=lines).contains(&error.line), "{error}");
        assert!(!error.complaint.is_empty() && !error.complaint.contains('\n'), "{error}");
    }
});
