//! What a worker counts, so that every packet ends in exactly one counter: three sums that hold at every moment, and a
//! check of them.

use core::time::Duration;

use crate::host::HostCounters;

/// What a device has seen.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ArmCounters {
    /// Packets received.
    pub received: u64,
    /// Bytes received, IP headers included.
    pub received_bytes: u64,
    /// Packets lost before they could be received ([`crate::PacketSource::lost`]).
    pub receive_lost: u64,
    /// How often the device went down or was deleted.
    pub device_lost: u64,
    /// Packets sent, fragments counted one by one.
    pub sent: u64,
    /// Bytes sent, IP headers included.
    pub sent_bytes: u64,
    /// Of the packets sent, those lost afterwards: the device refused them, or their next hop did not answer
    /// ([`crate::PacketSink::lost`]).
    pub sent_lost: u64,
    /// Packets lost because the device's queue was full.
    pub queue_full: u64,
    /// Packets the device refused for another reason.
    pub send_failed: u64,
    /// Packets that came about by cutting others to their way: fragments and segments beyond the first of each.
    pub cut: u64,
}

/// What a worker has counted. Refusals by reason are the director's ([`lvs_core::Director::drops`]).
///
/// Every packet ends in exactly one counter:
///
/// ```text
/// received (client, server) + owed + heard  =  forwarded + replied + passed + local + held + dropped
///                           passed + local  =  to_host + pass_dropped + host.{answered, routed, fragments_kept, dropped}
///    forwarded + replied + host_sent + cut  =  sent + queue_full + send_failed (client, server)
/// ```
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// The client-side device, or the only one.
    pub client: ArmCounters,
    /// The server-side device; zero if there is only one.
    pub server: ArmCounters,
    /// Packets the director itself owed: fragments it had held, resets, questions to silent clients.
    pub owed: u64,
    /// Answers of the host stand-in to `Local` packets: they pass the director like any other packet.
    pub heard: u64,
    /// Packets sent on: those of connections, and what the host has answered that concerns none.
    pub forwarded: u64,
    /// Packets answered by the director: ICMP errors, resets.
    pub replied: u64,
    /// Packets that were not the director's.
    pub passed: u64,
    /// Packets for the director's own host, which is a real server.
    pub local: u64,
    /// Of the passed and the local ones, those handed to the host's own stack ([`crate::OnPass::ToHost`]).
    pub to_host: u64,
    /// Of those, the ones its sink lost afterwards ([`crate::PacketSink::lost`]).
    pub to_host_lost: u64,
    /// Of the passed and the local ones, those dropped: nothing stands behind the director, or it did not take them.
    pub pass_dropped: u64,
    /// What the host stand-in did with the others of them ([`crate::OnPass::Route`]).
    pub host: HostCounters,
    /// Packets the host stand-in sent because of passed ones.
    pub host_sent: u64,
    /// Packets the director refused.
    pub dropped: u64,
    /// Packets the director kept for later.
    pub held: u64,
    /// Jobs of other threads ([`crate::WorkerHandle`]), for which packets waited.
    pub jobs: JobCounters,
}

/// What jobs of other threads took of a worker's time, by its own clock.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JobCounters {
    /// How many were carried out.
    pub count: u64,
    /// How long all of them took together.
    pub time: Duration,
    /// How long the packets waited at most: for one job, or some of them in a row.
    pub longest: Duration,
}

impl Counters {
    /// How many packets have no counter, or more than one: 0, or there is a fault in the worker.
    ///
    /// ```
    /// assert_eq!(lvs_io::Counters::default().unaccounted(), 0);
    /// ```
    pub fn unaccounted(&self) -> u64 {
        let arms = |count: fn(&ArmCounters) -> u64| count(&self.client) + count(&self.server);
        let came = arms(|arm| arm.received) + self.owed + self.heard;
        let decided = self.forwarded + self.replied + self.passed + self.local + self.held + self.dropped;
        let host = self.host.answered + self.host.routed + self.host.fragments_kept + self.host.dropped;
        let leaving = self.forwarded + self.replied + self.host_sent + arms(|arm| arm.cut);
        let left = arms(|arm| arm.sent + arm.queue_full + arm.send_failed);
        came.abs_diff(decided)
            + (self.passed + self.local).abs_diff(self.to_host + self.pass_dropped + host)
            + leaving.abs_diff(left)
    }
}
