//! The metrics, for Prometheus: which there are, and under which names. Written by `prometheus-client`, as OpenMetrics or in
//! Prometheus' own text format, whichever is asked for.
//!
//! How many series there are is bounded: so many services and servers have some of their own; those beyond are counted by
//! `lvs_series_left_out`, and are in the sums of `lvs_connections_total` and its like as before. Counters never go back while
//! `lvsd` runs: `ipvsadm -Z` does not touch them.

use std::fmt;

use hyper::header::HeaderValue;
use lvs_core::service::stats::Counters;
use lvs_core::view::{ServerView, ServiceView};
use lvs_io::ArmCounters;
use lvs_io_afpacket::SourceCounters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::answer::{Answer, Complaint, whole};
use super::gather::{self, Counts, Most, Page, WorkerCounts};
use crate::control::Asker;

/// Everything as it is now.
pub(super) async fn answer(asker: &Asker, accept: Option<&HeaderValue>) -> Result<Answer, Complaint> {
    let page = gather::services(asker, None, MOST).await?;
    let counts = gather::counts(asker).await?;
    let wants_openmetrics =
        accept.and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains(OPENMETRICS));
    let (content_type, text) = written(page, counts, wants_openmetrics)
        .map_err(|error| Complaint::new(hyper::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(whole(content_type, text))
}

fn written(page: Page, counts: Counts, as_openmetrics: bool) -> Result<(&'static str, String), fmt::Error> {
    let Page { services, .. } = page;
    let services = services.into_iter().map(|(service, _)| service).collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { services, counts }));
    let mut body = String::new();
    if as_openmetrics {
        text::encode(&mut body, &registry)?;
        return Ok(("application/openmetrics-text; version=1.0.0; charset=utf-8", body));
    }
    prometheus_text::encode(&mut body, &registry)?;
    Ok(("text/plain; version=0.0.4; charset=utf-8", body))
}

/// What is written.
#[derive(Debug)]
struct Scrape {
    services: Vec<ServiceView>,
    counts: Counts,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.write_totals(&mut families)?;
        self.write_services(&mut families)?;
        self.write_servers(&mut families)?;
        self.write_refusals(&mut families)?;
        self.write_workers(&mut families)?;
        self.write_devices(&mut families)
    }
}

impl Scrape {
    fn write_totals(&self, families: &mut Families<'_>) -> fmt::Result {
        let counts = &self.counts;
        let one = |value: u64| [(Labels::new(), Value::Whole(value))];
        families.gauge("lvs_ready", "Whether every worker answers", one(counts.is_ready.into()))?;
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        families.gauge("lvs_build_info", "The version of lvsd", [(version, Value::Whole(1))])?;
        families.gauge("lvs_workers", "Workers that answer", one(counts.workers.len() as u64))?;
        let live = &counts.statistics.live;
        families.counter("lvs_connections", "Connections scheduled", one(live.connections))?;
        families.counter("lvs_packets", "Packets of connections", both_ways(&Labels::new(), live, PACKETS))?;
        families.counter(
            "lvs_bytes",
            "Bytes of connections, IP headers included",
            both_ways(&Labels::new(), live, BYTES),
        )?;
        let tables = counts.tables();
        let table = |name: &str| vec![("table", name.to_owned())];
        let entries = tables.iter().map(|(name, entries, _)| (table(name), Value::Whole(*entries)));
        families.gauge("lvs_table_entries", "Entries of a table, all workers together", entries)?;
        let bounds = tables.iter().filter_map(|(name, _, bound)| Some((table(name), Value::Whole((*bound)?))));
        families.gauge("lvs_table_bound", "Most entries a table may have, all workers together", bounds)?;
        let servers = self.services.iter().map(|service| service.servers.len()).sum::<usize>();
        let left_out = |all: u32, told: usize| Value::Whole(u64::from(all).saturating_sub(told as u64));
        let what = |name: &str| vec![("of", name.to_owned())];
        families.gauge(
            "lvs_series_left_out",
            "Services and servers without series of their own, because there are too many",
            [
                (what("services"), left_out(counts.services, self.services.len())),
                (what("servers"), left_out(counts.servers, servers)),
            ],
        )
    }

