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
        let text = report::text(&services, &shares, &queues);
        // Who reads standard output slowly, or not at all, holds nobody up.
        if self.printing.as_ref().is_some_and(|printing| !printing.is_finished()) {
            say::warning("standard output has not taken the tables that were printed last: these are left out");
            return;
        }
        let print = move || {
            // What standard output does not take is said.
            let _ = say::print(&text);
        };
        match std::thread::Builder::new().name("print".to_owned()).spawn(print) {
            Ok(printing) => self.printing = Some(printing),
            Err(error) => say::warning(format_args!("cannot print the tables: {error}")),
        }
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
