//! What `lvsd run` prints of itself: its tables, and what became of every packet. At its end, and meanwhile when asked to.

use lvs_core::view::ServiceView;
use lvs_core::{Director, DropReason};
use lvs_io::Counters;
use lvs_io_afpacket::SourceCounters;

use crate::listing;

/// What one worker has counted.
#[derive(Clone, Debug)]
pub struct Share {
    counters: Counters,
    /// As [`DropReason::ALL`] stands.
    drops: Vec<u64>,
}

impl Share {
    /// That of the worker with this director.
    pub fn of(director: &Director, counters: &Counters) -> Self {
        let drops = DropReason::ALL.iter().map(|reason| director.drops(*reason)).collect();
        Self { counters: counters.clone(), drops }
    }
}

/// The tables of all workers put together, and what became of the packets.
pub fn text(services: &[ServiceView], shares: &[Share], queues: &[SourceCounters]) -> String {
    let mut text = format!("{}\n{}\n", listing::load(services), listing::statistics(services));
    let sum = |count: fn(&Counters) -> u64| shares.iter().map(|share| count(&share.counters)).sum::<u64>();
    text.push_str(&format!(
        "{} packets received, {} sent, {} not for a virtual service, {} refused\n",
        sum(|counters| counters.client.received + counters.server.received),
        sum(|counters| counters.client.sent + counters.server.sent),
        sum(|counters| counters.passed),
        sum(|counters| counters.dropped),
    ));
    for (index, reason) in DropReason::ALL.iter().enumerate() {
        let count: u64 = shares.iter().filter_map(|share| share.drops.get(index)).sum();
        if count > 0 {
            text.push_str(&format!("  {count} {reason}: {}\n", reason.advice()));
        }
    }
    text + &the_rest(&sum) + &not_received(queues)
}

/// What is between the packets received and those sent, and no refusal: with it the sums come out even.
fn the_rest(sum: &dyn Fn(fn(&Counters) -> u64) -> u64) -> String {
    let sums = [
        (sum(|of| of.owed + of.heard), "made or kept before by the director, or answers of this host as a server"),
        (sum(|of| of.client.cut + of.server.cut), "more by cutting packets to their way"),
        (sum(|of| of.host.answered), "answered for the virtual addresses, on ports that no service has"),
        (sum(|of| of.host.routed), "for no virtual address, routed on"),
        (sum(|of| of.host.dropped + of.pass_dropped), "for no virtual service and dropped: nobody here answers them"),
        (sum(|of| of.host.fragments_kept + of.held), "parts kept until the others come"),
        (sum(|of| of.client.queue_full + of.server.queue_full), "lost: a device's queue was full"),
        (sum(|of| of.client.send_failed + of.server.send_failed), "lost: a device refused them"),
        (sum(|of| of.client.sent_lost + of.server.sent_lost), "of those sent lost: refused, or the next hop is silent"),
        (sum(Counters::unaccounted), "NOT ACCOUNTED FOR: a fault in lvsd"),
    ];
    sums.iter().filter(|(sum, _)| *sum > 0).map(|(sum, what)| format!("  {sum} {what}\n")).collect()
}

/// What came to Ethernet devices and did not become a packet, and why.
fn not_received(queues: &[SourceCounters]) -> String {
    let sum = |count: fn(&SourceCounters) -> u64| queues.iter().map(count).sum::<u64>();
    let sums = [
        (sum(|queue| queue.ring_full), "frames lost: the receive ring was full"),
        (sum(|queue| queue.stops), "times the kernel stopped for want of a free block in the receive ring"),
        (sum(|queue| queue.unreadable), "frames lost: cut, or super-packets of an unknown kind"),
        (sum(|queue| queue.ignored.for_others), "frames ignored: for other stations, or for groups"),
        (sum(|queue| queue.ignored.other_vlan), "frames ignored: of another VLAN"),
        (sum(|queue| queue.ignored.service_tagged), "frames ignored: with a tag of 802.1ad"),
        (sum(|queue| queue.ignored.other_protocol), "frames ignored: neither IPv4, IPv6 nor ARP"),
        (sum(|queue| queue.ignored.malformed), "frames ignored: malformed, or about routers"),
    ];
    sums.iter().filter(|(sum, _)| *sum > 0).map(|(sum, what)| format!("{sum} {what}\n")).collect()
}
