//! `mh`, Maglev hashing: `choice = slot[H1(port + client) mod 4093]`, the slots claimed by the servers in turn, each
//! along its own permutation of the table (Eisenbud et al., NSDI 2016, §3.4).
//!
//! Consistent hashing: one client always reaches the same server, and when a server comes or goes only few clients of
//! the others move. Directors with the same servers in the same order agree without talking to each other.
//!
//! Traps: without `mh-fallback` the clients of a quiesced or overloaded server are refused. With it, the hash is tried
//! again 256 times (in Linux 4,093 times), then the next server in the list that takes connections is chosen. The table goes by the
//! *last* weight above 0, so quiescing moves nobody, and a server added with weight 0 has no slots until it first gets
//! a weight. Weights are divided by their greatest common divisor and cut to 6 bits: 1 and 200 become 1 and 50. List
//! order settles who gets a contested slot, so deleting and adding a server again may move some clients.
//!
//! Limits of a table of 4,093 slots, which is Linux's: a server of 1,000 like ones gets 0.98 to 1.22 of its share of
//! slots (of 65,537 slots it would be 0.99 to 1.01). With weights of 1 and 200 among many servers, hundreds of the light
//! ones get no slot at all. The order of the list moves up to 32 % of the clients, so a director with a history of
//! additions and deletions, and its successor that was given the saved rules, disagree about as many: what must agree
//! is to be configured in one order. `lvsd run` warns where it matters.
//!
//! At most 4,093 servers: further ones are not scheduled (Linux refuses the table) until others are deleted.
//! The hash is that of 64-bit kernels; 32-bit ones use another.
//!
//! The table is built anew where the servers are changed, in the caller's time and never in a packet's. It is left
//! alone when an edit does not change anybody's number of turns, which covers thresholds, quiescing and most load
//! reports.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::weight_tree::WeightTree;
use super::wrr::greatest_common_divisor;
use super::{Change, Request, Scheduler, SchedulerInit};
use crate::flow::AddressFamily;
use crate::hash::{fold_address, sip_hash_1_3};
use crate::service::{RealServer, SchedulerFlags};

/// The server its Maglev table names for the client's address.
#[derive(Clone, Debug)]
pub struct MaglevHashing {
    family: AddressFamily,
    /// Indexes into the list, or `EMPTY` or `GONE`; no slots at all without servers to fill them.
    slots: Vec<u16>,
    /// How many slots each server claims in its turn, as the table was built.
    turns: Vec<u32>,
    /// To find whoever is eligible where hardly anybody is.
    weights: WeightTree,
}

impl MaglevHashing {
    /// An empty table.
    pub const fn new(init: &SchedulerInit) -> Self {
        Self { family: init.family, slots: Vec::new(), turns: Vec::new(), weights: WeightTree::of_maxima() }
    }

