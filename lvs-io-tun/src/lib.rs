//! TUN devices for LVS in Rust: multi-queue, super-packets passed through unsplit.
