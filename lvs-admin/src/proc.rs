//! The files IPVS has in `/proc/net`: `ip_vs`, `ip_vs_conn`, `ip_vs_conn_sync`, `ip_vs_stats`, `ip_vs_stats_percpu`.
//! Numbers are hexadecimal there, and the layouts differ from ipvsadm's; both are kept byte for byte.

use core::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use lvs_core::service::stats::{Counters, Statistics};
use lvs_core::view::{ConnectionView, ServerView, ServiceView};
use lvs_core::{AddressFamily, Endpoint, Netmask, Protocol, ServiceConfig, ServiceKey};

use crate::listing::VERSION_LINE;

/// `/proc/net/ip_vs`: services and servers, in the order given.
pub fn ip_vs(services: &[ServiceView]) -> String {
    let mut text = VERSION_LINE.to_owned();
    text.push_str("Prot LocalAddress:Port Scheduler Flags\n");
    text.push_str("  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n");
    for service in services {
        write_service(&mut text, service);
        for server in &service.servers {
            write_server(&mut text, server);
        }
    }
    text
}

fn write_service(text: &mut String, service: &ServiceView) {
    let config = &service.config;
    let scheduler = &config.scheduler;
    let ops = if config.one_packet { "ops " } else { "" };
    let _ = match service.key {
        ServiceKey::Address { protocol, address: address @ IpAddr::V4(_), port } => {
            write!(text, "{protocol}  {}:{port:04X} {scheduler} {ops} ", hex(address))
        }
        // Linux leaves the one-packet flag out here.
        ServiceKey::Address { protocol, address: address @ IpAddr::V6(_), port } => {
            write!(text, "{protocol}  [{}]:{port:04X} {scheduler} ", hex(address))
        }
        ServiceKey::FwMark { mark, .. } => write!(text, "FWM  {mark:08X} {scheduler} {ops}"),
    };
    if let Some(timeout_s) = config.persistence_timeout_s {
        let jiffies = u64::from(timeout_s) * JIFFIES_PER_S;
        let _ = write!(text, "persistent {jiffies} {:08X}", mask_bits(service.key.family(), config));
    }
    text.push('\n');
}

/// The mask as the kernel's 32-bit field prints on a little-endian machine: IPv4 masks in reading order, IPv6 prefix
/// lengths with their bytes swapped.
fn mask_bits(family: AddressFamily, config: &ServiceConfig) -> u32 {
    match config.netmask.unwrap_or(Netmask::host(family)) {
        Netmask::V4(mask) => mask.to_bits(),
        Netmask::V6(prefix) => u32::from(prefix).swap_bytes(),
    }
}

fn write_server(text: &mut String, server: &ServerView) {
    let Endpoint { address, port } = server.config.key;
    let host = match address {
        IpAddr::V4(_) => hex(address),
        IpAddr::V6(_) => format!("[{}]", hex(address)),
    };
    let (forward, weight) = (server.config.forward.name(), server.config.weight);
    let (active, inactive) = (server.active_connections, server.inactive_connections);
    let _ = writeln!(text, "  -> {host}:{port:04X}      {forward:7} {weight:<6} {active:<10} {inactive:<10}");
}

/// `/proc/net/ip_vs_conn`: connections and persistence templates, in the order given.
///
/// ```
/// assert_eq!(
///     lvs_admin::proc::ip_vs_conn(&[]),
///     "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
/// );
/// ```
pub fn ip_vs_conn(connections: &[ConnectionView]) -> String {
    let mut text = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n".to_owned();
    for connection in connections {
        write_flow(&mut text, connection);
        let _ = write!(text, " {:7}", connection.expires_in.as_secs());
        if let Some((engine, data)) = &connection.persistence_key {
            let _ = write!(text, " {engine} {}", String::from_utf8_lossy(data));
        }
        text.push('\n');
    }
    text
}

/// `/proc/net/ip_vs_conn_sync`: the same rows, with where each came from; all from here, as none are received.
pub fn ip_vs_conn_sync(connections: &[ConnectionView]) -> String {
    let mut text = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n".to_owned();
    for connection in connections {
        write_flow(&mut text, connection);
        let _ = writeln!(text, " LOCAL  {:7}", connection.expires_in.as_secs());
    }
    text
}

fn write_flow(text: &mut String, connection: &ConnectionView) {
    let _ = write!(text, "{:3}", protocol_name(connection.protocol));
    for Endpoint { address, port } in [connection.client, connection.virtual_endpoint, connection.real] {
        let _ = write!(text, " {} {port:04X}", hex(address));
    }
    let _ = write!(text, " {:11}", connection.state);
}

/// `/proc/net/ip_vs_stats`: the director's totals as last published, and its rates.
pub fn ip_vs_stats(totals: &Statistics) -> String {
    let mut text = String::new();
    text.push_str("   Total Incoming Outgoing         Incoming         Outgoing\n");
    text.push_str("   Conns  Packets  Packets            Bytes            Bytes\n");
    write_counters(&mut text, 8, totals.published);
    text.push_str("\n Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n");
    write_rates(&mut text, 8, totals);
    text
}

/// `/proc/net/ip_vs_stats_percpu`: the live counters of each shard, and the totals as last published.
pub fn ip_vs_stats_percpu(shards: &[Counters], totals: &Statistics) -> String {
    let mut text = String::new();
    text.push_str("       Total Incoming Outgoing         Incoming         Outgoing\n");
    text.push_str("CPU    Conns  Packets  Packets            Bytes            Bytes\n");
    for (index, &counters) in shards.iter().enumerate() {
        let _ = write!(text, "{index:3X} ");
        write_counters(&mut text, 8, counters);
    }
    text.push_str("  ~ ");
    write_counters(&mut text, 8, totals.published);
    text.push_str("\n     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n");
    write_rates(&mut text, 12, totals);
    text
}

fn write_counters(text: &mut String, width: usize, counters: Counters) {
    let Counters { connections, in_packets, out_packets, in_bytes, out_bytes } = counters;
    let _ = writeln!(text, "{connections:width$X} {in_packets:8X} {out_packets:8X} {in_bytes:16X} {out_bytes:16X}");
}

fn write_rates(text: &mut String, width: usize, totals: &Statistics) {
    let rates = totals.rates;
    let as_counters = Counters {
        connections: rates.connections,
        in_packets: rates.in_packets,
        out_packets: rates.out_packets,
        in_bytes: rates.in_bytes,
        out_bytes: rates.out_bytes,
    };
    write_counters(text, width, as_counters);
}

/// `0A0119F7`, `fd01:0000:0000:0000:0000:0000:0007:3d3e`.
fn hex(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
        IpAddr::V6(address) => full_ipv6(address),
    }
}

fn full_ipv6(address: Ipv6Addr) -> String {
    address.segments().map(|segment| format!("{segment:04x}")).join(":")
}

/// `IP` is a persistence template of a fwmark service.
pub(crate) fn protocol_name(protocol: Option<Protocol>) -> &'static str {
    match protocol {
        None => "IP",
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        Some(Protocol::Sctp) => "SCTP",
    }
}

/// Debian's kernels: `CONFIG_HZ=250`.
const JIFFIES_PER_S: u64 = 250;
