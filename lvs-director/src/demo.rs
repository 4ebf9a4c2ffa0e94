//! `lvsd demo`.

pub mod load;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod report;
pub mod servers;
