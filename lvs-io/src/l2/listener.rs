//! Tells switches which groups this station must hear: the solicited-node groups of the IPv6 addresses it answers for.
//! A switch with MLD snooping (RFC 4541) brings neighbour solicitations nowhere else. Says so twice when that changes,
//! and when asked, after a delay of its own; to queriers of version 1 in their words.
//! RFC 3810 §6 and §8.2.1, RFC 2710 §4.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

use lvs_core::rng::Rng;
use lvs_core::{Instant, Seed};

use super::address::MacAddress;
use super::message::GroupQuery;
use super::mld::{RECORDS_MAX, Record, Report};

/// RFC 3810 §9.1: how often a change is told.
const ROBUSTNESS: u8 = 2;
/// RFC 3810 §9.11: Unsolicited Report Interval.
const CHANGE_AGAIN_WITHIN: Duration = Duration::from_secs(1);
/// RFC 3810 §9.12: Robustness Variable × Query Interval + Query Response Interval.
const VERSION_1_FOR: Duration = Duration::from_secs(260);

#[derive(Debug)]
pub(super) struct Listener {
    /// In order of their addresses, each once; those left stay until that has been told.
    groups: Vec<Group>,
    reports: VecDeque<Report>,
    version_1_until: Option<Instant>,
    rng: Rng,
}

#[derive(Debug)]
struct Group {
    address: Ipv6Addr,
    is_heard: bool,
    /// How often it is still to be told that this has changed, and when next.
    changes: u8,
    change_due: Instant,
    answer_due: Option<Instant>,
}

impl Listener {
    /// Delays differ from station to station, and are the same each time.
    pub(super) fn new(mac: MacAddress) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        let seed = Seed::new(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        Self { groups: Vec::new(), reports: VecDeque::new(), version_1_until: None, rng: Rng::new(seed) }
    }

    /// From now on hears these groups and no others. What changes is told at the next timeout, which is at once.
    pub(super) fn hear(&mut self, wanted: impl Iterator<Item = Ipv6Addr> + Clone) {
        for group in &mut self.groups {
            let is_wanted = wanted.clone().any(|address| address == group.address);
            if group.is_heard != is_wanted {
                group.is_heard = is_wanted;
                group.tell_change();
            }
        }
        for address in wanted {
            if let Err(at) = self.groups.binary_search_by_key(&address, |group| group.address) {
                let mut group =
                    Group { address, is_heard: true, changes: 0, change_due: Instant::ZERO, answer_due: None };
                group.tell_change();
                self.groups.insert(at, group);
            }
        }
    }

    /// Tells everything anew: the station may be at another port of the switch.
    pub(super) fn announce(&mut self) {
        self.groups.iter_mut().for_each(Group::tell_change);
    }

    pub(super) fn handle_query(&mut self, now: Instant, query: &GroupQuery) {
        if query.is_version_1 {
            self.version_1_until = Some(now + VERSION_1_FOR);
        }
        let mut due = now + self.delay(query.answer_within);
        for index in 0..self.groups.len() {
            if query.is_version_1 {
                // No report tells of two groups: they need not come all at once.
                due = now + self.delay(query.answer_within);
            }
            let group = &mut self.groups[index];
            if group.is_heard && query.group.is_none_or(|asked| asked == group.address) {
                group.answer_due = Some(group.answer_due.map_or(due, |earlier| earlier.min(due)));
            }
        }
    }

    fn delay(&mut self, longest: Duration) -> Duration {
        let longest = longest.as_nanos() as u64;
        Duration::from_nanos(self.rng.next_u64() % longest.saturating_add(1).max(1))
    }

    /// The next report.
    pub(super) fn poll(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.reports.is_empty()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let changes = self.groups.iter().filter(|group| group.changes > 0).map(|group| group.change_due);
        changes.chain(self.groups.iter().filter_map(|group| group.answer_due)).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        // Nobody has fetched the last ones; they say nearly the same.
        if self.has_output() {
            return;
        }
        let is_version_1 = self.version_1_until.is_some_and(|until| now < until);
        let again = self.delay(CHANGE_AGAIN_WITHIN);
        let mut records = Vec::new();
        for group in &mut self.groups {
            if group.changes > 0 && group.change_due <= now {
                group.changes -= 1;
                group.change_due = now + again;
                records.push(if group.is_heard { Record::Joins(group.address) } else { Record::Leaves(group.address) });
            }
            if group.answer_due.is_some_and(|due| due <= now) {
                group.answer_due = None;
                records.extend(group.is_heard.then_some(Record::Listens(group.address)));
            }
        }
        self.groups.retain(|group| group.is_heard || group.changes > 0);
        if is_version_1 {
            self.reports.extend(records.into_iter().map(Report::Alone));
        } else {
            self.reports.extend(records.chunks(RECORDS_MAX).map(|records| Report::Together(records.to_vec())));
        }
    }
}

impl Group {
    fn tell_change(&mut self) {
        self.changes = ROBUSTNESS;
        self.change_due = Instant::ZERO;
    }
}
