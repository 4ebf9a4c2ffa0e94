//! Plays a recording through the laboratory, step by step under the virtual clock, and compares every step.

use std::time::Duration;

use crate::compare::packets::Packets;
use crate::compare::{Difference, connections, texts};
use crate::exceptions;
use crate::golden::{Action, Emission, Golden, Step, Text};
use crate::lab::Lab;

/// A step at which the replay differs from the recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The step's number, from 0.
    pub step: usize,
    /// How it differs.
    pub difference: Difference,
    /// It may only be a matter of when statistics were published.
    concerns_statistics: bool,
}

/// Replays a recording. An empty list means that the director behaves as Linux did; the error says why the recording
/// could not be set up at all.
///
/// Linux publishes statistics every 2 s, and the recordings do not say when it last did. A recording passes if there is
/// one moment (to 1/8 s) from which publishing every 2 s explains all its texts.
pub fn replay(golden: &Golden) -> Result<Vec<Failure>, String> {
    let mut best = replay_at(golden, Duration::ZERO)?;
    for eighth in 1..16 {
        if !best.iter().any(|failure| failure.concerns_statistics) {
            break;
        }
        let other = replay_at(golden, Duration::from_millis(125 * eighth))?;
        if other.len() < best.len() {
            best = other;
        }
    }
    Ok(best)
}

fn replay_at(golden: &Golden, phase: Duration) -> Result<Vec<Failure>, String> {
    let mut lab = Lab::new(golden, phase)?;
    let mut packets = Packets::default();
    let mut failures = Vec::new();
    let mut elapsed = Duration::ZERO;
    for (index, step) in golden.steps.iter().enumerate() {
        let before = lab.advance(step.at.saturating_sub(elapsed));
        elapsed = elapsed.max(step.at);
        let mut differences: Vec<_> = packets.compare(&step.before, &before).into_iter().collect();
        let (out, printed) = perform(&mut lab, step, &mut elapsed);
        differences.extend(packets.compare(&step.out, &out));
        differences.extend(printed);
        differences.extend(lab.take_broken().into_iter().map(|rule| Difference::new("a rule to be kept", rule)));
        if !is_skipped(golden, index) {
            let concerns_statistics = concerns_statistics(&step.action);
            failures.extend(differences.into_iter().map(|difference| Failure {
                step: index,
                difference,
                concerns_statistics,
            }));
        }
    }
    Ok(failures)
}

/// Does what the step says: what came out, and how what was printed differs.
fn perform(lab: &mut Lab, step: &Step, elapsed: &mut Duration) -> (Vec<Emission>, Option<Difference>) {
    match &step.action {
        Action::Packet { from, bytes, mark, wait } => {
            let mut out = lab.packet(*from, bytes, *mark);
            out.extend(lab.advance(*wait));
            *elapsed += *wait;
            (out, None)
        }
        Action::Sleep(sleep) => {
            *elapsed += *sleep;
            (lab.advance(*sleep), None)
        }
        Action::Ipvsadm { arguments, stdin, status, stdout, stderr } => {
            let printed = lab.ipvsadm(arguments, stdin);
            let difference = (*status != printed.status)
                .then(|| Difference::new(format!("exit status {status}"), printed.status.to_string()))
                .or_else(|| texts::compare(stderr, &printed.stderr))
                .or_else(|| compare_output(arguments, stdout, &printed.stdout));
            (lab.advance(Duration::ZERO), difference)
        }
        Action::Connections(text) => (Vec::new(), connections::compare(text, &lab.connections())),
        Action::Read { path, text } => (Vec::new(), compare_file(path, text, lab.read(path))),
        Action::Sysctl(sysctls) => {
            let refused = lab.set_sysctls(sysctls).err();
            (lab.advance(Duration::ZERO), refused.map(|error| Difference::new("to be accepted", error)))
        }
        Action::Nothing => (Vec::new(), None),
    }
}

fn compare_output(arguments: &str, expected: &Text, got: &str) -> Option<Difference> {
    let _ = arguments;
    texts::compare(expected, got)
}

fn compare_file(path: &str, expected: &Text, got: Option<String>) -> Option<Difference> {
    match got {
        Some(got) => texts::compare(expected, &got),
        None => Some(Difference::new(path, "no such file")),
    }
}

fn concerns_statistics(action: &Action) -> bool {
    match action {
        Action::Ipvsadm { arguments, .. } => arguments.contains("--stats") || arguments.contains("--rate"),
        Action::Read { path, .. } => path.contains("ip_vs_stats"),
        _ => false,
    }
}

fn is_skipped(golden: &Golden, index: usize) -> bool {
    let step = &golden.steps[index];
    step.out.iter().chain(&step.before).any(|emission| emission.is_quirk)
        || golden.unstable.contains(&index)
        || exceptions::reason(&golden.name, index).is_some()
}
