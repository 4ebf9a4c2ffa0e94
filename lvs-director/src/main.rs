//! `lvsd`: the LVS in Rust daemon.

fn main() {}
