//! Packets for human eyes: one line that says where a packet went and what it is, and a dump that shows where two
//! differ.

use lvs_testkit::describe;

use crate::golden::Emission;

/// `to client: 10.0.0.1.80 > 203.0.113.7.1025 TCP S … len=44`: where a packet went and what it is.
pub fn emission(emission: &Emission) -> String {
    format!("to {}: {}", emission.destination(), describe(&emission.bytes))
}

/// Several packets, or `nothing`.
pub fn emissions(list: &[Emission]) -> String {
    if list.is_empty() { "nothing".into() } else { list.iter().map(emission).collect::<Vec<_>>().join(" + ") }
}

/// The lines of both packets in which they differ, 16 bytes each, differing bytes marked.
pub fn difference(expected: &[u8], got: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for start in (0..expected.len().max(got.len())).step_by(16) {
        let (ours, theirs) = (row(got, start), row(expected, start));
        if ours == theirs {
            continue;
        }
        let hex = |row: &[u8]| row.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
        let mark = |index| if ours.get(index) == theirs.get(index) { "   " } else { "^^ " };
        lines.push(format!("{start:04x} expected {}", hex(theirs).trim_end()));
        lines.push(format!("{start:04x} got      {}", hex(ours).trim_end()));
        let marks: String = (0..ours.len().max(theirs.len())).map(mark).collect();
        lines.push(format!("              {}", marks.trim_end()));
    }
    lines
}

fn row(bytes: &[u8], start: usize) -> &[u8] {
    bytes.get(start..bytes.len().min(start + 16)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_with_its_place() {
        let mut other = [0u8; 40];
        other[17] = 0xff;
        assert_eq!(
            difference(&[0; 40], &other),
            [
                "0010 expected 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
                "0010 got      00 ff 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
                "                 ^^",
            ]
        );
        assert_eq!(difference(&[1, 2], &[1]), ["0000 expected 01 02", "0000 got      01", "                 ^^"]);
        assert!(difference(&[1; 100], &[1; 100]).is_empty());
    }
}
