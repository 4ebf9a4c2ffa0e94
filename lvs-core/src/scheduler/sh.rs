//! `sh`, source hashing: `choice = bucket[hash32(port + fold(client), 8)]`, each server in turn filling `max(1,
//! weight)` buckets until all 256 are filled.
//!
//! The counterpart of `dh`: the client's address is the key, so one client always reaches the same server. Together the
//! two pin both directions of a flow to one firewall of a cluster.
//!
//! Traps: without `sh-fallback` the clients of a quiesced or overloaded server are refused while others idle. A server
//! of weight 0 keeps one bucket. Every addition, deletion and edit deals the table anew and moves clients. Weights add
//! up to 256 buckets at best: the last run is cut, and servers past the 256th bucket get nothing.
//! `sh-port` adds the client's port, so one client is spread over all servers.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Change, Request, Scheduler};
use crate::hash::{fold_address, hash32};
use crate::service::{RealServer, SchedulerFlags};

/// The server its table names for the client's address.
#[derive(Clone, Debug, Default)]
pub struct SourceHashing {
    /// Indexes into the list, dealt anew at every change; empty without servers.
    buckets: Vec<u16>,
}

impl SourceHashing {
    /// An empty table.
    pub const fn new() -> Self {
        Self { buckets: Vec::new() }
    }
}

impl Scheduler for SourceHashing {
    fn name(&self) -> &'static str {
        "sh"
    }

    fn schedule(&mut self, request: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        if self.buckets.is_empty() {
            return None;
        }
        let port = if request.flags.has(SchedulerFlags::PORT) { u32::from(request.client.port) } else { 0 };
        let hash = hash32(port.wrapping_add(fold_address(request.client.address)), TABLE_BITS) as usize;
        let usable = |bucket: usize| {
            let index = usize::from(self.buckets[bucket % TABLE_SIZE]);
            servers.get(index).is_some_and(RealServer::is_eligible).then_some(index)
        };
        usable(hash).or_else(|| {
            let falls_back = request.flags.has(SchedulerFlags::FALLBACK);
            // Linux adds the hash twice while it looks for another bucket.
            (0..TABLE_SIZE).filter(|_| falls_back).find_map(|offset| usable(2 * hash + offset))
        })
    }

    fn servers_changed(&mut self, _: Change, servers: &[RealServer]) {
        self.buckets.clear();
        if servers.is_empty() {
            return;
        }
        let in_turn = (0..servers.len()).cycle();
        let runs = in_turn.flat_map(|index| core::iter::repeat_n(index as u16, servers[index].weight.max(1) as usize));
        self.buckets.extend(runs.take(TABLE_SIZE));
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

/// 256 buckets: `CONFIG_IP_VS_SH_TAB_BITS`.
const TABLE_BITS: u32 = 8;
const TABLE_SIZE: usize = 1 << TABLE_BITS;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::scheduler::script::{Stage, Traffic};
    use alloc::string::String;

    /// The servers chosen for clients whose buckets are 50, 148, 2 and 57.
    fn choices(stage: &mut Stage<'_>) -> String {
        ["192.0.2.1", "192.0.2.2", "10.1.2.3", "203.0.113.77"]
            .map(|address| {
                stage.client = Endpoint::new(address.parse().unwrap(), 40_000);
                stage.choose()
            })
            .iter()
            .collect()
    }

    #[test]
    fn a_server_fills_as_many_buckets_as_it_weighs() {
        let mut scheduler = SourceHashing::new();
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:1 +B:5 +C:200");
        let mut letters = String::new();
        for bucket in &scheduler.buckets {
            letters.push(['C', 'B', 'A'][usize::from(*bucket)]);
        }
        assert_eq!(letters, "C".repeat(200) + "BBBBBA" + &"C".repeat(50));
    }

    #[test]
    fn a_quiesced_server_keeps_one_bucket_and_its_clients_are_refused() {
        let mut scheduler = SourceHashing::new();
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:1 +B:49 +C:2");
        // List C B A: buckets 0-1 C, 2-50 B, 51 A, 52-53 C, 54-102 B, 103 A, 104-105 C, 106-154 B.
        assert_eq!(choices(&mut stage), "BBBB");
        stage.play("B:=0");
        // C C B A, again and again: 50, 148, 2, 57 modulo 4 are 2, 0, 2, 1.
        assert_eq!(choices(&mut stage), "-C-C");
        stage.flags = SchedulerFlags(SchedulerFlags::FALLBACK);
        // From twice the hash on: 100 and 4 modulo 4 are 0.
        assert_eq!(choices(&mut stage), "CCCC");
        stage.play("C:=0 A:=0");
        assert_eq!(choices(&mut stage), "----");
    }

    #[test]
    fn the_client_port_counts_with_the_port_flag() {
        let mut scheduler = SourceHashing::new();
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:56 +B:100 +C:100");
        stage.client = Endpoint::new("10.1.2.3".parse().unwrap(), 40_000);
        assert_eq!(stage.choose(), 'C'); // bucket 2
        stage.flags = SchedulerFlags(SchedulerFlags::PORT);
        assert_eq!(stage.choose(), 'B'); // bucket 166
    }
}
