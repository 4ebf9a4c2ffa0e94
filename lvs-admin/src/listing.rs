//! The texts of `ipvsadm -L`: services and servers in six column sets, connections, timeouts, daemons.
//! Column widths and trailing blanks are ipvsadm 1.31's, byte for byte, as scripts cut these texts by column.

use core::fmt::Write;

use lvs_core::service::stats::Statistics;
use lvs_core::service::{TunnelChecksum, TunnelKind};
use lvs_core::view::{ConnectionView, DrainView, ServerView, ServiceView, TimeoutsView};
use lvs_core::{AddressFamily, ControlError, ForwardMethod, Protocol, ServerConfig, ServiceKey};

use crate::Names;
use crate::label::{Labels, listed_flag_names, netmask, whole_seconds};
use crate::order::{sorted, unsorted};
use crate::request::{Columns, ListOptions, Listing, SyncDaemon, SyncRole};

/// The table of services and servers: `ipvsadm -L`, in the columns `options` ask for.
/// Counters are [`Statistics::published`], as IPVS shows them: up to two seconds old. Behind the numbers of a server that
/// is being drained, which IPVS does not know, stands until when and how many connections are left:
/// ` drains 20 s, 3 left`, afterwards ` drained, 0 left`.
///
/// # Errors
/// [`ControlError::NoSuchService`] if `options` ask for one that is not there; ipvsadm's exit status is then 1.
///
/// ```
/// use lvs_admin::{ListOptions, Names, list};
///
/// let text = list(&[], &ListOptions::default(), &Names::none()).unwrap();
/// assert!(text.starts_with("IP Virtual Server version 1.2.1 (size=4096)\n"));
/// ```
pub fn list(services: &[ServiceView], options: &ListOptions, names: &Names) -> Result<String, ControlError> {
    let columns = match options.listing {
        Listing::Services(columns) => columns,
        _ => Columns::default(),
    };
    let labels = Labels::new(options.numeric, names);
    let mut shown = if options.unsorted { unsorted(services) } else { sorted(services) };
    let mut text = String::new();
    match options.service {
        None => text.push_str(VERSION_LINE),
        Some(key) => {
            shown.retain(|(service, _)| service.key == key);
            if shown.is_empty() {
                return Err(ControlError::NoSuchService(key));
            }
        }
    }
    text.push_str(header(columns));
    for (service, servers) in shown {
        let name = service_name(service.key, &labels);
        match counters(columns, &service.statistics) {
            Some(counters) => write_counters(&mut text, &name, counters, options.exact),
            None => write_service(&mut text, &name, service),
        }
        for server in servers {
            let name = format!("  -> {}", cut(&labels.server(service.key, server.config.key)));
            match counters(columns, &server.statistics) {
                Some(counters) => write_counters(&mut text, &name, counters, options.exact),
                None => write_server(&mut text, &name, server, columns),
            }
        }
    }
    Ok(text)
}

/// `TCP  192.0.2.80:80`, `FWM  5 IPv6`.
fn service_name(key: ServiceKey, labels: &Labels<'_>) -> String {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            format!("{protocol:4} {}", cut(&labels.endpoint(address, port, protocol)))
        }
        // ipvsadm prints marks as signed numbers.
        ServiceKey::FwMark { family: AddressFamily::Ipv4, mark } => format!("FWM  {}", mark as i32),
        ServiceKey::FwMark { family: AddressFamily::Ipv6, mark } => format!("FWM  {} IPv6", mark as i32),
    }
}

/// An endpoint in no more than its 28 columns: ipvsadm cuts, and the port goes first.
fn cut(endpoint: &str) -> &str {
    endpoint.char_indices().nth(28).map_or(endpoint, |(end, _)| &endpoint[..end])
}

const fn header(columns: Columns) -> &'static str {
    match columns {
        Columns::Load => concat!(
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        ),
        Columns::Tunnels => concat!(
            "Prot LocalAddress:Port Scheduler Flags\n",
            "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        ),
        Columns::Statistics => concat!(
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n",
            "  -> RemoteAddress:Port\n"
        ),
        Columns::Rates => concat!(
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n",
            "  -> RemoteAddress:Port\n"
        ),
        Columns::Thresholds => concat!(
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n"
        ),
        Columns::PersistentConnections => concat!(
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n",
            "  -> RemoteAddress:Port\n"
        ),
    }
}

fn write_service(text: &mut String, name: &str, service: &ServiceView) {
    let config = &service.config;
    let _ = write!(text, "{name} {}", config.scheduler);
    if let Some(flags) = listed_flag_names(config) {
        let _ = write!(text, " ({flags})");
    }
    if let Some(timeout_s) = config.persistence_timeout_s {
        let _ = write!(text, " persistent {timeout_s}");
        if let Some(mask) = netmask(config.netmask) {
            let _ = write!(text, " mask {mask}");
        }
        // An engine without persistence does nothing, and only rules show it.
        if let Some(engine) = &config.persistence_engine {
            let _ = write!(text, " pe {engine}");
        }
    }
    if config.one_packet {
        text.push_str(" ops");
    }
    text.push('\n');
}

