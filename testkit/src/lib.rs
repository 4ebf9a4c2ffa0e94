//! Packet builder, generators and naive oracles for the tests of LVS in Rust.
