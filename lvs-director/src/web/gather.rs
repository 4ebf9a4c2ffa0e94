//! Answers put together of pieces: each piece is one short job of the control thread, and of a worker at most
//! [`ROWS`] entries, so that packets and other programs wait for none of them. Between two pieces anything may change.

use std::net::SocketAddr;

use lvs_admin::words;
use lvs_core::service::ServicePlace;
use lvs_core::service::stats::Statistics;
use lvs_core::view::{DefenceCounters, Gauges, ServerView, ServiceView};
use lvs_core::{DropReason, Endpoint, ServiceKey};
use lvs_genl::server::{ServerCursor, Table};
use lvs_io::Counters;
use lvs_io_afpacket::{SourceCounters, SourceCountersHandle};

use super::answer::Complaint;
use crate::control::{Asker, ROWS, Tables, Unanswered};

/// Services with their servers, as far as one page goes.
pub(super) struct Page {
    /// Each with whether it has more servers than are here.
    pub services: Vec<(ServiceView, bool)>,
    /// Behind which the next page begins.
    pub next: Option<ServicePlace>,
    pub generation: u64,
}

/// How much may come together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub services: usize,
    pub servers: usize,
    pub servers_of_one: usize,
}

/// At most so many services behind `after`, and their servers.
pub(super) async fn services(asker: &Asker, after: Option<ServicePlace>, most: Most) -> Result<Page, Unanswered> {
    let mut page = Page { services: Vec::new(), next: after, generation: 0 };
    let mut servers_left = most.servers;
    while page.services.len() < most.services {
        let (after, count) = (page.next, (most.services - page.services.len()).min(ROWS));
        let (piece, generation) =
            asker.ask(move |tables| (tables.services(after.as_ref(), count), tables.generation)).await?;
        page.generation = generation;
        let is_last = piece.len() < count;
        let mut rest = piece.into_iter().peekable();
        while rest.peek().is_some() {
            let some: Vec<ServiceView> = rest.by_ref().take(SERVICES_AT_ONCE).collect();
            for mut service in with_servers(asker, some, most.servers_of_one).await? {
                if servers_left == 0 {
                    return Ok(page);
                }
                let has_more = service.servers.len() > most.servers_of_one;
                service.servers.truncate(most.servers_of_one);
                servers_left = servers_left.saturating_sub(service.servers.len().max(1));
                page.next = Some(service.place());
                page.services.push((service, has_more));
            }
        }
        if is_last {
            page.next = None;
            return Ok(page);
        }
    }
    Ok(page)
}

/// The same services with their servers, one more than `most` of each where there are.
async fn with_servers(asker: &Asker, services: Vec<ServiceView>, most: usize) -> Result<Vec<ServiceView>, Unanswered> {
    let first = move |tables: &mut Tables| {
        let mut services = services;
        for service in &mut services {
            service.servers = tables.servers(&service.key, &ServerCursor::default(), most.saturating_add(1).min(ROWS));
        }
        services
    };
    let mut services = asker.ask(first).await?;
    for service in services.iter_mut().filter(|service| service.servers.len() == ROWS) {
        let mut cursor = ServerCursor::default();
        cursor.advance(&service.servers);
        while service.servers.len() <= most {
            let more = servers_of(asker, service.key, cursor, ROWS).await?;
            if more.is_empty() {
                break;
            }
            cursor.advance(&more);
            service.servers.extend(more);
        }
    }
    Ok(services)
}

/// At most `most` and [`ROWS`] servers of a service behind a cursor.
pub(super) async fn servers_of(
    asker: &Asker,
    key: ServiceKey,
    cursor: ServerCursor,
    most: usize,
) -> Result<Vec<ServerView>, Unanswered> {
    asker.ask(move |tables| tables.servers(&key, &cursor, most)).await
}

/// What was counted beside services and servers.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub is_ready: bool,
    pub statistics: Statistics,
    pub workers: Vec<WorkerCounts>,
    pub queues: Vec<SourceCounters>,
    pub bounds: Bounds,
    pub services: u32,
    pub servers: u32,
}

/// What one worker counts.
#[derive(Clone, Debug)]
pub(super) struct WorkerCounts {
    pub counters: Counters,
    pub gauges: Gauges,
    pub defence: DefenceCounters,
    /// As [`DropReason::ALL`] stands.
    pub drops: Vec<u64>,
}

/// What tables may hold, of all workers together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub connections: u64,
    pub half_open: u64,
    pub templates: u64,
    pub local_ports: u64,
    pub fragments: u64,
    pub services: u64,
    pub servers: u64,
}

