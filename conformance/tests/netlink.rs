//! Every recorded conversation of ipvsadm and keepalived with the kernel, against `lvs-genl`: what differs is listed
//! with its reason in `netlink/answered-differently.txt`, and nothing else differs.

use std::collections::BTreeSet;

use lvs_conformance::netlink::differences::{self, Place};
use lvs_conformance::netlink::recording::{self, Recording};
use lvs_conformance::netlink::{Fault, answers, requests};

/// Holds the faults of every recording against the list.
fn check(is_client: bool, faults: fn(&Recording) -> Vec<Fault>) {
    let listed = differences::listed().expect("the list of differences");
    let recordings = recording::all().expect("the recordings");
    let (mut surprises, mut seen) = (Vec::new(), BTreeSet::new());
    let mut steps = 0;
    for recording in &recordings {
        steps += recording.steps.iter().filter(|step| !step.exchanges.is_empty()).count();
        for fault in faults(recording) {
            let place = Place { recording: recording.name.clone(), step: fault.step, is_client };
            if !listed.contains_key(&place) {
                surprises.push(format!("{} {fault}", recording.name));
            }
            seen.insert(place);
        }
    }
    let stale = listed.iter().filter(|(place, _)| place.is_client == is_client && !seen.contains(*place));
    surprises.extend(stale.map(|(place, reason)| format!("{place:?} is as recorded ({reason})")));
    println!("{steps} steps of {} recordings, {} differ on purpose", recordings.len(), seen.len());
    assert!(surprises.is_empty(), "{} surprises:\n{}", surprises.len(), surprises.join("\n"));
    assert!(recordings.len() >= 58, "only {} recordings", recordings.len());
}

#[test]
fn a_session_answers_as_the_kernel_did() {
    check(false, answers::replay);
}

#[test]
fn the_client_asks_and_prints_as_ipvsadm_did() {
    check(true, requests::compare);
}
