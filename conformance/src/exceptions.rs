//! Steps that are not compared, each by name and with its reason.

use std::ops::RangeInclusive;

/// Why this step is not compared, if it is not.
pub fn reason(golden: &str, step: usize) -> Option<&'static str> {
    let matches = |exception: &&Exception| exception.golden == golden && exception.steps.contains(&step);
    EXCEPTIONS.iter().find(matches).map(|exception| exception.reason)
}

struct Exception {
    golden: &'static str,
    steps: RangeInclusive<usize>,
    reason: &'static str,
}

const WALL_CLOCK: &str = "the packet holds the time of day of the recording (timestamp option or timestamp reply)";

const EXCEPTIONS: &[Exception] = &[
    Exception { golden: "nat_ipopts", steps: 8..=11, reason: WALL_CLOCK },
    Exception { golden: "nat_icmp_echo", steps: 6..=6, reason: WALL_CLOCK },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_steps_are_excepted() {
        assert_eq!(reason("nat_ipopts", 8), Some(WALL_CLOCK));
        assert_eq!(reason("nat_ipopts", 12), None);
        assert_eq!(reason("nat_tcp", 8), None);
    }
}
