//! Recorded conversations of stock ipvsadm and keepalived with a Linux kernel's IPVS, held against `lvs-genl`: its
//! sessions answer what was asked with the bytes that were answered, its client asks what the programs asked, and what
//! it reads of the answers prints as the programs printed it.
//!
//! | module | what it decides |
//! |---|---|
//! | [`recording`] | what a recorded conversation says |
//! | [`answers`] | whether a session answers the same |
//! | [`requests`] | whether the client asks the same, and reads what was printed |
//! | [`differences`] | which steps are answered differently on purpose, and why |

pub mod answers;
pub mod differences;
pub mod recording;
pub mod requests;

use std::path::Path;

/// One step that did not go as recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its number, as in the recording's file: the head is line 1, step 0 line 2.
    pub step: usize,
    /// What was done.
    pub what: String,
    /// What is different.
    pub difference: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {} ({}): {}", self.step, self.what, self.difference)
    }
}

/// The folder with the recordings.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/netlink"))
}
