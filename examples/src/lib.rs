//! Small programs a newcomer reads and runs: the files beside this folder. `cargo run -p lvs-examples --example NAME`.

/// The README's code, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