fn write_server(text: &mut String, name: &str, server: &ServerView, columns: Columns) {
    let config = &server.config;
    let (active, inactive) = (server.active_connections, server.inactive_connections);
    let forward = config.forward.name();
    let _ = write!(text, "{name:33} ");
    let _ = match columns {
        Columns::Tunnels => write!(text, "{forward:7} {:13} {:<6}", tunnel_name(config), config.weight),
        Columns::Thresholds => write!(text, "{:<10} {:<10}", config.upper_threshold, config.lower_threshold),
        Columns::PersistentConnections => write!(text, "{:<9} {:<11}", config.weight, server.persistent_connections),
        Columns::Load | Columns::Statistics | Columns::Rates => write!(text, "{forward:7} {:<6}", config.weight),
    };
    let _ = write!(text, " {active:<10} {inactive:<10}");
    // Behind everything that ipvsadm writes, and only where IPVS has nothing like it.
    if let Some(DrainView { ends_in, open, .. }) = server.drain {
        let _ = match whole_seconds(ends_in) {
            0 => write!(text, " drained, {open} left"),
            seconds => write!(text, " drains {seconds} s, {open} left"),
        };
    }
    text.push('\n');
}

/// `gue:6080:-c`: kind, port for GUE, and checksum: none, full or remote.
fn tunnel_name(config: &ServerConfig) -> String {
    if config.forward != ForwardMethod::Tunnel {
        return "n/a".to_owned();
    }
    let checksum = match config.tunnel.checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match config.tunnel.kind {
        TunnelKind::Ipip => "ipip".to_owned(),
        TunnelKind::Gre => format!("gre:{checksum}"),
        TunnelKind::Gue => format!("gue:{}:{checksum}", config.tunnel.port),
    }
}

/// The five numbers of a statistics or rate row.
fn counters(columns: Columns, statistics: &Statistics) -> Option<[u64; 5]> {
    let Statistics { published, rates, .. } = statistics;
    match columns {
        Columns::Statistics => Some([
            published.connections,
            published.in_packets,
            published.out_packets,
            published.in_bytes,
            published.out_bytes,
        ]),
        Columns::Rates => {
            Some([rates.connections, rates.in_packets, rates.out_packets, rates.in_bytes, rates.out_bytes])
        }
        _ => None,
    }
}

fn write_counters(text: &mut String, name: &str, counters: [u64; 5], exact: bool) {
    let _ = write!(text, "{name:33}");
    for counter in counters {
        text.push_str(&if exact { format!(" {counter:8}") } else { scaled(counter) });
    }
    text.push('\n');
}

/// A counter in nine columns: up to eight digits, else in thousands, millions and so on, rounded down.
fn scaled(counter: u64) -> String {
    const SCALES: [(u64, u64, char); 4] = [
        (1_000_000_000, 1_000, 'K'),
        (100_000_000_000, 1_000_000, 'M'),
        (100_000_000_000_000, 1_000_000_000, 'G'),
        (u64::MAX, 1_000_000_000_000, 'T'),
    ];
    if counter < 100_000_000 {
        return format!(" {counter:8}");
    }
    let scale = SCALES.into_iter().find(|&(limit, ..)| counter < limit);
    let (_, unit, suffix) = scale.unwrap_or((u64::MAX, 1_000_000_000_000, 'T'));
    format!("{:8}{suffix}", counter / unit)
}

/// The table of connections and persistence templates: `ipvsadm -Lc`, in the order given.
pub fn list_connections(connections: &[ConnectionView], options: &ListOptions, names: &Names) -> String {
    let labels = Labels::new(options.numeric, names);
    let has_data = matches!(options.listing, Listing::Connections { persistence_data: true });
    let mut text = "IPVS connection entries\n".to_owned();
    text.push_str("pro expire state       source             virtual            destination");
    text.push_str(if has_data { "        pe name          pe_data\n" } else { "\n" });
    for connection in connections {
        let protocol = connection.protocol.unwrap_or(Protocol::Tcp);
        let [client, virtual_endpoint, real] = [connection.client, connection.virtual_endpoint, connection.real]
            .map(|endpoint| labels.endpoint(endpoint.address, endpoint.port, protocol));
        let seconds = connection.expires_in.as_secs();
        let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        let protocol = crate::proc::protocol_name(connection.protocol);
        let _ = write!(text, "{protocol:3} {expire:6} {:11} {client:18} {virtual_endpoint:18} ", connection.state);
        let _ = match &connection.persistence_key {
            Some((engine, data)) if has_data => {
                writeln!(text, "{real:16} {engine:18} {}", String::from_utf8_lossy(data))
            }
            _ => writeln!(text, "{real}"),
        };
    }
    text
}

/// The timeouts: `ipvsadm -L --timeout`.
pub fn list_timeouts(timeouts: &TimeoutsView) -> String {
    let [tcp, tcp_fin, udp] = [timeouts.tcp, timeouts.tcp_fin, timeouts.udp].map(|timeout| timeout.as_secs());
    format!("Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n")
}

/// The synchronisation daemons that run: `ipvsadm -L --daemon`. Empty if none does.
pub fn list_daemons(daemons: &[SyncDaemon]) -> String {
    let mut text = String::new();
    for daemon in daemons {
        let SyncDaemon { role, interface, sync_id, max_len, group, port, ttl } = daemon;
        let role = match role {
            SyncRole::Master => "master",
            SyncRole::Backup => "backup",
        };
        let max_len = max_len.unwrap_or(DEFAULT_SYNC_LEN);
        let _ = writeln!(
            text,
            "{role} sync daemon (mcast={interface}, syncid={sync_id}, maxlen={max_len}, group={group}, port={port}, ttl={ttl})"
        );
    }
    text
}

/// First line of the table, here and in `/proc/net/ip_vs`. Scripts expect the size of Linux's default table.
pub(crate) const VERSION_LINE: &str = "IP Virtual Server version 1.2.1 (size=4096)\n";
/// An Ethernet MTU less the IPv4 and UDP headers.
const DEFAULT_SYNC_LEN: u16 = 1500 - 20 - 8;
