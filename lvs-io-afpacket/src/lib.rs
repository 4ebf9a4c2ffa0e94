//! AF_PACKET sockets for LVS in Rust.