    /// Lets every server claim its slots, `turns` of them at a time, until none is free.
    fn fill(&mut self, servers: &[RealServer]) {
        self.slots.clear();
        if self.turns.iter().all(|turns| *turns == 0) {
            return;
        }
        let mut walks: Vec<Walk> = servers
            .iter()
            .enumerate()
            .filter(|(index, _)| self.turns[*index] > 0)
            .map(|(index, server)| Walk::new(index, server, self.turns[index], self.family))
            .collect();
        self.slots = vec![EMPTY; TABLE_SIZE];
        let mut free = TABLE_SIZE;
        loop {
            for walk in &mut walks {
                for _ in 0..walk.turns {
                    while self.slots[walk.cursor] != EMPTY {
                        walk.cursor += walk.skip;
                        if walk.cursor >= TABLE_SIZE {
                            walk.cursor -= TABLE_SIZE;
                        }
                    }
                    self.slots[walk.cursor] = walk.index;
                    free -= 1;
                    if free == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Too many servers for a new table: the old one stays, its indexes follow the list.
    fn shift(&mut self, change: Change) {
        for slot in self.slots.iter_mut().filter(|slot| **slot < GONE) {
            match change {
                Change::Added { index } if usize::from(*slot) >= index => *slot += 1,
                Change::Removed { index, .. } if usize::from(*slot) == index => *slot = GONE,
                Change::Removed { index, .. } if usize::from(*slot) > index => *slot -= 1,
                _ => {}
            }
        }
    }
}

impl Scheduler for MaglevHashing {
    fn name(&self) -> &'static str {
        "mh"
    }

    fn schedule(&mut self, request: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let port = if request.flags.has(SchedulerFlags::PORT) { u32::from(request.client.port) } else { 0 };
        let key = port.wrapping_add(fold_address(request.client.address));
        let usable = |slot: usize| {
            let index = usize::from(self.slots[slot]);
            servers.get(index).is_some_and(RealServer::is_eligible).then_some(index)
        };
        let slot = first_hash(key) as usize % TABLE_SIZE;
        if let Some(index) = usable(slot) {
            return Some(index);
        }
        let falls_back = request.flags.has(SchedulerFlags::FALLBACK);
        if !falls_back || self.weights.first_at_least(1, 0, servers).is_none() {
            return None;
        }
        let rehash = |offset: usize| first_hash(key.wrapping_add(((slot + offset) % TABLE_SIZE) as u32)) as usize;
        (0..TRIES_MAX).find_map(|offset| usable(rehash(offset) % TABLE_SIZE)).or_else(|| {
            // Hardly anybody is left: whoever comes next in the list from a place that is the client's own.
            let start = rehash(TRIES_MAX) % servers.len();
            let ahead = self.weights.first_at_least(1, start, servers);
            ahead.or_else(|| self.weights.first_at_least(1, 0, servers))
        })
    }

    fn load_changed(&mut self, index: usize, servers: &[RealServer]) {
        self.weights.update(index, servers);
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        match change {
            Change::Edited { index } => self.weights.update(index, servers),
            Change::Reset | Change::Added { .. } | Change::Removed { .. } => self.weights.rebuild(servers),
        }
        if servers.len() > TABLE_SIZE {
            self.shift(change);
            self.turns.clear();
            return;
        }
        let turns = turns(servers);
        let same_servers = matches!(change, Change::Edited { .. });
        if same_servers && turns == self.turns {
            return;
        }
        self.turns = turns;
        self.fill(servers);
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

/// One server's way through the table.
struct Walk {
    index: u16,
    turns: u32,
    cursor: usize,
    skip: usize,
}

impl Walk {
    fn new(index: usize, server: &RealServer, turns: u32, family: AddressFamily) -> Self {
        let address = match (family, server.key.address) {
            // Linux folds by the service's family: of an IPv6 server in an IPv4 service it sees the first 32 bits.
            (AddressFamily::Ipv4, IpAddr::V6(address)) => (address.to_bits() >> 96) as u32,
            (_, address) => fold_address(address),
        };
        let key = address.wrapping_add(u32::from(server.key.port));
        Self {
            index: index as u16,
            turns,
            cursor: first_hash(key) as usize % TABLE_SIZE,
            skip: second_hash(key) as usize % (TABLE_SIZE - 1) + 1,
        }
    }
}

/// How many slots each server claims at a time: its last weight above 0 over the common divisor, cut to 6 bits.
fn turns(servers: &[RealServer]) -> Vec<u32> {
    let divisor = servers.iter().map(|server| server.last_weight).fold(0, greatest_common_divisor).max(1);
    let max = servers.iter().map(|server| server.last_weight / divisor).max().unwrap_or(0);
    let shift = (u32::BITS - max.leading_zeros()).saturating_sub(WEIGHT_BITS);
    servers
        .iter()
        .map(|server| match server.last_weight {
            0 => 0,
            weight => ((weight / divisor) >> shift).max(1),
        })
        .collect()
}

fn first_hash(value: u32) -> u32 {
    sip_hash_1_3((2_654_435_761, 2_654_435_761), value) as u32
}

fn second_hash(value: u32) -> u32 {
    sip_hash_1_3((2_654_446_892, 2_654_446_892), value) as u32
}

/// A prime: every skip visits all slots. Linux: `CONFIG_IP_VS_MH_TAB_INDEX` 12.
const TABLE_SIZE: usize = 4093;
/// Places that `mh-fallback` looks at. Linux looks at 4,093, which takes 58 µs for each refused client while all servers
/// are over their thresholds; where a tenth of the slots is left, one client in 10^11 is looked for longer than here.
const TRIES_MAX: usize = 256;
/// The greatest number of turns has this many bits.
const WEIGHT_BITS: u32 = 6;
/// Claimed by nobody (yet).
const EMPTY: u16 = u16::MAX;
/// Of a server that was deleted while there were too many for a new table.
const GONE: u16 = u16::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::scheduler::script::{Stage, Traffic, init};

    /// The last octets of the servers' addresses, slot by slot.
    fn octets(scheduler: &MaglevHashing, list: &[u8]) -> Vec<u8> {
        scheduler.slots.iter().map(|slot| list[usize::from(*slot)]).collect()
    }

    /// CRC-32 (IEEE 802.3): stands for a whole table.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
    }

    fn choose(stage: &mut Stage<'_>, client: &str, port: u16) -> char {
        stage.client = Endpoint::new(client.parse().unwrap(), port);
        stage.choose()
    }

    /// Servers 10.0.0.2, .3 and .4, port 80. The tables were computed by an independent simulator whose lookups agreed
    /// with Linux 6.1.192; its whole tables have SHA-256 3a124af3…, f001e17a… and 13a220c1….
    #[test]
    fn the_table_is_linuxs_slot_by_slot() {
        for (script, counts, crc) in [
            ("+A:1 +B:1 +C:1", [1364, 1364, 1365], 0xa1b3_d87c),
            ("+A:10 +B:20 +C:30", [682, 1364, 2047], 0x1b1d_cd16),
            ("+A:1 +B:5 +C:200", [78, 78, 3937], 0x4f0b_a97b),
        ] {
            let mut scheduler = MaglevHashing::new(&init());
            Stage::new(&mut scheduler, Traffic::Tcp).play(script);
            let octets = octets(&scheduler, &[4, 3, 2]);
            assert_eq!([2, 3, 4].map(|octet| octets.iter().filter(|found| **found == octet).count()), counts);
            assert_eq!(crc32(&octets), crc, "{script}");
        }
    }

    #[test]
    fn clients_find_the_servers_linux_gives_them() {
        let mut scheduler = MaglevHashing::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:10 +B:20 +C:30");
        for (client, letter) in [("192.0.2.1", 'C'), ("10.1.2.3", 'C'), ("203.0.113.77", 'A'), ("192.0.2.2", 'A')] {
            assert_eq!(choose(&mut stage, client, 1_234), letter, "{client}");
        }
    }

    #[test]
    fn quiescing_moves_nobody_and_only_fallback_serves_its_clients() {
        let mut scheduler = MaglevHashing::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:10 +B:20 +C:30 C:=0");
        assert_eq!(choose(&mut stage, "192.0.2.1", 1), '-');
        assert_eq!(choose(&mut stage, "203.0.113.77", 1), 'A');
        stage.flags = SchedulerFlags(SchedulerFlags::FALLBACK);
        assert!(['A', 'B'].contains(&choose(&mut stage, "192.0.2.1", 1)));
        stage.play("A:=0 B:=0");
        assert_eq!(choose(&mut stage, "192.0.2.1", 1), '-');
        stage.play("C:=30");
        assert_eq!(choose(&mut stage, "203.0.113.77", 1), 'C');
    }

    /// One server of a thousand is left, and holds four slots of 4,093: every client finds it.
    #[test]
    fn fallback_finds_the_only_server_that_is_left() {
        let server = |number: u32| {
            let address = core::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            RealServer::new(crate::service::ServerId(number), Endpoint::new(IpAddr::V4(address), 80), 1)
        };
        let mut servers: Vec<RealServer> = (0..1_000).map(server).collect();
        let mut scheduler = MaglevHashing::new(&init());
        scheduler.servers_changed(Change::Reset, &servers);
        for index in (0..1_000).filter(|index| *index != 700) {
            servers[index].is_overloaded = true;
            scheduler.load_changed(index, &servers);
        }
        let settings = crate::settings::Settings::default();
        let mut choose = |number: u32, servers: &[RealServer]| {
            let client = Endpoint::new(IpAddr::V4(core::net::Ipv4Addr::from_bits(0xc633_6400 + number)), 1);
            scheduler.schedule(
                &Request {
                    now: crate::time::Instant::ZERO,
                    protocol: crate::flow::Protocol::Tcp,
                    client,
                    destination: client,
                    flags: SchedulerFlags(SchedulerFlags::FALLBACK),
                    settings: &settings,
                },
                servers,
            )
        };
        assert!((0..500).all(|number| choose(number, &servers) == Some(700)));
    }

    #[test]
    fn quiescing_moves_nobody_even_if_it_changes_the_common_divisor() {
        let mut scheduler = MaglevHashing::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:6 +B:9");
        let clients = |stage: &mut Stage<'_>| -> Vec<char> {
            (0..=255u8).map(|octet| choose(stage, &alloc::format!("192.0.2.{octet}"), 1)).collect()
        };
        let before = clients(&mut stage);
        stage.play("B:=0");
        let after: Vec<char> = before.iter().map(|letter| if *letter == 'B' { '-' } else { *letter }).collect();
        assert_eq!(clients(&mut stage), after);
    }

    #[test]
    fn a_server_without_any_weight_yet_has_no_slots() {
        let mut scheduler = MaglevHashing::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:0 [--] +B:1 [BB]");
        stage.play("A:=1 B:=0");
        let served = (0..100u8).filter(|octet| choose(&mut stage, &alloc::format!("10.0.1.{octet}"), 1) == 'A').count();
        assert!((20..80).contains(&served), "{served}");
    }

    #[test]
    fn the_client_port_counts_with_the_port_flag() {
        let mut scheduler = MaglevHashing::new(&init());
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:1 +B:1 +C:1");
        let spread = |stage: &mut Stage<'_>| {
            let mut letters: Vec<char> = (0..64).map(|port| choose(stage, "192.0.2.1", port)).collect();
            letters.sort_unstable();
            letters.dedup();
            letters.len()
        };
        assert_eq!(spread(&mut stage), 1);
        stage.flags = SchedulerFlags(SchedulerFlags::PORT);
        assert_eq!(spread(&mut stage), 3);
    }

    #[test]
    fn with_more_servers_than_slots_the_old_table_serves_on() {
        let server = |number: u32| {
            let address = core::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            RealServer::new(crate::service::ServerId(number), Endpoint::new(IpAddr::V4(address), 80), 1)
        };
        let mut servers: Vec<RealServer> = (0..TABLE_SIZE as u32).map(server).collect();
        let mut scheduler = MaglevHashing::new(&init());
        scheduler.servers_changed(Change::Reset, &servers);
        let named = |scheduler: &MaglevHashing, servers: &[RealServer]| -> Vec<Option<u32>> {
            scheduler.slots.iter().map(|slot| servers.get(usize::from(*slot)).map(|server| server.id.0)).collect()
        };
        let before = named(&scheduler, &servers);
        servers.insert(0, server(9_000));
        scheduler.servers_changed(Change::Added { index: 0 }, &servers);
        servers.insert(0, server(9_001));
        scheduler.servers_changed(Change::Added { index: 0 }, &servers);
        assert_eq!(named(&scheduler, &servers), before);
        let id = servers.remove(7).id;
        scheduler.servers_changed(Change::Removed { index: 7, id }, &servers);
        let without: Vec<Option<u32>> = before.iter().map(|name| name.filter(|name| *name != id.0)).collect();
        assert_eq!(named(&scheduler, &servers), without);
    }
}
