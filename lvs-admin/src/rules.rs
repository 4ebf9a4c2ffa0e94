//! Rules as text: what `ipvsadm -S` writes and `ipvsadm -R` reads, one command line for each service and server.
//! Reading what [`save`] wrote gives the same configuration back.

use core::fmt::Write;
use core::net::IpAddr;

use lvs_core::service::{DrainConfig, TunnelChecksum, TunnelConfig, TunnelKind};
use lvs_core::view::{ServerView, ServiceView};
use lvs_core::{AfterDrain, Command, ForwardMethod, ServerConfig, ServiceConfig, ServiceKey};

use crate::label::{Labels, ipv6, scheduler_flag_names, whole_seconds};
use crate::order::sorted;
use crate::request::{Request, UsageError};
use crate::{Names, additions, parse_with_names};

/// A line that could not be read as a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RulesError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub error: UsageError,
}

impl core::fmt::Display for RulesError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}: {}", self.line, self.error)
    }
}

impl core::error::Error for RulesError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What to write down, and how: the options of `-S`, and one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SaveOptions {
    /// Numbers instead of names: `-n`.
    pub numeric: bool,
    /// Thresholds too. ipvsadm 1.31 forgets them; without them a restored table is not the saved one.
    pub thresholds: bool,
}

/// Splits a line into words as `ipvsadm -R` does: at blanks; quotes and backslashes mean nothing, and a zero byte ends
/// the line.
///
/// ```
/// assert_eq!(lvs_admin::split_words("-A  -t 192.0.2.80:80 -p"), ["-A", "-t", "192.0.2.80:80", "-p"]);
/// ```
pub fn split_words(line: &str) -> Vec<&str> {
    line.split('\0').next().unwrap_or_default().split_ascii_whitespace().collect()
}

/// The requests in a text of rules, in order, each as its line is reached: `ipvsadm -R` applies one before it reads the
/// next, goes on when the kernel refuses one, and stops at the first that is no command.
/// Blank lines are skipped and a leading word `ipvsadm` is dropped; there are no comments.
pub fn restore<'a>(text: &'a str, names: &'a Names) -> impl Iterator<Item = Result<Request, RulesError>> + 'a {
    numbered(text, names).map(|(line, request)| request.map_err(|error| RulesError { line, error }))
}

/// The commands in a text of rules; what has been read before an error is lost with it.
/// A line that changes nothing, such as `-L`, is an error too.
///
/// ```
/// let rules = "-A -t 192.0.2.80:80 -s wrr\n-a -t 192.0.2.80:80 -r 10.0.0.2:8080 -m -w 3\n";
/// assert_eq!(lvs_admin::parse_rules(rules).unwrap().len(), 2);
///
/// let error = lvs_admin::parse_rules("# web\n").unwrap_err();
/// assert_eq!(error.line, 1);
/// ```
pub fn parse_rules(text: &str) -> Result<Vec<Command>, RulesError> {
    let names = Names::none();
    numbered(text, &names)
        .map(|(line, request)| match request {
            Ok(Request::Apply(command)) => Ok(command),
            Ok(request) => {
                let why = request.why_no_rule().unwrap_or_default();
                Err(RulesError { line, error: UsageError::check(format!("not a rule: {why}")) })
            }
            Err(error) => Err(RulesError { line, error }),
        })
        .collect()
}

/// The lines that are not blank, with their numbers from 1.
fn numbered<'a>(text: &'a str, names: &'a Names) -> impl Iterator<Item = (usize, Result<Request, UsageError>)> + 'a {
    text.lines().enumerate().filter_map(move |(index, line)| {
        let words = split_words(line);
        let words = words.strip_prefix(&["ipvsadm"]).unwrap_or(&words);
        if words.is_empty() {
            return None;
        }
        let request = parse_with_names(words, names).and_then(|request| match request {
            Request::Restore => Err(UsageError::no_command()),
            request => Ok(request),
        });
        Some((index + 1, request))
    })
}

