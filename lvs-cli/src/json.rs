//! The listings as JSON: what `--json` prints. One document a command; names are those of the views in `lvs-core`, units
//! stand in the names.

use std::net::IpAddr;

use lvs_admin::words::forward_word;
use lvs_admin::{SyncDaemon, SyncRole};
use lvs_core::service::stats::{Counters, Statistics};
use lvs_core::view::{ConnectionView, ServerView, ServiceView, TimeoutsView};
use lvs_core::{Netmask, ServiceKey};
use lvs_genl::lvs::State;
use serde_json::{Value, json};

/// A document, with line breaks, as it is printed.
pub fn text(document: &Value) -> String {
    format!("{document:#}\n")
}

/// Services with their servers, in the order given.
pub fn services(services: &[ServiceView]) -> Value {
    json!({ "services": services.iter().map(service).collect::<Vec<_>>() })
}

fn service(view: &ServiceView) -> Value {
    let config = &view.config;
    let mut document = key(&view.key);
    let more = json!({
        "scheduler": config.scheduler,
        "scheduler_flags": config.scheduler_flags.0,
        "persistence_timeout_s": config.persistence_timeout_s,
        "netmask": config.netmask.map(|mask| match mask {
            Netmask::V4(mask) => mask.to_string(),
            Netmask::V6(prefix) => prefix.to_string(),
        }),
        "persistence_engine": config.persistence_engine,
        "one_packet": config.one_packet,
        "local_addresses": view.local_addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
        "statistics": statistics(&view.statistics),
        "servers": view.servers.iter().map(server).collect::<Vec<_>>(),
    });
    merge(&mut document, more);
    document
}

/// A service's key: protocol, address and port, or family and mark.
pub fn key(key: &ServiceKey) -> Value {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            json!({ "protocol": protocol.to_string().to_lowercase(), "address": address.to_string(), "port": port })
        }
        ServiceKey::FwMark { family, mark } => json!({ "family": format!("{family:?}").to_lowercase(), "mark": mark }),
    }
}

fn server(view: &ServerView) -> Value {
    let config = &view.config;
    json!({
        "address": config.key.address.to_string(),
        "port": config.key.port,
        "forward": forward_word(config.forward),
        "weight": config.weight,
        "effective_weight": view.effective_weight,
        "upper_threshold": config.upper_threshold,
        "lower_threshold": config.lower_threshold,
        "is_overloaded": view.is_overloaded,
        "active_connections": view.active_connections,
        "inactive_connections": view.inactive_connections,
        "persistent_connections": view.persistent_connections,
        "statistics": statistics(&view.statistics),
    })
}

/// Counters as last published, and rates.
pub fn statistics(statistics: &Statistics) -> Value {
    let Counters { connections, in_packets, out_packets, in_bytes, out_bytes } = statistics.published;
    let rates = statistics.rates;
    json!({
        "connections": connections, "in_packets": in_packets, "out_packets": out_packets,
        "in_bytes": in_bytes, "out_bytes": out_bytes,
        "connections_per_s": rates.connections, "in_packets_per_s": rates.in_packets,
        "out_packets_per_s": rates.out_packets, "in_bytes_per_s": rates.in_bytes,
        "out_bytes_per_s": rates.out_bytes,
    })
}

/// Connections and persistence templates, in the order given.
pub fn connections(connections: &[ConnectionView]) -> Value {
    json!({ "connections": connections.iter().map(connection).collect::<Vec<_>>() })
}

fn connection(view: &ConnectionView) -> Value {
    json!({
        "is_template": view.is_template,
        "protocol": view.protocol.map(|protocol| protocol.to_string().to_lowercase()),
        "client": view.client.to_string(),
        "virtual": view.virtual_endpoint.to_string(),
        "real": view.real.to_string(),
        "local": view.local.map(|local| local.to_string()),
        "forward": forward_word(view.forward),
        "state": view.state,
        "expires_in_s": view.expires_in.as_secs(),
        "mark": view.mark,
        "in_packets": view.in_packets,
        "persistence_engine": view.persistence_key.as_ref().map(|(engine, _)| engine),
        "persistence_key": view.persistence_key.as_ref().map(|(_, key)| String::from_utf8_lossy(key)),
    })
}

/// The timeouts.
pub fn timeouts(timeouts: &TimeoutsView) -> Value {
    let TimeoutsView { tcp, tcp_fin, udp, .. } = timeouts;
    json!({ "tcp_s": tcp.as_secs(), "tcp_fin_s": tcp_fin.as_secs(), "udp_s": udp.as_secs() })
}

/// The synchronisation daemons.
pub fn daemons(daemons: &[SyncDaemon]) -> Value {
    let one = |daemon: &SyncDaemon| {
        json!({
            "role": match daemon.role { SyncRole::Master => "master", SyncRole::Backup => "backup" },
            "interface": daemon.interface,
            "sync_id": daemon.sync_id,
            "max_len": daemon.max_len,
            "group": daemon.group.to_string(),
            "port": daemon.port,
            "ttl": daemon.ttl,
        })
    };
    json!({ "daemons": daemons.iter().map(one).collect::<Vec<_>>() })
}

/// Settings by name.
pub fn settings(settings: &[(String, String)]) -> Value {
    let settings = settings.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    json!({ "settings": settings.collect::<serde_json::Map<_, _>>() })
}

/// Whether the director is ready, and how full its tables are.
pub fn state(state: &State) -> Value {
    let gauges = state.gauges;
    json!({
        "is_ready": state.is_ready,
        "version": state.version,
        "workers": state.workers,
        "connections": gauges.connections,
        "half_open": gauges.half_open,
        "templates": gauges.templates,
        "fragments": gauges.fragments,
        "transmits": gauges.transmits,
        "deleted_servers": gauges.deleted_servers,
    })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