    fn write_services(&self, families: &mut Families<'_>) -> fmt::Result {
        let each = || self.services.iter().map(|service| (labels_of(service), &service.statistics.live));
        let info = self.services.iter().map(|service| {
            let mut labels = labels_of(service);
            labels.push(("scheduler", service.config.scheduler.clone()));
            (labels, Value::Whole(1))
        });
        families.gauge("lvs_service_info", "How a service is configured", info)?;
        let connections = each().map(|(labels, live)| (labels, Value::Whole(live.connections)));
        families.counter("lvs_service_connections", "Connections scheduled", connections)?;
        let both = |what: Ways| each().flat_map(move |(labels, live)| both_ways(&labels, live, what));
        families.counter("lvs_service_packets", "Packets of a service", both(PACKETS))?;
        families.counter("lvs_service_bytes", "Bytes of a service, IP headers included", both(BYTES))
    }

    fn write_servers(&self, families: &mut Families<'_>) -> fmt::Result {
        let each = || {
            let of = |service: &ServiceView, server: &ServerView| {
                let mut labels = labels_of(service);
                labels.push(("server", server.config.key.to_string()));
                labels
            };
            self.services
                .iter()
                .flat_map(move |service| service.servers.iter().map(move |server| (of(service, server), server)))
        };
        let connections = each().map(|(labels, server)| (labels, Value::Whole(server.statistics.live.connections)));
        families.counter("lvs_server_connections", "Connections scheduled", connections)?;
        let both =
            |what: Ways| each().flat_map(move |(labels, server)| both_ways(&labels, &server.statistics.live, what));
        families.counter("lvs_server_packets", "Packets of a server", both(PACKETS))?;
        families.counter("lvs_server_bytes", "Bytes of a server, IP headers included", both(BYTES))?;
        let open = each().flat_map(|(labels, server)| {
            let with = |state: &str, value: u32| {
                let mut labels = labels.clone();
                labels.push(("state", state.to_owned()));
                (labels, Value::Whole(value.into()))
            };
            [
                with("active", server.active_connections),
                with("inactive", server.inactive_connections),
                with("persistent", server.persistent_connections),
            ]
        });
        families.gauge("lvs_server_open_connections", "Connections of a server now, as ipvsadm lists them", open)?;
        for (name, help, value) in SERVER_GAUGES {
            families.gauge(name, help, each().map(|(labels, server)| (labels, Value::Whole(value(server)))))?;
        }
        Ok(())
    }

    fn write_refusals(&self, families: &mut Families<'_>) -> fmt::Result {
        let drops = self.counts.drops();
        let drops = drops.map(|(reason, packets)| (vec![("reason", reason.name().to_owned())], Value::Whole(packets)));
        families.counter("lvs_drops", "Packets refused; each reason is a variant of lvs_core::DropReason", drops)?;
        let sum = |count: fn(&WorkerCounts) -> u64| self.counts.workers.iter().map(count).sum::<u64>();
        let ended =
            DEFENCES.iter().map(|(what, count)| (vec![("what", (*what).to_owned())], Value::Whole(sum(*count))));
        families.counter("lvs_defence_ended", "Entries that the defences have ended", ended)
    }