impl Counts {
    pub fn gauges(&self) -> Gauges {
        self.workers.iter().map(|worker| worker.gauges).fold(Gauges::default(), Gauges::plus)
    }

    /// Every reason with its packets.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let sum = |index: usize| self.workers.iter().filter_map(|worker| worker.drops.get(index)).sum();
        DropReason::ALL.iter().enumerate().map(move |(index, reason)| (*reason, sum(index)))
    }

    /// The bounded tables, by name: what is in them, and what may be.
    pub fn tables(&self) -> Vec<(&'static str, u64, Option<u64>)> {
        let (gauges, bounds) = (self.gauges(), &self.bounds);
        vec![
            ("connections", gauges.connections.into(), Some(bounds.connections)),
            ("half_open", gauges.half_open.into(), Some(bounds.half_open)),
            ("templates", gauges.templates.into(), Some(bounds.templates)),
            ("local_ports", gauges.local_ports.into(), Some(bounds.local_ports)),
            ("fragments", gauges.fragments.into(), Some(bounds.fragments)),
            ("services", self.services.into(), Some(bounds.services)),
            ("servers", self.servers.into(), Some(bounds.servers)),
            ("unproven", gauges.unproven.into(), None),
            ("expected", gauges.expected.into(), None),
            ("templates_unproven", gauges.templates_unproven.into(), None),
            ("transmits", gauges.transmits.into(), None),
            ("deleted_servers", gauges.deleted_servers.into(), None),
        ]
    }
}

/// What was counted so far: one job of a worker, which reads numbers.
pub(super) async fn counts(asker: &Asker) -> Result<Counts, Unanswered> {
    asker.ask(counted).await
}

fn counted(tables: &mut Tables) -> Counts {
    let of_worker = |worker: &lvs_io::WorkerHandle| {
        let counters = worker.counters().ok()?;
        let of_director = worker.with(|director, _| {
            let drops = DropReason::ALL.iter().map(|reason| director.drops(*reason)).collect();
            (director.gauges(), director.defence_counters(), drops)
        });
        let (gauges, defence, drops) = of_director.ok()?;
        Some(WorkerCounts { counters, gauges, defence, drops })
    };
    let workers: Vec<WorkerCounts> = tables.workers.iter().filter_map(of_worker).collect();
    let config = &tables.files.config;
    let of_all = |bound: u32| u64::from(bound) * tables.workers.len() as u64;
    Counts {
        is_ready: !workers.is_empty() && workers.len() == tables.workers.len(),
        bounds: Bounds {
            connections: of_all(config.connections_max),
            half_open: of_all(config.half_open_bound()),
            templates: of_all(config.templates_max),
            local_ports: of_all(config.local_ports.remembered_max),
            fragments: of_all(config.fragments_max),
            services: config.services_max.into(),
            servers: config.servers_max.into(),
        },
        services: tables.master.service_count(),
        servers: tables.master.server_count(),
        queues: tables.queues.iter().map(SourceCountersHandle::get).collect(),
        statistics: tables.statistics(),
        workers,
    }
}

/// A service's place as the text that a page names its end by.
pub(super) fn place_text(place: &ServicePlace) -> String {
    format!("{}-{}", place.added(), words::service_word(&place.key()))
}

/// As [`place_text`] writes it.
pub(super) fn read_place(text: &str) -> Result<ServicePlace, Complaint> {
    let read = || {
        let (added, key) = text.split_once('-')?;
        Some(ServicePlace::new(words::service(key).ok()?, added.parse().ok()?))
    };
    read().ok_or_else(|| Complaint::bad(AFTER))
}

/// How far a listing of servers is, as text.
pub(super) fn cursor_text(cursor: &ServerCursor) -> String {
    let last = cursor.last.map_or_else(String::new, |last| last.to_string());
    format!("{}-{last}", cursor.position)
}

/// As [`cursor_text`] writes it.
pub(super) fn read_cursor(text: &str) -> Result<ServerCursor, Complaint> {
    let read = || {
        let (position, last) = text.split_once('-')?;
        let last: SocketAddr = last.parse().ok()?;
        Some(ServerCursor { position: position.parse().ok()?, last: Some(Endpoint::new(last.ip(), last.port())) })
    };
    read().ok_or_else(|| Complaint::bad(AFTER))
}

const AFTER: &str = "after is what the page before called next";
/// Services whose servers are asked for together.
const SERVICES_AT_ONCE: usize = 8;
