//! The ipvsadm grammar and listings for LVS in Rust: text in, text out.
