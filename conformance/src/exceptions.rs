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

/// Bytes of a step's packets that may differ though the recorder did not say so: offset and length of each.
pub fn more_volatile(golden: &str, step: usize) -> &'static [(usize, usize)] {
    match (golden, step) {
        // The host's own ICMP error: Linux gives it an identification at random, and the header's checksum with it.
        ("x_both_ways3", 4) => &[(4, 2), (10, 2)],
        _ => &[],
    }
}

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
