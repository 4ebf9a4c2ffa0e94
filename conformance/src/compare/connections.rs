//! Tables of connections (`/proc/net/ip_vs_conn`, `…_conn_sync`): the same rows in any order; the clock column
//! `Expires` within what the recorder's clock allows.
//!
//! `Expires` counts whole seconds down to a nominal moment, so one second either way is all that two clocks can differ
//! by; with one exception. A persistence template that still has connections when its timer fires is armed again from
//! that moment, and Linux's timer wheel fires late: up to 16 s for timers of 100 s and more, up to 2 s for shorter
//! ones. So a template that was armed again may show that much more, for each time, but never less.

use std::collections::HashMap;
use std::time::Duration;

use super::Difference;
use crate::golden::Text;

/// Compares connection tables with recorded ones; remembers how often templates were armed again meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    templates: HashMap<Vec<String>, Template>,
}

/// The timer of a template row.
#[derive(Clone, Copy, Debug)]
struct Template {
    /// When it fires, in seconds on the replay's clock.
    deadline_s: i64,
    /// The longest time to live it has shown since it was armed.
    interval_s: i64,
    /// How late the recorded one may be by now.
    lateness_s: i64,
}

/// One row: everything but the clock column, and that column.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Row {
    before: Vec<String>,
    after: Vec<String>,
    expires_s: i64,
}

impl Connections {
    /// Compares a table that was listed `at` with the recorded one (either version of it, if it was recorded twice).
    pub fn compare(&mut self, at: Duration, expected: &Text, got: &str) -> Option<Difference> {
        let ours = rows(got);
        self.watch(i64::try_from(at.as_secs()).unwrap_or(i64::MAX), &ours);
        let versions = std::iter::once(&expected.text).chain(&expected.other);
        let is_same = |version: &String| {
            let theirs = rows(version);
            theirs.len() == ours.len() && theirs.iter().zip(&ours).all(|(expected, got)| self.is_close(expected, got))
        };
        if versions.into_iter().any(is_same) {
            return None;
        }
        let theirs = rows(&expected.text);
        let missing: Vec<_> = theirs.iter().filter(|row| !ours.iter().any(|got| self.is_close(row, got))).collect();
        let additional: Vec<_> = ours.iter().filter(|row| !theirs.iter().any(|it| self.is_close(it, row))).collect();
        let mut difference = Difference::new(
            format!("{} connections", theirs.len()),
            format!("{}, {} of them as expected", ours.len(), ours.len() - additional.len()),
        );
        difference.detail.extend(missing.iter().map(|row| format!("expected {}", row.text())));
        difference.detail.extend(additional.iter().map(|row| format!("got      {}", row.text())));
        Some(difference)
    }

    /// Follows the timers of template rows from listing to listing.
    fn watch(&mut self, now_s: i64, ours: &[Row]) {
        let mut templates = HashMap::new();
        for row in ours.iter().filter(|row| row.is_template()) {
            let deadline_s = now_s.saturating_add(row.expires_s);
            let armed = Template { deadline_s, interval_s: row.expires_s, lateness_s: 0 };
            let template = match self.templates.get(row.identity()) {
                Some(known) if known.deadline_s <= now_s => known.fired(now_s, row.expires_s),
                Some(known) if deadline_s <= known.deadline_s + SLACK_S => Template { deadline_s, ..*known },
                _ => armed,
            };
            templates.insert(row.identity().to_vec(), template);
        }
        self.templates = templates;
    }

    fn is_close(&self, expected: &Row, got: &Row) -> bool {
        let lateness_s = self.templates.get(got.identity()).map_or(0, |template| template.lateness_s);
        let more_s = expected.expires_s - got.expires_s;
        expected.before == got.before
            && expected.after == got.after
            && (-SLACK_S..=SLACK_S + lateness_s).contains(&more_s)
    }
}

impl Template {
    /// The same template after its deadline has passed, once or several times.
    fn fired(&self, now_s: i64, expires_s: i64) -> Self {
        let first_s = if self.interval_s >= LONG_TIMER_S { LONG_LATENESS_S } else { SHORT_LATENESS_S };
        let more_times = (now_s - self.deadline_s) / ARMED_AGAIN_S;
        Self {
            deadline_s: now_s.saturating_add(expires_s),
            interval_s: ARMED_AGAIN_S,
            lateness_s: self.lateness_s + first_s + more_times * SHORT_LATENESS_S,
        }
    }
}

