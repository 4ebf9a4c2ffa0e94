//! What a packet costs on its way through the director, beside the kernel's own forwarding and beside null forwarders,
//! which only move packets: small UDP packets a second, bulk TCP, and round trips. Each way has the same three
//! namespaces and two veth pairs; floods go by turns through all of them, several times, and the best time of each
//! counts, so that the ratios are those of one and the same minute.
//!
//! `cargo bench -p lvs-io-afpacket --bench forward -- [SECONDS] [NAME] [--flows=N]` (default 1 second for each
//! measurement; only ways whose name contains NAME; 60,000 connections at most and by default). The flood comes from
//! one processor, the director has another. Needs user namespaces, and `/dev/net/tun` for TUN; says what is denied and
//! ends with status 0.

mod director;
mod flood;
mod network;
mod transfer;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use flood::Flood;
use lvs_io_tun::netns;
use network::{Failure, Network, Target};

/// Who forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// The kernel's routing, without any load balancing: the clients talk to the server itself.
    Routing,
    Nftables,
    /// AF_PACKET; the receive ring in blocks or not.
    AfPacket(Job, Ring),
    Tun(Job),
}

/// What a program that forwards does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// Moves packets from one device to the other; on Ethernet they get another header.
    Null,
    Nat,
    DirectRouting,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ring {
    AtOnce,
    Blocks,
}

const WAYS: [(Way, &str); 11] = [
    (Way::Routing, "kernel routing"),
    (Way::Nftables, "nftables DNAT"),
    (Way::AfPacket(Job::Null, Ring::AtOnce), "AF_PACKET null forwarder"),
    (Way::AfPacket(Job::Nat, Ring::AtOnce), "AF_PACKET NAT"),
    (Way::AfPacket(Job::DirectRouting, Ring::AtOnce), "AF_PACKET DR"),
    (Way::AfPacket(Job::Null, Ring::Blocks), "AF_PACKET blocks null forwarder"),
    (Way::AfPacket(Job::Nat, Ring::Blocks), "AF_PACKET blocks NAT"),
    (Way::AfPacket(Job::DirectRouting, Ring::Blocks), "AF_PACKET blocks DR"),
    (Way::Tun(Job::Null), "TUN null forwarder"),
    (Way::Tun(Job::Nat), "TUN NAT"),
    (Way::Tun(Job::DirectRouting), "TUN DR"),
];

impl Way {
    fn job(self) -> Option<Job> {
        match self {
            Self::Routing | Self::Nftables => None,
            Self::AfPacket(job, _) | Self::Tun(job) => Some(job),
        }
    }

    /// Whom the clients turn to.
    fn target(self) -> Target {
        match self {
            Self::Routing | Self::AfPacket(Job::Null, _) | Self::Tun(Job::Null) => Target::Server,
            _ => Target::Virtual,
        }
    }

    /// The null forwarder that moves packets as this one does.
    fn null(self) -> Option<Self> {
        match self {
            Self::AfPacket(_, ring) => Some(Self::AfPacket(Job::Null, ring)),
            Self::Tun(_) => Some(Self::Tun(Job::Null)),
            Self::Routing | Self::Nftables => None,
        }
    }
}

/// Times each way is flooded.
const WINDOWS: usize = 5;

fn main() {
    // `cargo test --benches` runs this too, without `--bench`: then only to see that it works.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let seconds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(if is_bench { 1.0 } else { 0.05 });
    let duration = Duration::from_secs_f64(seconds);
    let asked = words.iter().find(|word| word.parse::<f64>().is_err());
    let flows = std::env::args().find_map(|word| word.strip_prefix("--flows=")?.parse().ok());
    let flows = flows.unwrap_or(flood::FLOWS_MAX).clamp(1, flood::FLOWS_MAX);
    // Root needs no user namespace, and outside of one may have larger socket buffers.
    let is_root = thread::spawn(netns::enter_new_network_namespace).join().is_ok_and(|entered| entered.is_ok());
    if !is_root && let Err(error) = netns::enter_new_user_namespace() {
        println!("not run: no new user namespace: {error}");
        return;
    }
    let ways = WAYS.into_iter().filter(|(_, name)| asked.is_none_or(|asked| name.contains(asked.as_str())));
    let mut rows: Vec<Row> = ways.map(|(way, name)| Row::new(way, name, duration)).collect();
    for _ in 0..WINDOWS {
        for row in &mut rows {
            row.flood(flows, duration);
        }
    }
    print(&rows);
}

/// One way, and what was measured of it.
struct Row {
    way: Way,
    name: &'static str,
    network: Result<Arc<Network>, Failure>,
    /// Small packets that arrived, a second, and that were sent.
    best: Flood,
    /// The median, in microseconds; the reason if there is none.
    round_trip_us: Option<f64>,
    gigabits: Option<f64>,
}

impl Row {
    fn new(way: Way, name: &'static str, duration: Duration) -> Self {
        let mut row = Self {
            way,
            name,
            network: Network::new(way).map(Arc::new),
            best: Flood::default(),
            round_trip_us: None,
            gigabits: None,
        };
        if let Ok(network) = &row.network
            // Replies would have to go another way.
            && way.job() != Some(Job::DirectRouting)
        {
            let measured = transfer::round_trip(network, duration / 2).and_then(|us| {
                row.round_trip_us = Some(us);
                transfer::bulk(network, duration)
            });
            match measured {
                Ok(gigabits) => row.gigabits = Some(gigabits),
                Err(error) => row.network = Err(error),
            }
        }
        row
    }

    fn flood(&mut self, flows: u16, duration: Duration) {
        let Ok(network) = &self.network else { return };
        match flood::measure(network, flows, duration) {
            Ok(flood) if flood.arrived > self.best.arrived => self.best = flood,
            Ok(_) => {}
            Err(error) => self.network = Err(error),
        }
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:32} {:>10} {:>8} {:>10} {:>8} {:>8} {:>8} {:>11} {:>11}",
        "way", "packets/s", "of sent", "of routing", "of nft", "of null", "CPU ns", "TCP Gbit/s", "round trip"
    );
    for row in rows {
        if let Err(error) = &row.network {
            println!("{:32} not run: {error}", row.name);
            continue;
        }
        let arrived = row.best.arrived;
        let of = |other: Option<Way>| {
            let other = rows.iter().find(|row| Some(row.way) == other && row.best.arrived > 0.0);
            other.map_or("–".to_owned(), |other| format!("{:.2}", arrived / other.best.arrived))
        };
        println!(
            "{:32} {:>10.0} {:>8.2} {:>10} {:>8} {:>8} {:>8} {:>11} {:>11}",
            row.name,
            arrived,
            arrived / row.best.sent,
            of(Some(Way::Routing)),
            of(Some(Way::Nftables)),
            of(row.way.null()),
            row.best.each_ns.map_or("–".to_owned(), |ns| format!("{ns:.0}")),
            row.gigabits.map_or("–".to_owned(), |gigabits| format!("{gigabits:.1}")),
            row.round_trip_us.map_or("–".to_owned(), |us| format!("{us:.0} µs")),
        );
    }
}