/// The rules that make these services, sorted as listings are: `ipvsadm -S`.
///
/// What has no effect is not written: a mask without persistence, a slow start of no time. A server on the director's
/// own host is written `-m`, the nearest ipvsadm has. Of a drain what is left is written, `--drain 0` once it is over: a
/// server that is out of service stays so. What IPVS never had is written in options of ours,
/// behind ipvsadm's and only where it is used. Names of schedulers and helpers that have blanks in them, or are empty,
/// cannot be read back.
pub fn save(services: &[ServiceView], options: SaveOptions, names: &Names) -> String {
    let labels = Labels::new(options.numeric, names);
    let mut text = String::new();
    for (service, servers) in sorted(services) {
        let key = service_option(service.key, &labels);
        write_service(&mut text, "-A", &key, &service.config);
        for address in &service.local_addresses {
            let address = match *address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => ipv6(address),
            };
            let _ = writeln!(text, "--add-laddr {key} --local-address {address}");
        }
        for server in servers {
            write_server(&mut text, "-a", &key, service.key, &as_left(server), options, &labels);
        }
    }
    text
}

/// `-t 192.0.2.80:80`, `-f 5 -6`.
pub(crate) fn service_option(key: ServiceKey, labels: &Labels<'_>) -> String {
    match key {
        ServiceKey::Address { protocol, address, port } => {
            let option = match protocol {
                lvs_core::Protocol::Tcp => "-t",
                lvs_core::Protocol::Udp => "-u",
                lvs_core::Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", labels.endpoint(address, port, protocol))
        }
        ServiceKey::FwMark { family: lvs_core::AddressFamily::Ipv4, mark } => format!("-f {mark}"),
        ServiceKey::FwMark { family: lvs_core::AddressFamily::Ipv6, mark } => format!("-f {mark} -6"),
    }
}

pub(crate) fn write_service(text: &mut String, command: &str, key: &str, config: &ServiceConfig) {
    let _ = write!(text, "{command} {key} -s {}", config.scheduler);
    if let Some(timeout_s) = config.persistence_timeout_s {
        let _ = write!(text, " -p {timeout_s}");
        if let Some(mask) = crate::label::netmask(config.netmask) {
            let _ = write!(text, " -M {mask}");
        }
    }
    if let Some(engine) = config.persistence_engine.as_ref().filter(|name| !name.is_empty()) {
        let _ = write!(text, " --pe {engine}");
    }
    if config.one_packet {
        text.push_str(" -o");
    }
    if let Some(flags) = scheduler_flag_names(config) {
        let _ = write!(text, " -b {flags}");
    }
    additions::write(text, config);
    text.push('\n');
}

pub(crate) fn write_server(
    text: &mut String,
    command: &str,
    key: &str,
    service: ServiceKey,
    config: &ServerConfig,
    options: SaveOptions,
    labels: &Labels<'_>,
) {
    let real = labels.server(service, config.key);
    let method = match config.forward {
        ForwardMethod::DirectRouting => "-g",
        ForwardMethod::Tunnel => "-i",
        ForwardMethod::FullNat => "--fullnat",
        ForwardMethod::Nat | ForwardMethod::Local | ForwardMethod::Bypass => "-m",
    };
    let _ = write!(text, "{command} {key} -r {real} {method} -w {}", config.weight);
    if config.forward == ForwardMethod::Tunnel {
        write_tunnel(text, config.tunnel);
    }
    if options.thresholds && (config.upper_threshold != 0 || config.lower_threshold != 0) {
        let _ = write!(text, " -x {} -y {}", config.upper_threshold, config.lower_threshold);
    }
    if let Some(mtu) = config.mtu {
        let _ = write!(text, " --mtu {mtu}");
    }
    if let Some(drain) = config.drain {
        let _ = write!(text, " --drain {}", whole_seconds(drain.deadline));
        if drain.then == AfterDrain::Reset {
            text.push_str(" --drain-reset");
        }
    }
    text.push('\n');
}

/// A server's configuration with what is left of its drain: begun anew, it ends when it would have ended.
fn as_left(server: &ServerView) -> ServerConfig {
    let mut config = server.config.clone();
    config.drain = server.drain.map(|drain| DrainConfig { deadline: drain.ends_in, then: drain.then });
    config
}

fn write_tunnel(text: &mut String, tunnel: TunnelConfig) {
    let checksum = match tunnel.checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    let _ = match tunnel.kind {
        TunnelKind::Ipip => write!(text, " --tun-type ipip"),
        TunnelKind::Gre => write!(text, " --tun-type gre {checksum}"),
        TunnelKind::Gue => write!(text, " --tun-type gue --tun-port {} {checksum}", tunnel.port),
    };
}