    fn write_workers(&self, families: &mut Families<'_>) -> fmt::Result {
        let each = || self.counts.workers.iter().enumerate().map(|(index, worker)| (index.to_string(), worker));
        let packets = each().flat_map(|(index, worker)| {
            OUTCOMES.iter().map(move |(outcome, count)| {
                let labels = vec![("worker", index.clone()), ("outcome", (*outcome).to_owned())];
                (labels, Value::Whole(count(worker)))
            })
        });
        families.counter("lvs_worker_packets", "Packets by what came of them", packets)?;
        let faults =
            each().map(|(index, worker)| (vec![("worker", index)], Value::Whole(worker.counters.unaccounted())));
        families.gauge(
            "lvs_worker_packets_unaccounted",
            "Packets that no counter or more than one has: a fault in lvsd",
            faults,
        )?;
        let jobs = each().map(|(index, worker)| (vec![("worker", index)], Value::Whole(worker.counters.jobs.count)));
        families.counter("lvs_worker_control_jobs", "Jobs of other threads for which packets waited", jobs)?;
        let time = each()
            .map(|(index, worker)| (vec![("worker", index)], Value::Real(worker.counters.jobs.time.as_secs_f64())));
        families.counter("lvs_worker_control_seconds", "Time that packets waited for such jobs", time)?;
        let longest = each()
            .map(|(index, worker)| (vec![("worker", index)], Value::Real(worker.counters.jobs.longest.as_secs_f64())));
        families.gauge(
            "lvs_worker_control_longest_seconds",
            "Longest time that packets waited for such jobs in a row",
            longest,
        )
    }

    fn write_devices(&self, families: &mut Families<'_>) -> fmt::Result {
        let each = || {
            self.counts.workers.iter().enumerate().flat_map(|(index, worker)| {
                let arms = [("clients", &worker.counters.client), ("servers", &worker.counters.server)];
                arms.into_iter()
                    .map(move |(side, arm)| (vec![("worker", index.to_string()), ("side", side.to_owned())], arm))
            })
        };
        let by = |name: &'static str, columns: &'static [Column<ArmCounters>]| {
            each().flat_map(move |(labels, arm)| {
                columns.iter().map(move |(value, count)| {
                    let mut labels = labels.clone();
                    labels.push((name, (*value).to_owned()));
                    (labels, Value::Whole(count(arm)))
                })
            })
        };
        families.counter("lvs_device_packets", "Packets of a device", by("direction", &DEVICE_PACKETS))?;
        families.counter(
            "lvs_device_bytes",
            "Bytes of a device, IP headers included",
            by("direction", &DEVICE_BYTES),
        )?;
        families.counter("lvs_device_lost_packets", "Packets that a device lost, and where", by("at", &DEVICE_LOST))?;
        let down = each().map(|(labels, arm)| (labels, Value::Whole(arm.device_lost)));
        families.counter("lvs_device_losses", "How often a device went down or was deleted", down)?;
        let frames = self.counts.queues.iter().enumerate().flat_map(|(index, queue)| {
            QUEUE_FRAMES.iter().map(move |(outcome, count)| {
                let labels = vec![("queue", index.to_string()), ("outcome", (*outcome).to_owned())];
                (labels, Value::Whole(count(queue)))
            })
        });
        families.counter("lvs_queue_frames", "Frames at the queues of Ethernet devices, by what came of them", frames)
    }
}

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// What a sample says.
enum Value {
    Whole(u64),
    Real(f64),
}

/// Families of samples, one after the other.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, Value)>) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples)
    }

    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, Value)>) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels, Value)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            let labels = labels.as_slice();
            let mut sample = family.encode_family(&labels)?;
            match (kind, value) {
                (MetricType::Counter, Value::Whole(value)) => sample.encode_counter::<Labels, _, f64>(&value, None)?,
                (MetricType::Counter, Value::Real(value)) => sample.encode_counter::<Labels, _, f64>(&value, None)?,
                (_, Value::Whole(value)) => sample.encode_gauge(&value)?,
                (_, Value::Real(value)) => sample.encode_gauge(&value)?,
            }
        }
        Ok(())
    }
}

fn labels_of(service: &ServiceView) -> Labels {
    vec![("service", lvs_admin::words::service_word(&service.key))]
}

