//! Test only: a one-line language for what happens to a service and which servers its scheduler must choose.
//! `+A:3` adds a server of weight 3 (at the head, as IPVS does), `+A:3(u2)` with upper threshold 2, `A:=0` edits its
//! weight, `-A` deletes it, `[CBA-]` is four consecutive choices, `-` for none.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use super::{Change, LoadFormula, Request, Scheduler, SchedulerInit};
use crate::flow::{AddressFamily, Endpoint, Protocol};
use crate::rng::Seed;
use crate::service::{RealServer, SchedulerFlags, ServerId};
use crate::settings::Settings;
use crate::time::Instant;

/// What a scheduled connection does to its server's counters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Becomes active and stays.
    Tcp,
    /// Stays inactive.
    Udp,
}

/// What schedulers under test are told, unless the test is about it.
pub const fn init() -> SchedulerInit {
    SchedulerInit { seed: Seed::new(7), load_formula: LoadFormula::ActiveAndTotal, family: AddressFamily::Ipv4 }
}

/// A service under test: its servers in list order, their letters and thresholds, and who asks.
pub struct Stage<'a> {
    pub scheduler: &'a mut dyn Scheduler,
    pub traffic: Traffic,
    pub servers: Vec<RealServer>,
    pub now: Instant,
    pub client: Endpoint,
    pub destination: Endpoint,
    pub flags: SchedulerFlags,
    pub settings: Settings,
    thresholds: Vec<(ServerId, u32)>,
}

/// Plays `script` from an empty service; every choice must be as written.
pub fn check(scheduler: &mut dyn Scheduler, traffic: Traffic, script: &str) {
    Stage::new(scheduler, traffic).play(script);
}

impl<'a> Stage<'a> {
    pub fn new(scheduler: &'a mut dyn Scheduler, traffic: Traffic) -> Self {
        scheduler.servers_changed(Change::Reset, &[]);
        Self {
            scheduler,
            traffic,
            servers: Vec::new(),
            now: Instant::ZERO,
            client: Endpoint::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000),
            destination: Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), 80),
            flags: SchedulerFlags::default(),
            settings: Settings::default(),
            thresholds: Vec::new(),
        }
    }

    pub fn play(&mut self, script: &str) {
        for word in script.split_whitespace() {
            let mut letters = word.chars();
            match letters.next() {
                Some('+') => self.add(letters.as_str()),
                Some('-') => self.remove(word.as_bytes()[1]),
                Some('[') => {
                    let expected = letters.as_str().trim_end_matches(']');
                    let chosen: String = expected.chars().map(|_| self.choose()).collect();
                    assert_eq!(chosen, expected, "in {script}");
                }
                Some(letter) => self.edit(letter, word.split_once(":=").expect("A:=w").1.parse().unwrap()),
                None => {}
            }
        }
    }

    /// One choice, as a letter, and its connection counted.
    pub fn choose(&mut self) -> char {
        let request = Request {
            now: self.now,
            protocol: Protocol::Tcp,
            client: self.client,
            destination: self.destination,
            flags: self.flags,
            settings: &self.settings,
        };
        let copied = self.scheduler.boxed_clone().schedule(&request, &self.servers);
        let choice = self.scheduler.schedule(&request, &self.servers);
        assert_eq!(copied, choice, "a copy chooses as its original");
        let Some(index) = choice else { return '-' };
        let (active, total) = (u32::from(self.traffic == Traffic::Tcp), 1);
        self.count(index, active, total);
        char::from(self.servers[index].id.0 as u8)
    }

    /// Adds connections to a server, as the director does: threshold first, then the scheduler is told.
    pub fn count(&mut self, index: usize, active: u32, total: u32) {
        let server = &mut self.servers[index];
        server.active_connections += active;
        server.total_connections += total;
        let threshold = self.thresholds.iter().find(|(id, _)| *id == server.id).map_or(0, |(_, upper)| *upper);
        server.is_overloaded |= threshold > 0 && server.total_connections >= threshold;
        self.scheduler.load_changed(index, &self.servers);
    }

    /// Where the server of this letter stands in the list.
    pub fn index(&self, letter: char) -> usize {
        self.servers.iter().position(|server| server.id.0 == letter as u32).expect("a server of this letter")
    }

    fn add(&mut self, word: &str) {
        let letter = word.as_bytes()[0];
        let (weight, threshold) = match word[2..].split_once("(u") {
            Some((weight, threshold)) => (weight, threshold.trim_end_matches(')').parse().unwrap()),
            None => (&word[2..], 0),
        };
        let id = ServerId(u32::from(letter));
        // A is 10.0.0.2, B is 10.0.0.3, …
        let key = Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, letter - b'A' + 2)), 80);
        self.servers.insert(0, RealServer::new(id, key, weight.parse().unwrap()));
        self.thresholds.push((id, threshold));
        self.scheduler.servers_changed(Change::Added { index: 0 }, &self.servers);
    }

    fn remove(&mut self, letter: u8) {
        let index = self.index(char::from(letter));
        let id = self.servers.remove(index).id;
        self.scheduler.servers_changed(Change::Removed { index, id }, &self.servers);
    }

    fn edit(&mut self, letter: char, weight: u32) {
        let index = self.index(letter);
        let server = &mut self.servers[index];
        server.weight = weight;
        if weight > 0 {
            server.last_weight = weight;
        }
        self.scheduler.servers_changed(Change::Edited { index }, &self.servers);
    }
}
