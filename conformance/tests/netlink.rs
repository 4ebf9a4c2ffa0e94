//! Every recorded conversation of ipvsadm and keepalived with the kernel, against `lvs-genl`: what differs is listed
//! with its reason in `netlink/answered-differently.txt`, and nothing else differs.

use lvs_conformance::netlink::{Report, check_answers, check_requests};

fn check(report: Result<Report, String>) {
    let report = report.expect("the recordings and the list");
    println!("{report}");
    assert!(report.recordings >= 58, "only {} recordings", report.recordings);
    assert!(report.surprises.is_empty(), "{report}:\n{}", report.surprises.join("\n"));
}

#[test]
fn a_session_answers_as_the_kernel_did() {
    check(check_answers());
}

#[test]
fn the_client_asks_and_prints_as_ipvsadm_did() {
    check(check_requests());
}
