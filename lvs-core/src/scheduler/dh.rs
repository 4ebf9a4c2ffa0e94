//! `dh`, destination hashing: `choice = bucket[hash32(fold(destination), 8)]`, `bucket[i] = list[i mod n]`.
//!
//! The destination address is the key to a table of 256 entries that assigns each address to one server. If that server
//! is usable the request goes there; otherwise there is no choice. For caches behind a firewall mark, where clients
//! ask for many destinations and each cache should hold its own part of them.
//!
//! Traps: a service with one virtual address always uses one server. Weights do not matter, except 0: the clients of a
//! quiesced or overloaded server are refused while others idle, and there is no fallback flag. Every addition and
//! deletion deals the whole table anew; an edit does not touch it. Deleting and adding a server again moves it to the
//! front, and so moves most addresses. More than 256 servers: the older ones get nothing.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Change, Request, Scheduler};
use crate::hash::{fold_address, hash32};
use crate::service::RealServer;

/// The server its table names for the destination address.
#[derive(Clone, Debug, Default)]
pub struct DestinationHashing {
    /// Indexes into the list, dealt anew whenever they could shift; empty without servers.
    buckets: Vec<u16>,
}

impl DestinationHashing {
    /// An empty table.
    pub const fn new() -> Self {
        Self { buckets: Vec::new() }
    }
}

impl Scheduler for DestinationHashing {
    fn name(&self) -> &'static str {
        "dh"
    }

    fn schedule(&mut self, request: &Request<'_>, servers: &[RealServer]) -> Option<usize> {
        let bucket = hash32(fold_address(request.destination.address), TABLE_BITS);
        let index = usize::from(*self.buckets.get(bucket as usize)?);
        servers.get(index)?.is_eligible().then_some(index)
    }

    fn servers_changed(&mut self, change: Change, servers: &[RealServer]) {
        if matches!(change, Change::Edited { .. }) {
            return;
        }
        self.buckets.clear();
        if !servers.is_empty() {
            self.buckets.extend((0..1 << TABLE_BITS).map(|bucket| (bucket % servers.len()) as u16));
        }
    }

    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

/// 256 buckets: `CONFIG_IP_VS_DH_TAB_BITS`.
const TABLE_BITS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::scheduler::script::{Stage, Traffic};

    /// The servers chosen for destinations whose buckets are 50, 148, 2 and 57.
    fn choices(stage: &mut Stage<'_>) -> alloc::string::String {
        ["192.0.2.1", "192.0.2.2", "10.1.2.3", "203.0.113.77"]
            .map(|address| {
                stage.destination = Endpoint::new(address.parse().unwrap(), 80);
                stage.choose()
            })
            .iter()
            .collect()
    }

    #[test]
    fn the_destination_decides_and_an_edit_moves_nobody() {
        let mut scheduler = DestinationHashing::new();
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        assert_eq!(choices(&mut stage), "----");
        stage.play("+A:1 +B:7 +C:1");
        // List C B A; buckets 50, 148, 2, 57 modulo 3 are 2, 1, 2, 0.
        assert_eq!(choices(&mut stage), "ABAC");
        stage.play("A:=0");
        assert_eq!(choices(&mut stage), "-B-C");
        stage.play("A:=9 B:=1");
        assert_eq!(choices(&mut stage), "ABAC");
        stage.play("-C");
        // List B A.
        assert_eq!(choices(&mut stage), "BBBA");
        stage.play("+D:1");
        assert_eq!(choices(&mut stage), "ABAD");
    }

    #[test]
    fn the_clients_of_an_overloaded_server_are_refused() {
        let mut scheduler = DestinationHashing::new();
        let mut stage = Stage::new(&mut scheduler, Traffic::Tcp);
        stage.play("+A:1(u2) +B:1");
        assert_eq!([(); 3].map(|()| choices(&mut stage)).concat(), "BBBABBBABBB-");
    }
}
