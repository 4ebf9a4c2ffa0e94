//! The connection table (`/proc/net/ip_vs_conn`): the same rows in any order; `Expires` within the recorder's slack.
//! Columns: `Pro FromIP FPrt ToIP TPrt DestIP DPrt State Expires PEName PEData`.

use super::Difference;
use crate::golden::Text;

/// How far `Expires` may be off, in seconds: whole seconds, truncated, of two clocks.
const SLACK_S: i64 = 1;
/// The same for long timers: Linux's timer wheel fires up to 16 s late beyond 131 s, and what such a timer re-arms is late too.
const LONG_SLACK_S: i64 = 17;
/// From this `Expires` on a timer is a long one.
const LONG_TIMER_S: i64 = 100;

/// One row: everything but the clock column, and that column.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Row {
    before: Vec<String>,
    after: Vec<String>,
    expires_s: i64,
}

/// Compares a listed connection table with the recorded one (either version of it, if it was recorded twice).
pub fn compare(expected: &Text, got: &str) -> Option<Difference> {
    let versions = std::iter::once(&expected.text).chain(&expected.other);
    if versions.into_iter().any(|version| is_same(version, got)) {
        return None;
    }
    let (theirs, ours) = (rows(&expected.text), rows(got));
    let missing: Vec<_> = theirs.iter().filter(|row| !ours.iter().any(|other| is_close(row, other))).collect();
    let additional: Vec<_> = ours.iter().filter(|row| !theirs.iter().any(|other| is_close(other, row))).collect();
    let mut difference = Difference::new(
        format!("{} connections", theirs.len()),
        format!("{}, {} of them as expected", ours.len(), ours.len() - additional.len()),
    );
    difference.detail.extend(missing.iter().map(|row| format!("expected {}", row.text())));
    difference.detail.extend(additional.iter().map(|row| format!("got      {}", row.text())));
    Some(difference)
}

fn is_same(expected: &str, got: &str) -> bool {
    let (theirs, ours) = (rows(expected), rows(got));
    theirs.len() == ours.len() && theirs.iter().zip(&ours).all(|(expected, got)| is_close(expected, got))
}

fn is_close(expected: &Row, got: &Row) -> bool {
    let slack_s = if expected.expires_s >= LONG_TIMER_S { LONG_SLACK_S } else { SLACK_S };
    let distance_s = (expected.expires_s - got.expires_s).abs();
    expected.before == got.before && expected.after == got.after && distance_s <= slack_s
}

/// The rows below the heading, sorted.
fn rows(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = text.lines().skip(1).filter(|line| !line.trim().is_empty()).map(Row::parse).collect();
    rows.sort();
    rows
}

impl Row {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace().map(String::from);
        let before: Vec<_> = words.by_ref().take(8).collect();
        let expires = words.next().unwrap_or_default();
        // A row whose clock column is no number can only equal one with the same text.
        let (expires_s, odd) = expires.parse().map_or((0, Some(expires)), |seconds| (seconds, None));
        Self { before, after: odd.into_iter().chain(words).collect(), expires_s }
    }

    fn text(&self) -> String {
        let words = self.before.iter().cloned().chain([self.expires_s.to_string()]).chain(self.after.iter().cloned());
        words.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData";
    const ROW: &str = "UDP AC142162 E8D5 0A85A215 2703 0A01A402 B597 UDP              29";

    fn table(rows: &[&str]) -> String {
        std::iter::once(HEADING).chain(rows.iter().copied()).collect::<Vec<_>>().join("\n")
    }

    fn check(expected: &[&str], got: &[&str]) -> Option<Difference> {
        compare(&Text::exact(table(expected)), &table(got))
    }

    #[test]
    fn rows_may_come_in_any_order() {
        let other = ROW.replace("E8D5", "0001");
        assert_eq!(check(&[ROW, &other], &[&other, ROW]), None);
    }

    #[test]
    fn expires_may_be_off_by_a_second_and_no_more() {
        assert_eq!(check(&[ROW], &[&ROW.replace("29", "30")]), None);
        assert_eq!(check(&[ROW], &[&ROW.replace("29", "28")]), None);
        assert!(check(&[ROW], &[&ROW.replace("29", "31")]).is_some());
    }

    #[test]
    fn long_timers_may_be_off_by_the_timer_wheels_lateness() {
        let long = ROW.replace(" 29", "229");
        assert_eq!(check(&[&long], &[&ROW.replace(" 29", "246")]), None);
        assert!(check(&[&long], &[&ROW.replace(" 29", "247")]).is_some());
    }

    #[test]
    fn another_state_address_or_engine_is_reported() {
        for (from, to) in [("UDP     ", "NONE    "), ("0A01A402", "0A01A403"), ("29", "29 sip 1234")] {
            let difference =
                check(&[ROW], &[&ROW.replacen(from, to, 1)]).unwrap_or_else(|| panic!("{from} is reported"));
            assert_eq!(difference.detail.len(), 2);
        }
    }

    #[test]
    fn missing_additional_and_repeated_rows_are_reported() {
        assert!(check(&[ROW], &[]).is_some());
        assert!(check(&[], &[ROW]).is_some());
        assert!(check(&[ROW], &[ROW, ROW]).is_some());
    }

    #[test]
    fn either_recorded_version_will_do_but_no_third_one() {
        let slow = ROW.replace("29", "25");
        let text = Text { other: Some(table(&[&slow])), ..Text::exact(table(&[ROW])) };
        assert_eq!(compare(&text, &table(&[ROW])), None);
        assert_eq!(compare(&text, &table(&[&slow])), None);
        assert!(compare(&text, &table(&[&ROW.replace("29", "27")])).is_some());
        assert!(compare(&text, &table(&[&slow.replace("UDP  ", "NONE ")])).is_some());
    }
}
