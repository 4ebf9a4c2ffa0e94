//! The JSON of `/api/v1`. These types mirror the core's: a name that programs read stays as it is when a field of the core
//! is renamed, and the core says nothing of JSON. Names are those of `lvsadm --json` and of metrics; units stand in them.
//! `openapi.json` describes what is here.

use lvs_admin::words::{forward_word, service_word};
use lvs_core::explanation::Explanation;
use lvs_core::service::stats::Statistics as CoreStatistics;
use lvs_core::view::{ConnectionView, DrainView, ServerView, ServiceView};
use lvs_core::{AfterDrain, Netmask, Verdict};
use serde::{Deserialize, Serialize};

/// A page of services.
#[derive(Clone, Debug, Serialize)]
pub struct Services {
    /// The services, in the order in which IPVS tells them.
    pub services: Vec<Service>,
    /// What `after` is to be for the next page; `null` at the end.
    pub next: Option<String>,
    /// Grows with each change.
    pub generation: u64,
}

/// A virtual service.
#[derive(Clone, Debug, Serialize)]
pub struct Service {
    /// `tcp:192.0.2.80:80`, `mark:5/6`.
    pub service: String,
    /// What is configured, as ipvsadm adds it.
    pub rule: String,
    /// The scheduler's name.
    pub scheduler: String,
    /// How long a client stays with its server, in seconds.
    pub persistence_timeout_s: Option<u32>,
    /// Which clients persistence takes as one.
    pub netmask: Option<String>,
    /// Each datagram is scheduled by itself.
    pub one_packet: bool,
    /// The director's addresses towards FullNAT servers.
    pub local_addresses: Vec<String>,
    /// What was counted.
    pub statistics: Statistics,
    /// Its servers, newest first; of very many only the first.
    pub servers: Vec<Server>,
    /// How many more there are to be asked for by `/api/v1/servers`; `true` if there are.
    pub more_servers: bool,
}

/// A page of one service's servers.
#[derive(Clone, Debug, Serialize)]
pub struct Servers {
    /// The servers, newest first.
    pub servers: Vec<Server>,
    /// What `after` is to be for the next page; `null` at the end.
    pub next: Option<String>,
}

/// A real server.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// `10.0.0.2:8080`.
    pub server: String,
    /// `masq`, `route`, `tunnel`, `fullnat`, `local`.
    pub forward: &'static str,
    /// As configured.
    pub weight: u32,
    /// What its scheduler goes by now.
    pub effective_weight: u32,
    /// Above so many connections it is overloaded; 0 is no limit.
    pub upper_threshold: u32,
    /// Below so many it is overloaded no longer.
    pub lower_threshold: u32,
    /// It gets nothing new because it has too many connections.
    pub is_overloaded: bool,
    /// It is taken out of service.
    pub drain: Option<Drain>,
    /// ipvsadm: ActiveConn.
    pub active_connections: u32,
    /// ipvsadm: InActConn.
    pub inactive_connections: u32,
    /// ipvsadm: PersistConn.
    pub persistent_connections: u32,
    /// What was counted.
    pub statistics: Statistics,
}

/// How far a drain is.
#[derive(Clone, Debug, Serialize)]
pub struct Drain {
    /// Until what remains is closed, in milliseconds; 0 once that has come.
    pub ends_in_ms: u64,
    /// `reset` or `silence`.
    pub then: &'static str,
    /// Connections that are not over.
    pub open: u32,
}

/// Counters as ipvsadm shows them, and rates.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Statistics {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets from servers.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes from servers.
    pub out_bytes: u64,
    /// A second, as of the last 2-second sample; so are those below.
    pub connections_per_s: u64,
    /// Packets from clients.
    pub in_packets_per_s: u64,
    /// Packets from servers.
    pub out_packets_per_s: u64,
    /// Bytes from clients.
    pub in_bytes_per_s: u64,
    /// Bytes from servers.
    pub out_bytes_per_s: u64,
}

impl From<&CoreStatistics> for Statistics {
    fn from(statistics: &CoreStatistics) -> Self {
        let CoreStatistics { published, rates, .. } = statistics;
        Self {
            connections: published.connections,
            in_packets: published.in_packets,
            out_packets: published.out_packets,
            in_bytes: published.in_bytes,
            out_bytes: published.out_bytes,
            connections_per_s: rates.connections,
            in_packets_per_s: rates.in_packets,
            out_packets_per_s: rates.out_packets,
            in_bytes_per_s: rates.in_bytes,
            out_bytes_per_s: rates.out_bytes,
        }
    }
}

