//! What ipvsadm and /proc print: word for word; as a set of lines where the two recordings had them in another order.

use super::Difference;
use crate::golden::Text;

/// Compares a text with the recorded one (either version of it, if it was recorded twice).
pub fn compare(expected: &Text, got: &str) -> Option<Difference> {
    let versions = std::iter::once(&expected.text).chain(&expected.other);
    let is_same = |version: &String| version == got || (expected.is_unordered && sorted(version) == sorted(got));
    if versions.into_iter().any(is_same) {
        return None;
    }
    let (theirs, ours): (Vec<_>, Vec<_>) = if expected.is_unordered {
        (sorted(&expected.text), sorted(got))
    } else {
        (expected.text.split_inclusive('\n').collect(), got.split_inclusive('\n').collect())
    };
    let first = (0..theirs.len().max(ours.len())).find(|&line| theirs.get(line) != ours.get(line)).unwrap_or(0);
    let line = |lines: &[&str]| lines.get(first).map_or("nothing".to_owned(), |line| format!("{line:?}"));
    let mut difference = Difference::new(line(&theirs), format!("{} in line {}", line(&ours), first + 1));
    difference.detail.extend(expected.text.lines().map(|line| format!("expected {line}")));
    difference.detail.extend(got.lines().map(|line| format!("got      {line}")));
    Some(difference)
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.split_inclusive('\n').collect();
    lines.sort_unstable();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_compared_to_the_last_blank() {
        let expected = Text::exact("a\nb \n");
        assert_eq!(compare(&expected, "a\nb \n"), None);
        let difference = compare(&expected, "a\nb\n").expect("reported");
        assert_eq!(difference.summary, "expected \"b \\n\" got \"b\\n\" in line 2");
        assert!(compare(&expected, "a\nb ").is_some());
        assert!(compare(&expected, "b \na\n").is_some());
    }

    #[test]
    fn unordered_lines_are_compared_as_a_set() {
        let expected = Text { is_unordered: true, ..Text::exact("a\nb\nb\n") };
        assert_eq!(compare(&expected, "b\na\nb\n"), None);
        assert!(compare(&expected, "a\na\nb\n").is_some());
    }

    #[test]
    fn either_recorded_version_will_do_but_no_third_one() {
        let expected = Text { other: Some("b\n".into()), ..Text::exact("a\n") };
        assert_eq!(compare(&expected, "b\n"), None);
        assert!(compare(&expected, "c\n").is_some());
    }
}