/// The rows below the heading, sorted. The heading says which column is the clock.
fn rows(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let clock = heading.split_whitespace().position(|word| word == "Expires").unwrap_or(usize::MAX);
    let mut rows: Vec<Row> = lines.filter(|line| !line.trim().is_empty()).map(|line| Row::parse(line, clock)).collect();
    rows.sort();
    rows
}

impl Row {
    fn parse(line: &str, clock: usize) -> Self {
        let mut words = line.split_whitespace().map(String::from);
        let before: Vec<_> = words.by_ref().take(clock).collect();
        let expires = words.next().unwrap_or_default();
        // A row whose clock column is no number can only equal one with the same text.
        let (expires_s, odd) = expires.parse().map_or((0, Some(expires)), |seconds| (seconds, None));
        Self { before, after: odd.into_iter().chain(words).collect(), expires_s }
    }

    /// Protocol, client, virtual and real endpoint.
    fn identity(&self) -> &[String] {
        &self.before[..self.before.len().min(7)]
    }

    /// Client port 0.
    fn is_template(&self) -> bool {
        self.before.get(2).is_some_and(|port| port == "0000")
    }

    fn text(&self) -> String {
        let words = self.before.iter().cloned().chain([self.expires_s.to_string()]).chain(self.after.iter().cloned());
        words.collect::<Vec<_>>().join(" ")
    }
}

/// How far `Expires` may be off: whole seconds, truncated, of two clocks.
const SLACK_S: i64 = 1;
/// Lateness of Linux's timer wheel (1/8 of the range the interval falls in, at 250 Hz: 16.4 s up to 1049 s, 2 s up to
/// 131 s).
const LONG_LATENESS_S: i64 = 16;
const SHORT_LATENESS_S: i64 = 2;
/// From this interval on a timer is a long one.
const LONG_TIMER_S: i64 = 100;
/// What a template with connections is armed again for.
const ARMED_AGAIN_S: i64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData";
    const ROW: &str = "UDP AC142162 E8D5 0A85A215 2703 0A01A402 B597 UDP              29";

    fn table(rows: &[&str]) -> String {
        std::iter::once(HEADING).chain(rows.iter().copied()).collect::<Vec<_>>().join("\n")
    }

    fn check(expected: &[&str], got: &[&str]) -> Option<Difference> {
        Connections::default().compare(Duration::ZERO, &Text::exact(table(expected)), &table(got))
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
    fn a_template_that_was_armed_again_may_be_late_but_not_early() {
        let template = |expires_s: u32| format!("TCP AC142162 0000 0A85A215 2703 0A01A402 B597 ASSURED {expires_s}");
        // What is listed at 300 s, when our template was armed again at 240 s for 60 s.
        let check = |first_s: u32, expected_s: u32| {
            let mut connections = Connections::default();
            let first = table(&[&template(first_s)]);
            assert_eq!(connections.compare(Duration::ZERO, &Text::exact(first.clone()), &first), None);
            let expected = Text::exact(table(&[&template(expected_s)]));
            connections.compare(Duration::from_secs(250), &expected, &table(&[&template(50)])).is_none()
        };
        assert!(check(240, 50) && check(240, 49) && check(240, 67));
        assert!(!check(240, 68) && !check(240, 48));
        // A template of 60 s that was armed again for the fourth time.
        assert!(check(60, 59) && !check(60, 60));
        // One that is not due yet is not late.
        assert!(!check(300, 52));
    }

    #[test]
    fn connections_that_are_no_templates_are_never_late() {
        assert!(check(&[&ROW.replace(" 29", "229")], &[&ROW.replace(" 29", "227")]).is_some());
    }

    #[test]
    fn the_heading_says_which_column_is_the_clock() {
        let table = |origin: &str, expires_s: u32| {
            format!(
                "Pro FromIP FPrt ToIP TPrt DestIP DPrt State Origin Expires\n\
                 UDP AC142162 E8D5 0A85A215 2703 0A01A402 B597 UDP {origin} {expires_s}\n"
            )
        };
        let check =
            |got: &str| Connections::default().compare(Duration::ZERO, &Text::exact(table("LOCAL", 29)), got).is_none();
        assert!(check(&table("LOCAL", 30)));
        assert!(!check(&table("SYNC", 29)) && !check(&table("LOCAL", 31)));
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
        let is_same = |got: &str| Connections::default().compare(Duration::ZERO, &text, &table(&[got])).is_none();
        assert!(is_same(ROW) && is_same(&slow));
        assert!(!is_same(&ROW.replace("29", "27")) && !is_same(&slow.replace("UDP  ", "NONE ")));
    }
}