impl Service {
    /// A service with its first servers; `more_servers` where there are others.
    pub fn of(view: &ServiceView, more_servers: bool) -> Self {
        let config = &view.config;
        let rule = lvs_admin::command_line(&lvs_core::Command::AddService(view.key, config.clone()));
        Self {
            service: service_word(&view.key),
            rule: rule.unwrap_or_default(),
            scheduler: config.scheduler.clone(),
            persistence_timeout_s: config.persistence_timeout_s,
            netmask: config.netmask.map(|mask| match mask {
                Netmask::V4(mask) => mask.to_string(),
                Netmask::V6(prefix) => prefix.to_string(),
            }),
            one_packet: config.one_packet,
            local_addresses: view.local_addresses.iter().map(ToString::to_string).collect(),
            statistics: (&view.statistics).into(),
            servers: view.servers.iter().map(Server::of).collect(),
            more_servers,
        }
    }
}

impl Server {
    /// A server.
    pub fn of(view: &ServerView) -> Self {
        let config = &view.config;
        Self {
            server: config.key.to_string(),
            forward: forward_word(config.forward),
            weight: config.weight,
            effective_weight: view.effective_weight,
            upper_threshold: config.upper_threshold,
            lower_threshold: config.lower_threshold,
            is_overloaded: view.is_overloaded,
            drain: view.drain.as_ref().map(Drain::of),
            active_connections: view.active_connections,
            inactive_connections: view.inactive_connections,
            persistent_connections: view.persistent_connections,
            statistics: (&view.statistics).into(),
        }
    }
}

impl Drain {
    fn of(view: &DrainView) -> Self {
        let then = match view.then {
            AfterDrain::Reset => "reset",
            AfterDrain::Silence => "silence",
        };
        Self { ends_in_ms: u64::try_from(view.ends_in.as_millis()).unwrap_or(u64::MAX), then, open: view.open }
    }
}

/// A page of connections and persistence templates.
#[derive(Clone, Debug, Serialize)]
pub struct Connections {
    /// Those of this page that match; there may be none though more follow.
    pub connections: Vec<Connection>,
    /// What `after` is to be for the next page; `null` at the end.
    pub next: Option<String>,
}

/// A connection or a persistence template.
#[derive(Clone, Debug, Serialize)]
pub struct Connection {
    /// Whether it is a persistence template.
    pub is_template: bool,
    /// `tcp`, `udp`, `sctp`; `null` for templates of services by mark.
    pub protocol: Option<String>,
    /// The client.
    pub client: String,
    /// What the client talks to.
    pub r#virtual: String,
    /// The real server.
    pub real: String,
    /// The director's own endpoint towards it, with FullNAT.
    pub local: Option<String>,
    /// As of a server.
    pub forward: &'static str,
    /// As Linux names it.
    pub state: &'static str,
    /// Until it ends, in seconds.
    pub expires_in_s: u64,
    /// The firewall mark it began with.
    pub mark: u32,
    /// Packets from the client.
    pub in_packets: u64,
}

impl Connection {
    /// A connection.
    pub fn of(view: &ConnectionView) -> Self {
        Self {
            is_template: view.is_template,
            protocol: view.protocol.map(|protocol| protocol.to_string().to_lowercase()),
            client: view.client.to_string(),
            r#virtual: view.virtual_endpoint.to_string(),
            real: view.real.to_string(),
            local: view.local.map(|local| local.to_string()),
            forward: forward_word(view.forward),
            state: view.state,
            expires_in_s: view.expires_in.as_secs(),
            mark: view.mark,
            in_packets: view.in_packets,
        }
    }
}

/// The settings.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// By the names of the sysctls below `net.ipv4.vs`.
    pub settings: std::collections::BTreeMap<String, String>,
    /// Timeouts of ESTABLISHED, FIN_WAIT and UDP, in seconds.
    pub timeouts: Timeouts,
}

/// As `ipvsadm -L --timeout` shows them, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp_s: u64,
    /// TCP FIN_WAIT.
    pub tcp_fin_s: u64,
    /// UDP.
    pub udp_s: u64,
}

/// Packets that were refused.
#[derive(Clone, Debug, Serialize)]
pub struct Drops {
    /// By reason: every reason there is.
    pub drops: Vec<Dropped>,
    /// All of them.
    pub total: u64,
}

