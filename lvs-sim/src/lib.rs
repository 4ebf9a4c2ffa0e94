//! A deterministic network simulator for LVS in Rust: virtual clock, faulty links, smoltcp TCP stacks.
