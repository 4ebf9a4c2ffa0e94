//! `lvsadm`, as a library: `main.rs` only hands over the words and prints; tests call what is here.
//!
//! | module | what it is |
//! |---|---|
//! | [`ipvsadm`] | ipvsadm's own command lines, with its words and exit statuses |
//! | [`verbs`] | what ipvsadm never had: `drain`, `settings`, `ready`, `check`, `restore`, `exec` |
//! | [`json`] | the listings as JSON |
//! | [`said`] | what a command prints and how it ends |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod ipvsadm;
pub mod json;
pub mod said;
pub mod verbs;