/// Packets that were refused for one reason.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Dropped {
    /// The reason's name: the metric's label, and the anchor in the documentation.
    pub reason: &'static str,
    /// What happened, and what helps.
    pub advice: &'static str,
    /// How many.
    pub packets: u64,
}

/// How full the tables are.
#[derive(Clone, Debug, Serialize)]
pub struct Gauges {
    /// Whether every worker answers, and there is one.
    pub is_ready: bool,
    /// Of lvsd.
    pub version: &'static str,
    /// How many there are.
    pub workers: u32,
    /// Whether whoever asks may do everything.
    pub may_change: bool,
    /// The bounded tables of all workers together.
    pub tables: Vec<TableFill>,
    /// Everything counted together.
    pub statistics: Statistics,
}

/// How full one table is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TableFill {
    /// Its name: the metric's label.
    pub table: &'static str,
    /// What is in it.
    pub entries: u64,
    /// What may be; `null` where it has no bound of its own.
    pub bound: Option<u64>,
}

/// A packet to be explained, in words or in hexadecimal digits: one of the two.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// `tcp 198.51.100.7:1024 > 192.0.2.80:80`.
    pub packet: Option<String>,
    /// A whole IP packet.
    pub hex: Option<String>,
    /// Its firewall mark.
    pub mark: Option<u32>,
}

/// What would happen to a packet now.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainAnswer {
    /// `forward`, `reply`, `drop`, `pass`, …
    pub verdict: &'static str,
    /// The reason, of a packet that is dropped.
    pub reason: Option<&'static str>,
    /// The steps, in order, each a sentence with its figures.
    pub steps: Vec<String>,
    /// All of it, as `Explanation` is printed.
    pub text: String,
    /// Which worker the packet would come to.
    pub worker: u32,
    /// The packet as it leaves, in hexadecimal digits.
    pub bytes: String,
}

impl ExplainAnswer {
    /// What a worker says.
    pub fn of(explanation: &Explanation, worker: u32) -> Self {
        let (verdict, reason) = match explanation.verdict {
            Verdict::Drop(reason) => ("drop", Some(reason.name())),
            Verdict::Pass => ("pass", None),
            Verdict::Held => ("held", None),
            Verdict::Local => ("local", None),
            Verdict::Reply { .. } => ("reply", None),
            _ => ("forward", None),
        };
        Self {
            verdict,
            reason,
            steps: explanation.steps.iter().map(ToString::to_string).collect(),
            text: explanation.to_string(),
            worker,
            bytes: explanation.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Rules as ipvsadm-save writes them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The file's text.
    pub rules: String,
}

/// Rules to have from now on, or commands to carry out: one of the two, all of it or nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Everything that is to be there, as ipvsadm-save writes it: what a plan for it says is done.
    pub rules: Option<String>,
    /// Commands, each as ipvsadm is told.
    pub commands: Option<Vec<String>>,
    /// Only if nothing has changed since this generation.
    pub expect: Option<u64>,
}

/// What leads from what runs to a file of rules.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The commands, in order.
    pub commands: Vec<PlannedCommand>,
    /// What was running then.
    pub generation: u64,
}

/// A command, and what of its connections it touches.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedCommand {
    /// As ipvsadm is told.
    pub command: String,
    /// What becomes of the connections it concerns.
    pub connections: TouchedConnections,
}

/// How many connections a command concerns.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TouchedConnections {
    /// They go to other servers with their next packet.
    pub moved: u64,
    /// They end, and who sends next is told.
    pub reset: u64,
    /// Their packets are dropped until they have timed out.
    pub dropped: u64,
    /// They go on as they are.
    pub left: u64,
}

/// A server to be taken out of service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// `tcp:192.0.2.80:80`.
    pub service: String,
    /// `10.0.0.2:8080`.
    pub server: String,
    /// How long its connections may go on: `30s`, `5m`.
    pub deadline: String,
    /// `reset`, the default, or `silence`.
    pub then: Option<Then>,
}

/// What becomes of connections at a drain's deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Both sides get a RST.
    #[default]
    Reset,
    /// They are forgotten.
    Silence,
}

/// A server to be put back into service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndrainRequest {
    /// As of a drain.
    pub service: String,
    /// As of a drain.
    pub server: String,
}

/// A server's new weight.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRequest {
    /// As of a drain.
    pub service: String,
    /// As of a drain.
    pub server: String,
    /// From 0 on.
    pub weight: u32,
}

/// What was changed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Changed {
    /// How many commands were carried out.
    pub commands: usize,
    /// What runs now.
    pub generation: u64,
}
