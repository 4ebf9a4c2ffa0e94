//! Plays a recording through the laboratory, step by step under the virtual clock, and compares every step.

use std::time::Duration;

use crate::compare::connections::Connections;
use crate::compare::packets::Packets;
use crate::compare::{Difference, texts};
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
    /// The director broke a rule of its own (see [`Lab::take_broken`]), whatever the recording says.
    pub is_broken_rule: bool,
    /// It may only be a matter of when statistics were published.
    concerns_statistics: bool,
}

/// Replays a recording. An empty list means that the director behaves as Linux did; the error says why the recording
/// could not be set up at all.
///
/// Linux publishes statistics every 2 s, and a recording does not say when it last did. It passes if there is one
/// moment (to 1/8 s) from which publishing every 2 s explains all its texts together; the setup is done so long before.
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

fn replay_at(golden: &Golden, lead: Duration) -> Result<Vec<Failure>, String> {
    let mut replay = Replay {
        lab: Lab::new(golden, lead)?,
        elapsed: Duration::ZERO,
        packets: Packets::default(),
        connections: Connections::default(),
    };
    let mut failures = Vec::new();
    for (index, step) in golden.steps.iter().enumerate() {
        let mut step = step.clone();
        for emission in &mut step.out {
            emission.volatile.extend_from_slice(exceptions::more_volatile(&golden.name, index));
        }
        let differences = replay.step(&step);
        let concerns_statistics = concerns_statistics(&step.action);
        let failure = |difference, is_broken_rule| Failure {
            step: index,
            difference,
            is_broken_rule,
            concerns_statistics: concerns_statistics && !is_broken_rule,
        };
        if !is_skipped(golden, index) {
            failures.extend(differences.into_iter().map(|difference| failure(difference, false)));
        }
        let broken = replay.lab.take_broken().into_iter().map(|rule| Difference::new("a rule to be kept", rule));
        failures.extend(broken.map(|difference| failure(difference, true)));
    }
    Ok(failures)
}

/// A replay on its way.
struct Replay {
    lab: Lab,
    elapsed: Duration,
    packets: Packets,
    connections: Connections,
}

impl Replay {
    /// Waits for the step's time, does what it says, and tells how the outcome differs.
    fn step(&mut self, step: &Step) -> Vec<Difference> {
        let before = self.wait(step.at.saturating_sub(self.elapsed));
        let mut differences: Vec<_> = self.packets.compare(&step.before, &before).into_iter().collect();
        let (out, printed) = self.perform(&step.action);
        differences.extend(self.packets.compare(&step.out, &out));
        differences.extend(printed);
        differences
    }

    /// What came out, and how what was printed differs.
    fn perform(&mut self, action: &Action) -> (Vec<Emission>, Option<Difference>) {
        match action {
            Action::Packet { from, bytes, mark, wait } => {
                let mut out = self.lab.packet(*from, bytes, *mark);
                out.extend(self.wait(*wait));
                (out, None)
            }
            Action::Sleep(sleep) => (self.wait(*sleep), None),
            Action::Ipvsadm { arguments, stdin, status, stdout, stderr } => {
                let printed = self.lab.ipvsadm(arguments, stdin);
                let difference = (*status != printed.status)
                    .then(|| Difference::new(format!("exit status {status}"), printed.status.to_string()))
                    .or_else(|| texts::compare(stderr, &printed.stderr))
                    .or_else(|| texts::compare(stdout, &printed.stdout));
                (self.wait(Duration::ZERO), difference)
            }
            Action::Connections(text) => {
                let listed = self.lab.connections();
                (Vec::new(), self.connections.compare(self.elapsed, text, &listed))
            }
            Action::Read { path, text } => (Vec::new(), self.compare_file(path, text)),
            Action::Sysctl(sysctls) => {
                let refused = self.lab.set_sysctls(sysctls).err();
                (self.wait(Duration::ZERO), refused.map(|error| Difference::new("to be accepted", error)))
            }
            Action::Nothing => (Vec::new(), None),
        }
    }

    fn wait(&mut self, time: Duration) -> Vec<Emission> {
        self.elapsed += time;
        self.lab.advance(time)
    }

    fn compare_file(&mut self, path: &str, expected: &Text) -> Option<Difference> {
        match self.lab.read(path) {
            None => Some(Difference::new(path, "no such file")),
            Some(got) if path.starts_with("/proc/net/ip_vs_conn") => {
                self.connections.compare(self.elapsed, expected, &got)
            }
            Some(got) => texts::compare(expected, &got),
        }
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
