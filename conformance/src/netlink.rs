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

use std::collections::BTreeSet;
use std::path::Path;

use differences::Place;
use recording::Recording;

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

/// How one end stands against every recording.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// How many recordings there are.
    pub recordings: usize,
    /// How many of their steps have a conversation.
    pub steps: usize,
    /// How many of those differ on purpose.
    pub differ: usize,
    /// What differs and is not listed, and what is listed and does not differ.
    pub surprises: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { recordings, steps, differ, surprises } = self;
        let surprises = surprises.len();
        write!(f, "{steps} steps of {recordings} recordings, {differ} differ on purpose, {surprises} otherwise")
    }
}

/// Holds our answers against every recording.
///
/// # Errors
/// If the recordings, or the list of differences, cannot be read.
pub fn check_answers() -> Result<Report, String> {
    check(false, answers::replay)
}

/// Holds our requests, and what our client prints, against every recording.
///
/// # Errors
/// As [`check_answers`].
pub fn check_requests() -> Result<Report, String> {
    check(true, requests::compare)
}

fn check(is_client: bool, faults: fn(&Recording) -> Vec<Fault>) -> Result<Report, String> {
    let listed = differences::listed()?;
    let mut report = Report::default();
    let mut seen = BTreeSet::new();
    for recording in recording::all()? {
        report.recordings += 1;
        report.steps += recording.steps.iter().filter(|step| !step.exchanges.is_empty()).count();
        for fault in faults(&recording) {
            let place = Place { recording: recording.name.clone(), step: fault.step, is_client };
            if listed.contains_key(&place) {
                report.differ += 1;
            } else {
                report.surprises.push(format!("{} {fault}", recording.name));
            }
            seen.insert(place);
        }
    }
    let stale = listed.iter().filter(|(place, _)| place.is_client == is_client && !seen.contains(*place));
    report.surprises.extend(stale.map(|(place, reason)| format!("{place:?} is as recorded ({reason})")));
    Ok(report)
}

/// The folder with the recordings.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/netlink"))
}
