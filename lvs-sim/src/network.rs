//! The cables between the hosts and the director, and who is reached by which. It decides where a packet goes that
//! leaves the director, and in which pieces; what the packet meets on its way is in `link.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lvs_core::{Direction, Instant, Seed};

use crate::director_node::Departure;
use crate::link::{Faults, Heading, Link, LinkCounters, Wire};
use crate::packet::destination;
use crate::pcap::Capture;
use crate::simulation::HostId;

#[derive(Default)]
pub(crate) struct Network {
    cables: Vec<Cable>,
    /// Which host is reached by which address.
    owners: BTreeMap<IpAddr, HostId>,
    /// Packets for an address no host has.
    pub(crate) unroutable: u64,
    /// Identification of the last packet that was fragmented here.
    identification: u32,
}

/// The link of one host.
struct Cable {
    /// Which side of the director the host is on: what it sends are requests or replies.
    sends: Direction,
    /// What the host sends goes to whom it is for, past the director.
    is_past_director: bool,
    link: Link,
    to_director: Wire,
    to_host: Wire,
    capture: Option<Capture>,
}

/// What comes out of a cable.
pub(crate) enum Arrival {
    /// At the end where the director is.
    AtDirector { from: HostId, packet: Vec<u8> },
    /// At the host.
    AtHost { to: HostId, packet: Vec<u8> },
}

impl Network {
    /// Lays a cable to a new host.
    ///
    /// # Panics
    /// If another host has one of the addresses.
    pub(crate) fn add(&mut self, sends: Direction, addresses: &[IpAddr], link: Link, seed: Seed) -> HostId {
        let id = HostId(self.cables.len());
        for address in addresses {
            let earlier = self.owners.insert(*address, id);
            assert!(earlier.is_none(), "{address} belongs to another host");
        }
        let (to_director, to_host) = (Wire::new(Heading::Director, seed), Wire::new(Heading::Host, seed));
        self.cables.push(Cable { sends, is_past_director: false, link, to_director, to_host, capture: None });
        id
    }

    pub(crate) fn lead_past_director(&mut self, host: HostId) {
        self.cables[host.0].is_past_director = true;
    }

    pub(crate) fn is_past_director(&self, host: HostId) -> bool {
        self.cables[host.0].is_past_director
    }

    pub(crate) fn sends(&self, host: HostId) -> Direction {
        self.cables[host.0].sends
    }

    pub(crate) fn set_faults(&mut self, host: HostId, faults: Faults) {
        self.cables[host.0].link.faults = faults;
    }

    pub(crate) fn set_all_faults(&mut self, faults: Faults) {
        for cable in &mut self.cables {
            cable.link.faults = faults;
        }
    }

    pub(crate) fn counters(&self, host: HostId) -> [LinkCounters; 2] {
        let cable = &self.cables[host.0];
        [cable.to_director.counters, cable.to_host.counters]
    }

    pub(crate) fn start_capture(&mut self, host: HostId) {
        self.cables[host.0].capture = Some(Capture::new());
    }

    pub(crate) fn capture(&self, host: HostId) -> Option<&Capture> {
        self.cables[host.0].capture.as_ref()
    }

    /// Records a packet at the director's end of the host's cable, if somebody asked for it.
    pub(crate) fn record(&mut self, now: Instant, host: HostId, packet: &[u8]) {
        if let Some(capture) = &mut self.cables[host.0].capture {
            capture.add(now, packet);
        }
    }

    /// Takes a packet from a host.
    pub(crate) fn send_to_director(
        &mut self,
        now: Instant,
        from: HostId,
        packet: Vec<u8>,
        mut arrive: impl FnMut(Instant, Arrival),
    ) {
        let cable = &mut self.cables[from.0];
        cable
            .to_director
            .carry(now, &cable.link, packet, |at, packet| arrive(at, Arrival::AtDirector { from, packet }));
    }

    /// Takes what leaves the director to the cable it leads to, and fragments what is too long for it.
    pub(crate) fn deliver(&mut self, now: Instant, departure: Departure, mut arrive: impl FnMut(Instant, Arrival)) {
        let Some(&to) = self.owners.get(&departure.next_hop) else {
            self.unroutable += 1;
            return;
        };
        self.identification = self.identification.wrapping_add(1);
        for packet in departure.into_packets(self.cables[to.0].link.mtu, self.identification) {
            self.record(now, to, &packet);
            let cable = &mut self.cables[to.0];
            cable.to_host.carry(now, &cable.link, packet, |at, packet| arrive(at, Arrival::AtHost { to, packet }));
        }
    }

    /// Takes a packet that does not meet the director to whom it is for.
    pub(crate) fn route(&mut self, now: Instant, packet: &[u8], arrive: impl FnMut(Instant, Arrival)) {
        match destination(packet) {
            Some(next_hop) => self.deliver(now, Departure::new(next_hop, packet), arrive),
            None => self.unroutable += 1,
        }
    }
}