/// From clients, and from servers.
type Ways = [(&'static str, fn(&Counters) -> u64); 2];

const PACKETS: Ways = [("in", |counters| counters.in_packets), ("out", |counters| counters.out_packets)];
const BYTES: Ways = [("in", |counters| counters.in_bytes), ("out", |counters| counters.out_bytes)];

fn both_ways(labels: &Labels, counters: &Counters, ways: Ways) -> [(Labels, Value); 2] {
    ways.map(|(direction, count)| {
        let mut labels = labels.clone();
        labels.push(("direction", direction.to_owned()));
        (labels, Value::Whole(count(counters)))
    })
}

/// Name, help and value of a server's gauge.
type ServerGauge = (&'static str, &'static str, fn(&ServerView) -> u64);

const SERVER_GAUGES: [ServerGauge; 5] = [
    ("lvs_server_weight", "Weight as configured", |server| server.config.weight.into()),
    ("lvs_server_effective_weight", "Weight that the scheduler goes by", |server| server.effective_weight.into()),
    ("lvs_server_overloaded", "Whether it gets nothing new because it has too many connections", |server| {
        server.is_overloaded.into()
    }),
    ("lvs_server_draining", "Whether it is taken out of service by a drain", |server| server.drain.is_some().into()),
    ("lvs_server_drain_open_connections", "Connections that are not over, while it drains", |server| {
        server.drain.map_or(0, |drain| drain.open.into())
    }),
];

/// A label's value and what it counts.
type Column<T> = (&'static str, fn(&T) -> u64);

const OUTCOMES: [Column<WorkerCounts>; 9] = [
    ("forwarded", |worker| worker.counters.forwarded),
    ("replied", |worker| worker.counters.replied),
    ("passed", |worker| worker.counters.passed),
    ("local", |worker| worker.counters.local),
    ("held", |worker| worker.counters.held),
    ("dropped", |worker| worker.counters.dropped),
    ("to_host", |worker| worker.counters.to_host),
    ("pass_dropped", |worker| worker.counters.pass_dropped),
    ("host_answered", |worker| worker.counters.host.answered),
];

const DEFENCES: [Column<WorkerCounts>; 8] = [
    ("entries_removed", |worker| worker.defence.entries_removed),
    ("half_open_evicted", |worker| worker.defence.half_open_evicted),
    ("newcomers_evicted", |worker| worker.defence.newcomers_evicted),
    ("talked_evicted", |worker| worker.defence.talked_evicted),
    ("templates_evicted", |worker| worker.defence.templates_evicted),
    ("expectations_evicted", |worker| worker.defence.expectations_evicted),
    ("ports_taken_back", |worker| worker.defence.ports_taken_back),
    ("datagrams_given_up", |worker| worker.defence.datagrams_given_up),
];

const DEVICE_PACKETS: [Column<ArmCounters>; 2] = [("received", |arm| arm.received), ("sent", |arm| arm.sent)];
const DEVICE_BYTES: [Column<ArmCounters>; 2] = [("received", |arm| arm.received_bytes), ("sent", |arm| arm.sent_bytes)];
const DEVICE_LOST: [Column<ArmCounters>; 4] = [
    ("receive", |arm| arm.receive_lost),
    ("queue_full", |arm| arm.queue_full),
    ("refused", |arm| arm.send_failed),
    ("next_hop", |arm| arm.sent_lost),
];
const QUEUE_FRAMES: [Column<SourceCounters>; 9] = [
    ("packet", |queue| queue.packets),
    ("message", |queue| queue.messages),
    ("ring_full", |queue| queue.ring_full),
    ("unreadable", |queue| queue.unreadable),
    ("for_others", |queue| queue.ignored.for_others),
    ("other_vlan", |queue| queue.ignored.other_vlan),
    ("service_tagged", |queue| queue.ignored.service_tagged),
    ("other_protocol", |queue| queue.ignored.other_protocol),
    ("malformed", |queue| queue.ignored.malformed),
];

const OPENMETRICS: &str = "application/openmetrics-text";
/// Services and servers that have series of their own: some 20 a server.
const MOST: Most = Most { services: 10_000, servers: 20_000, servers_of_one: 20_000 };
