//! A runner that never fails proves nothing: a difference of each kind, planted in a recording that passes, is reported
//! at its step.

use std::path::Path;

use lvs_conformance::golden::{Action, Emission, Golden};
use lvs_conformance::replay::replay;

fn load(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name).with_extension("json");
    Golden::load(&path).expect("a recording of the corpus")
}

/// Plants something in a step that passes and checks that this step is the first one to be reported.
fn check(name: &str, step: usize, plant: impl FnOnce(&mut Golden)) {
    let mut golden = load(name);
    assert_eq!(replay(&golden).expect("it can be replayed"), [], "{name} passes as it is");
    plant(&mut golden);
    let failures = replay(&golden).expect("it can be replayed");
    assert_eq!(
        failures.first().map(|failure| failure.step),
        Some(step),
        "{name} with a planted difference: {failures:?}"
    );
}

/// The first step that emits something, and where it starts to be interesting.
fn first_emitting(golden: &Golden) -> usize {
    golden.steps.iter().position(|step| !step.out.is_empty()).expect("it emits something")
}

#[test]
fn a_changed_byte_at_any_place_is_reported() {
    let golden = load("nat_tcp");
    let step = first_emitting(&golden);
    for offset in 0..golden.steps[step].out[0].bytes.len() {
        check("nat_tcp", step, |golden| golden.steps[step].out[0].bytes[offset] ^= 1);
    }
}

#[test]
fn another_server_is_reported() {
    let step = first_emitting(&load("nat_tcp"));
    check("nat_tcp", step, |golden| golden.steps[step].out[0].server = Some(0));
}

#[test]
fn a_missing_and_an_additional_packet_are_reported() {
    check("nat_tcp", 5, |golden| golden.steps[5].out.clear());
    check("nat_tcp", 5, |golden| {
        let twice = golden.steps[5].out[0].clone();
        golden.steps[5].out.push(twice);
    });
    check("nat_tcp", 5, |golden| golden.steps[5].before.push(Emission::new(None, vec![0x45; 20])));
}

#[test]
fn a_changed_fragment_is_reported_where_its_datagram_completes() {
    let golden = load("nat_frag");
    let step = golden.steps.iter().position(|step| step.out.len() > 1).expect("a datagram in fragments");
    for fragment in 0..golden.steps[step].out.len() {
        check("nat_frag", step, |golden| *golden.steps[step].out[fragment].bytes.last_mut().expect("bytes") ^= 1);
    }
}

#[test]
fn a_changed_listing_is_reported() {
    let golden = load("nat_tcp");
    let step = golden.steps.iter().position(|step| matches!(step.action, Action::Ipvsadm { .. })).expect("a listing");
    let plant = |change: fn(&mut Action)| check("nat_tcp", step, |golden| change(&mut golden.steps[step].action));
    plant(|action| {
        let Action::Ipvsadm { stdout, .. } = action else { panic!("ipvsadm") };
        stdout.text = stdout.text.replacen("rr", "wrr", 1);
    });
    plant(|action| {
        let Action::Ipvsadm { stderr, .. } = action else { panic!("ipvsadm") };
        stderr.text.push('x');
    });
    plant(|action| {
        let Action::Ipvsadm { status, .. } = action else { panic!("ipvsadm") };
        *status += 1;
    });
}

#[test]
fn a_changed_connection_row_is_reported() {
    let golden = load("nat_frag");
    let step = golden.steps.iter().position(|step| matches!(step.action, Action::Connections(_))).expect("a table");
    let plant = |from: &'static str, to: &'static str| {
        check("nat_frag", step, |golden| {
            let Action::Connections(text) = &mut golden.steps[step].action else { panic!("connections") };
            assert!(text.text.contains(from), "{from} in {}", text.text);
            text.text = text.text.replacen(from, to, 1);
        });
    };
    plant("229", "232");
    plant("B597 UDP", "B597 TCP");
    plant("UDP AC142162", "UDP AC142163");
}

#[test]
fn counters_that_no_moment_of_publishing_explains_are_reported() {
    let golden = load("stats_counters");
    let is_stats = |action: &Action| matches!(action, Action::Ipvsadm { arguments, .. } if arguments == "-Ln --stats");
    let step = golden.steps.iter().position(|step| is_stats(&step.action)).expect("counters");
    check("stats_counters", step, |golden| {
        let Action::Ipvsadm { stdout, .. } = &mut golden.steps[step].action else { panic!("ipvsadm") };
        stdout.text = stdout.text.replacen("1812", "1813", 1);
    });
}

#[test]
fn volatile_bytes_and_skipped_steps_are_not_compared() {
    let mut golden = load("nat_tcp");
    golden.steps[5].out[0].volatile = vec![(30, 1)];
    golden.steps[5].out[0].bytes[30] ^= 1;
    golden.steps[7].out[0].bytes[30] ^= 1;
    golden.steps[7].out[0].is_quirk = true;
    golden.steps[9].out[0].bytes[30] ^= 1;
    golden.unstable = vec![9];
    assert_eq!(replay(&golden).expect("it can be replayed"), []);
}
