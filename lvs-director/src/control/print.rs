//! The tables as they are, printed to standard output: what `lvsd run` prints at its end, without ending.

use lvs_core::view::ServiceView;
use lvs_genl::server::{ServerCursor, Table};
use lvs_io::WorkerHandle;
use lvs_io_afpacket::SourceCountersHandle;

use super::tables::{ROWS, Tables};
use crate::report::{self, Share};
use crate::say;

impl Tables {
    /// Prints them. Counters are those last published.
    pub fn print(&mut self) {
        let services = self.everything();
        let share = |worker: &WorkerHandle| {
            let counters = worker.counters().ok()?;
            worker.with(move |director, _| Share::of(director, &counters)).ok()
        };
        let shares: Vec<Share> = self.workers.iter().filter_map(share).collect();
        let queues: Vec<_> = self.queues.iter().map(SourceCountersHandle::get).collect();
        // What standard output does not take is said.
        let _ = say::print(&report::text(&services, &shares, &queues));
    }

    /// Every service with its servers, piece by piece.
    fn everything(&mut self) -> Vec<ServiceView> {
        let mut all: Vec<ServiceView> = Vec::new();
        loop {
            let last = all.last().map(ServiceView::place);
            let mut services = self.services(last.as_ref(), ROWS);
            if services.is_empty() {
                return all;
            }
            for service in &mut services {
                let mut cursor = ServerCursor::default();
                loop {
                    let servers = self.servers(&service.key, &cursor, ROWS);
                    if servers.is_empty() {
                        break;
                    }
                    cursor.advance(&servers);
                    service.servers.extend(servers);
                }
            }
            all.append(&mut services);
        }
    }
}
