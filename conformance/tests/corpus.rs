//! The whole corpus: every recording passes, except those listed in `expected-failures.txt`, which all still fail.

use lvs_conformance::corpus;
use lvs_conformance::golden::Golden;
use lvs_conformance::replay::replay;

/// What is wrong with a recording, on one line.
fn fault(golden: &Golden) -> Option<String> {
    match replay(golden) {
        Ok(failures) => failures.first().map(|first| format!("step {}: {}", first.step, first.difference.summary)),
        Err(error) => Some(error),
    }
}

#[test]
fn the_director_behaves_as_recorded() {
    let listed = corpus::expected_failures().expect("the list of expected failures");
    let mut surprises = Vec::new();
    let mut seen = Vec::new();
    for file in corpus::files().expect("the recordings") {
        let golden = Golden::load(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        match (fault(&golden), listed.get(&golden.name)) {
            (Some(fault), None) => surprises.push(format!("{} fails: {fault}", golden.name)),
            (None, Some(reason)) => surprises.push(format!("{} passes, take it off the list ({reason})", golden.name)),
            _ => {}
        }
        seen.push(golden.name);
    }
    surprises.extend(listed.keys().filter(|name| !seen.contains(name)).map(|name| format!("{name} does not exist")));
    assert!(surprises.is_empty(), "{} surprises:\n{}", surprises.len(), surprises.join("\n"));
}

#[test]
fn explain_tells_what_handle_packet_does_at_every_recorded_step() {
    let mut broken = Vec::new();
    for file in corpus::files().expect("the recordings") {
        let golden = Golden::load(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let failures = replay(&golden).unwrap_or_default();
        for failure in failures.iter().filter(|failure| failure.is_broken_rule) {
            broken.push(format!("{} step {}: {}", golden.name, failure.step, failure.difference.summary));
        }
    }
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}
